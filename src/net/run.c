#include "net/run.h"

#include "os/clock.h"

void
run_note_frame(uv_loop_t *loop)
{
    struct run *run = loop->data;
    if (run != NULL)
        run->frames++;
}

struct turn {
    uv_loop_t *loop;
    uint64_t frames; /* Before it. */
    bool alive;      /* Something is left to watch. */
};

/* A turn without sleeping. True if there was something to do: a frame, or the end. */
static bool
turn_at_once(void *arg)
{
    struct turn *turn = arg;
    const struct run *run = turn->loop->data;
    turn->alive = uv_run(turn->loop, UV_RUN_NOWAIT) != 0;
    return !turn->alive || run->frames != turn->frames;
}

void
run_loop(uv_loop_t *loop)
{
    struct run run = {0};
    struct turn turn = {.loop = loop, .alive = true};
    loop->data = &run;
    while (turn.alive) {
        turn.frames = run.frames;
        turn.alive = uv_run(loop, UV_RUN_ONCE) != 0;
        while (turn.alive && run.frames != turn.frames) {
            turn.frames = run.frames;
            (void)spin_look(&run.spin, clock_monotonic_ns, turn_at_once, &turn);
        }
    }
    loop->data = NULL;
}
