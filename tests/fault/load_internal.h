/* What load.c and load_queue.c share. */
#ifndef TESTS_FAULT_LOAD_INTERNAL_H
#define TESTS_FAULT_LOAD_INTERNAL_H

#include "load.h"

enum { CALL_TIMEOUT_MS = 4000, ABSENT = 1 << 0 };

/* Of a value, by its version; 0 has none. */
extern const size_t load_version_bytes[4];

/* Whether the call succeeded. A failure must say why, and in time. */
bool load_succeeded(struct load *load, const char *what, enum ds_status status,
                    const struct ds_error *err);

/* The bytes of a version of a key. */
void load_fill(uint8_t *data, int key, int version, size_t bytes);

/* What the buffer holds: ABSENT, the bit of a version, or 0: nothing that was put. */
uint32_t load_found(struct ds_buffer *buffer, int key);

/* The outcome of a change to `becomes`. */
void load_note(uint32_t *allowed, bool done, uint32_t becomes);

/* Opens the queue, makes a block, puts its rows, reads and clears some. */
void load_use_queue(struct load *load);

/* `client` reads their blocks; NULL: nobody does. */
void load_check_rows(struct load *load, struct ds_client *client, const char *what);
void load_clear_row(struct load *load, int row);
void load_delete_block(struct load *load, struct ds_client *client);

#endif
