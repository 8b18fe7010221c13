#include "store/step.h"

store_step_fn step_hook;
void *step_hook_arg;

void
store_set_step_hook(store_step_fn fn, void *arg)
{
    step_hook = fn;
    step_hook_arg = arg;
}
