/* Running a daemon's loop: after a frame it looks for the next one for a moment before
 * it sleeps (base/spin.h). Owner: loop thread. */
#ifndef NET_RUN_H
#define NET_RUN_H

#include "base/spin.h"

#include <uv.h>

/* What the connections of a loop tell whoever runs it. */
struct run {
    uint64_t frames; /* That were handed over. */
    struct spin spin;
};

/* Runs until nothing is left to watch. Blocks. Uses loop->data. */
void run_loop(uv_loop_t *loop);

/* A connection of the loop handed a frame over. */
void run_note_frame(uv_loop_t *loop);

#endif
