#include "queue/replies.h"

#include "queue/hash.h"

#include "base/check.h"
#include "base/hmap.h"
#include "base/list.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

/* Owner: struct replies. */
struct last_reply {
    struct hmap_node node;
    struct list link; /* In the order of their last request. */
    struct request_id id;
    uint8_t *bytes; /* Owned; NULL: not kept. */
    size_t len;
};

/* Invariants: every client is in both; bytes is the sum of all `len`. */
struct replies {
    struct hmap by_client;
    struct list order; /* The least recently seen first. */
    uint64_t bytes;
};

enum ds_status
replies_create(struct replies **out, struct ds_error *err)
{
    struct replies *replies = calloc(1, sizeof *replies);
    if (replies == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the table of replies");
    list_init(&replies->order);
    *out = replies;
    return DS_OK;
}

static void
drop_bytes(struct replies *replies, struct last_reply *last)
{
    replies->bytes -= last->len;
    free(last->bytes);
    last->bytes = NULL;
    last->len = 0;
}

static void
forget(struct replies *replies, struct last_reply *last)
{
    drop_bytes(replies, last);
    hmap_remove(&replies->by_client, &last->node);
    list_remove(&last->link);
    free(last);
}

void
replies_destroy(struct replies *replies)
{
    if (replies == NULL)
        return;
    LIST_FOREACH (link, &replies->order)
        forget(replies, CONTAINER_OF(link, struct last_reply, link));
    hmap_fini(&replies->by_client);
    free(replies);
}

static uint64_t
hash_client(uint64_t client)
{
    return hash_bytes(&client, sizeof client);
}

static struct last_reply *
find(const struct replies *replies, uint64_t client)
{
    uint64_t hash = hash_client(client);
    struct hmap_node *node = hmap_chain(&replies->by_client, hash);
    for (; node != NULL; node = node->next) {
        struct last_reply *last = CONTAINER_OF(node, struct last_reply, node);
        if (last->id.client == client)
            return last;
    }
    return NULL;
}

enum reply_found
replies_find(const struct replies *replies, struct request_id id, struct ds_slice *out)
{
    const struct last_reply *last = id.client == 0 ? NULL : find(replies, id.client);
    if (last == NULL || id.number > last->id.number)
        return REPLY_UNKNOWN;
    if (id.number < last->id.number)
        return REPLY_TOO_LATE;
    if (last->bytes == NULL)
        return REPLY_UNKNOWN;
    *out = slice(last->bytes, last->len);
    return REPLY_KEPT;
}

bool
replies_reserve(struct replies *replies, struct request_id id)
{
    if (id.client == 0 || find(replies, id.client) != NULL)
        return true;
    struct last_reply *last = calloc(1, sizeof *last);
    if (last == NULL ||
        !hmap_insert(&replies->by_client, &last->node, hash_client(id.client))) {
        free(last);
        return false;
    }
    last->id.client = id.client;
    list_push_back(&replies->order, &last->link);
    return true;
}

static void
copy_bytes(struct replies *replies, struct last_reply *last, struct ds_slice reply)
{
    drop_bytes(replies, last);
    if (reply.len == 0 || reply.len > REPLIES_ONE_BYTES_MAX)
        return;
    last->bytes = malloc(reply.len);
    if (last->bytes == NULL)
        return;
    memcpy(last->bytes, reply.data, reply.len);
    last->len = reply.len;
    replies->bytes += reply.len;
}

void
replies_keep(struct replies *replies, struct request_id id, struct ds_slice reply)
{
    if (id.client == 0)
        return;
    struct last_reply *last = find(replies, id.client);
    DS_ASSERT(last != NULL);
    last->id = id;
    copy_bytes(replies, last, reply);
    list_remove(&last->link);
    list_push_back(&replies->order, &last->link);
    while (replies->by_client.count > REPLIES_CLIENTS_MAX ||
           replies->bytes > REPLIES_BYTES_MAX)
        forget(replies, CONTAINER_OF(replies->order.next, struct last_reply, link));
}

size_t
replies_count(const struct replies *replies)
{
    return replies->by_client.count;
}

void
replies_each(const struct replies *replies, replies_fn visit, void *arg)
{
    LIST_FOREACH (link, &replies->order) {
        const struct last_reply *last = CONTAINER_OF(link, struct last_reply, link);
        visit(last->id, slice(last->bytes, last->len), arg);
    }
}
