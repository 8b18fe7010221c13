/* Between network.c and loop.c. */
#ifndef TESTS_SCALE_NETWORK_H
#define TESTS_SCALE_NETWORK_H

#include "scale.h"

/* Those of a loop whose conn_close() was called end. */
void network_end_closing(struct list *conns);

/* Something of this loop is closing: it ends at once, but not from where it was called. */
void loop_need_turn(uv_loop_t *loop);

#endif
