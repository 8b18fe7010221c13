/* What the files of the messages share. Only src/wire includes this. */
#ifndef WIRE_MESSAGE_INTERNAL_H
#define WIRE_MESSAGE_INTERNAL_H

#include "wire/message.h"

/* A list of refs that ends the body: false if it does not end there. */
bool read_ref_list(struct reader *reader, struct ref_list *out);
void write_ref_list(struct writer *writer, const struct wire_ref *refs, size_t count);

#endif
