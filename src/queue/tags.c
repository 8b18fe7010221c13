#include "queue/tags.h"

#include "queue/request.h"

#include "wire/msgpack.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

/* A name with its value, as they stand in a map. */
struct pair {
    struct ds_slice name;
    struct ds_slice whole;
    bool is_written;
};

struct ds_slice
tags_slice(const struct row_tags *tags)
{
    return tags == NULL ? slice("\x80", 1) : slice(tags->bytes, tags->len);
}

void
tags_free(struct row_tags *tags)
{
    free(tags);
}

static void
read_pair(struct reader *reader, struct pair *out)
{
    const uint8_t *begin = reader->at;
    out->name = msgpack_read_raw(reader);
    msgpack_skip(reader);
    DS_ASSERT(reader_ok(reader)); /* Checked when the request was decoded. */
    out->whole = slice(begin, (size_t)(reader->at - begin));
    out->is_written = false;
}

/* The pair that replaces a value of this name, or NULL. Should `added` have the name
 * more than once, the last one counts, and none of them is written again. */
static struct pair *
find_replacement(struct pair *added, uint32_t count, struct ds_slice name)
{
    struct pair *found = NULL;
    for (uint32_t i = 0; i < count; i++) {
        if (!slice_equal(added[i].name, name))
            continue;
        added[i].is_written = true;
        found = &added[i];
    }
    return found;
}

/* Writes the merged pairs; returns how many. */
static uint32_t
merge_pairs(struct reader *old, struct pair *added, uint32_t added_count,
            struct writer *out)
{
    uint32_t count = msgpack_read_map(old);
    for (uint32_t i = 0; i < count; i++) {
        struct pair pair;
        read_pair(old, &pair);
        struct pair *replacement = find_replacement(added, added_count, pair.name);
        write_bytes(out, replacement == NULL ? pair.whole : replacement->whole);
    }
    for (uint32_t i = 0; i < added_count; i++) {
        if (added[i].is_written)
            continue;
        write_bytes(out, added[i].whole);
        count++;
    }
    return count;
}

/* `head` and `body` one after the other. */
static struct row_tags *
join(struct ds_slice head, struct ds_slice body)
{
    struct row_tags *tags = malloc(sizeof *tags + head.len + body.len);
    if (tags == NULL)
        return NULL;
    tags->len = (uint32_t)(head.len + body.len);
    memcpy(tags->bytes, head.data, head.len);
    if (body.len > 0)
        memcpy(tags->bytes + head.len, body.data, body.len);
    return tags;
}

static enum ds_status
fail_full(struct ds_error *err, const char *what, size_t actual, size_t max)
{
    return ds_fail(err, DS_FULL,
                   "the tags of one row come to %zu %s; at most %zu are allowed, put "
                   "large values into fields",
                   actual, what, max);
}

static enum ds_status
keep(struct ds_slice head, struct ds_slice body, uint32_t bytes_max,
     struct row_tags **out, struct ds_error *err)
{
    if (body.len > bytes_max)
        return fail_full(err, "bytes", body.len, bytes_max);
    struct row_tags *tags = join(head, body);
    if (tags == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the tags of a row");
    *out = tags;
    return DS_OK;
}

enum ds_status
tags_merge(const struct row_tags *old, struct ds_slice added, uint32_t bytes_max,
           struct writer *scratch, struct row_tags **out, struct ds_error *err)
{
    if (old == NULL)
        return keep(slice(added.data, 0), added, bytes_max, out, err);

    struct pair pairs[QUEUE_TAG_NAMES_MAX];
    struct reader reader = reader_of(added.data, added.len);
    uint32_t added_count = msgpack_read_map(&reader);
    DS_ASSERT(added_count <= QUEUE_TAG_NAMES_MAX);
    for (uint32_t i = 0; i < added_count; i++)
        read_pair(&reader, &pairs[i]);

    struct reader old_reader = reader_of(old->bytes, old->len);
    writer_clear(scratch);
    uint32_t count = merge_pairs(&old_reader, pairs, added_count, scratch);
    if (count > QUEUE_TAG_NAMES_MAX)
        return fail_full(err, "names", count, QUEUE_TAG_NAMES_MAX);
    size_t body_bytes = scratch->len;
    msgpack_write_map(scratch,
                      count); /* The head, known last, stands behind the body. */
    if (scratch->failed)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the tags of a row");
    struct ds_slice head = slice(scratch->data + body_bytes, scratch->len - body_bytes);
    return keep(head, slice(scratch->data, body_bytes), bytes_max, out, err);
}
