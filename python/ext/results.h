/* From the library's answers to Python's: room made before the call, objects after it.
 * Conventions as in arguments.h. */
#ifndef RESULTS_H
#define RESULTS_H

#include "buffer.h"

/* Room for the buffers that a call will answer with; releases those not taken. */
struct handles {
    struct ds_buffer **items;
    size_t count;
};

bool handles_open(size_t count, struct handles *out);
void handles_auto(struct handles *handles);

/* Bytes of all the buffers that are there. */
uint64_t handles_bytes(const struct handles *handles);

/* A list of Buffer, None where there is no handle; empties `handles`. */
PyObject *handles_to_list(const struct core_state *state, struct handles *handles);

/* One answer per key. */
struct flags {
    bool *items;
    size_t count;
};

bool flags_open(size_t count, struct flags *out);
void flags_auto(struct flags *flags);
PyObject *flags_to_list(const struct flags *flags);

#endif
