/* What the files of the messages share. Only src/wire includes this. */
#ifndef WIRE_MESSAGE_INTERNAL_H
#define WIRE_MESSAGE_INTERNAL_H

#include "wire/message.h"

#include <string.h>

/* One element less; false when none is left. */
static inline bool
step(uint32_t *count)
{
    if (*count == 0)
        return false;
    (*count)--;
    return true;
}

/* Elements of one size: check the whole list by multiplication. */
static inline bool
fixed_list_fits(uint32_t count, const struct reader *at, size_t element_bytes)
{
    return reader_ok(at) && reader_left(at) == (uint64_t)count * element_bytes;
}

/* What a C string can hold. */
static inline bool
is_short_text(struct ds_slice text, size_t bytes_max)
{
    return text.len <= bytes_max &&
           (text.len == 0 || memchr(text.data, 0, text.len) == NULL);
}

/* A list of refs that ends the body: false if it does not end there. */
bool read_ref_list(struct reader *reader, struct ref_list *out);
void write_ref_list(struct writer *writer, const struct wire_ref *refs, size_t count);

void write_place(struct writer *writer, struct wire_place place);
struct wire_place read_place(struct reader *reader);

/* One of several in a row. False, and nothing is stored, if it is malformed. */
bool read_queue_place(struct reader *reader, struct queue_place *out);

#endif
