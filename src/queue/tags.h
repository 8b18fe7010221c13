/* The tags of a row: a MessagePack map kept as bytes. Only its names are looked at; the
 * values are the user's. Pure. */
#ifndef QUEUE_TAGS_H
#define QUEUE_TAGS_H

#include "wire/cursor.h"

#include "base/auto.h"

/* Owner: the row, or the put that is being prepared. A row without tags has none. */
struct row_tags {
    uint32_t len;
    uint8_t bytes[];
};

/* What `tags` looks like to a reader: {} for NULL. */
struct ds_slice tags_slice(const struct row_tags *tags);

/* `*out` becomes a new map: `old` (may be NULL) with the pairs of `added`, a
 * well-formed map, put in; a name that both have keeps its place and gets the new
 * value. `scratch` is overwritten. The caller owns *out. DS_FULL        larger than
 * `bytes_max`, or more than QUEUE_TAG_NAMES_MAX names DS_NO_MEMORY */
DS_MUST_USE enum ds_status
tags_merge(const struct row_tags *old, struct ds_slice added, uint32_t bytes_max,
           struct writer *scratch, struct row_tags **out, struct ds_error *err);

/* Accepts NULL. */
void tags_free(struct row_tags *tags);

#endif
