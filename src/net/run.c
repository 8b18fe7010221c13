#include "net/run.h"

#include "os/clock.h"

void
run_note_frame(uv_loop_t *loop)
{
    struct run *run = loop->data;
    if (run != NULL)
        run->frames++;
}

/* Looks without sleeping until a frame came, the budget is over, or somebody else had
 * the core. False: nothing is left to watch. */
static bool
look_for_frame(uv_loop_t *loop, struct run *run, uint64_t budget_ns)
{
    uint64_t frames = run->frames;
    uint64_t begin = clock_monotonic_ns();
    uint64_t now = begin;
    bool alive = true;
    enum spin_outcome outcome = SPIN_MISS;
    while (alive && outcome == SPIN_MISS && now - begin < budget_ns) {
        uint64_t last = now;
        alive = uv_run(loop, UV_RUN_NOWAIT) != 0;
        now = clock_monotonic_ns();
        if (run->frames != frames)
            outcome = SPIN_HIT;
        else if (now - last > SPIN_PREEMPTED_NS)
            outcome = SPIN_PREEMPTED;
    }
    spin_end(&run->spin, now, outcome);
    return alive;
}

void
run_loop(uv_loop_t *loop)
{
    struct run run = {0};
    loop->data = &run;
    bool alive = true;
    while (alive) {
        uint64_t frames = run.frames;
        alive = uv_run(loop, UV_RUN_ONCE) != 0;
        while (alive && run.frames != frames) {
            frames = run.frames;
            uint32_t budget = spin_begin(&run.spin, clock_monotonic_ns());
            if (budget > 0)
                alive = look_for_frame(loop, &run, budget);
        }
    }
    loop->data = NULL;
}
