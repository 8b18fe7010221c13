/* The last request of each client, and what was answered.
 *
 * A client numbers its requests upwards and has one under way at a time. When it lost
 * the answer it asks again under the same number and gets the same answer, without
 * anything being done twice. A number below the last one is a copy that came late, of a
 * request its client does not wait for any more: it must not be applied.
 *
 *      [unknown] ── first request ──► [last number, its reply] ── next number ──┐
 *                                        ▲         └── bytes over a limit ──►   │
 *                                        └──────────────── [last number] ◄──────┘
 *
 * Of a client that is over one of the limits, the least recently seen first, nothing is
 * known any more: asked again, its request is applied again. (A put is recognised by its
 * block then, clear changes nothing a second time.) Pure.
 *
 * Owner: whoever holds it; no locking. */
#ifndef QUEUE_REPLIES_H
#define QUEUE_REPLIES_H

#include "base/auto.h"

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stdint.h>

enum {
    REPLIES_CLIENTS_MAX = 65536,
    REPLIES_ONE_BYTES_MAX = 1 << 20, /* A larger reply is not kept. */
    REPLIES_BYTES_MAX = 64 << 20,
};

struct request_id {
    uint64_t client; /* 0: does not say who it is. */
    uint64_t number; /* From 1 on. */
};

struct replies;

/* DS_NO_MEMORY. */
DS_MUST_USE enum ds_status replies_create(struct replies **out, struct ds_error *err);
void replies_destroy(struct replies *replies); /* Accepts NULL. */
DEFINE_AUTO(replies, struct replies, replies_destroy)

enum reply_found {
    REPLY_UNKNOWN,  /* To be applied. */
    REPLY_KEPT,     /* *out is the answer, borrowed until the next call here. */
    REPLY_TOO_LATE, /* A later request of this client was seen. */
};
enum reply_found
replies_find(const struct replies *replies, struct request_id id, struct ds_slice *out);

/* Room for replies_keep(); false when out of memory. Without a client: nothing. */
bool replies_reserve(struct replies *replies, struct request_id id);

/* `id`, for which room was reserved, is the client's last request from now on, answered
 * with these bytes (copied). Empty: the reply is not worth keeping. */
void replies_keep(struct replies *replies, struct request_id id, struct ds_slice reply);

size_t replies_count(const struct replies *replies);

/* Each client's last request, the least recently seen first. */
typedef void (*replies_fn)(struct request_id id, struct ds_slice reply, void *arg);
void replies_each(const struct replies *replies, replies_fn visit, void *arg);

#endif
