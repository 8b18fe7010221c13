/* The worker's memory as this process sees it: arena, table, and our region of the
 * pins. Over TCP there is nothing to see, and only what the worker keeps for us counts:
 * then `arena` is NULL.
 *
 * A client has at most one that is current. Buffers keep the one that they were made
 * in, so what they show stays right after the worker came back with other memory, or
 * after the client was closed.
 *
 * Counted; every function here but mapping_open() needs the library's lock. In a forked
 * child, inherited mappings are marked so: their pins and unsealed objects are the
 * parent's, and nothing of the child touches those. */
#ifndef CLIENT_MAPPING_H
#define CLIENT_MAPPING_H

#include "base/list.h"
#include "client/lease.h"
#include "client/library.h"
#include "client/pins.h"
#include "store/table_reader.h"
#include "wire/message.h"

struct mapping {
    struct list link; /* In library_mappings(). */
    uint32_t holders;
    bool inherited; /* From the parent of this process. */
    bool left;      /* The worker was told that its place is free. */
    struct deferred destroy;

    uint32_t incarnation;
    uint32_t client; /* Our region of the pins + 1. */
    uint64_t token;
    char *place; /* Of the worker: its Unix socket, or over TCP host:port. */

    uint8_t *arena; /* NULL over TCP. */
    uint64_t arena_bytes;
    int arena_fd; /* For private views; -1 over TCP. */
    uint64_t huge_page_bytes;
    void *table;
    uint64_t table_bytes;
    struct table_reader reader; /* Of the table. */
    void *region;               /* Of the pins file. */
    uint64_t region_bytes;
    struct pins pins;

    /* What the worker keeps for us because it is not sealed: buffers that somebody
     * holds, and objects that nobody wants any more and that the next request gives up.
     */
    struct list unsealed;
    struct wire_ref *aborts;
    size_t abort_count;
    size_t abort_capacity;
    struct leases leases;

    /* Grows whenever we tell the worker what we hold. A reply that reserved something
     * and was asked for in an earlier epoch is void: the worker may have dropped it. */
    uint64_t epoch;
    bool resume_needed; /* A reservation was lost on the way: tell the worker. */

    /* Descriptors that tell the worker that pins are still needed, by being open. */
    int life_mark;  /* Of our region, when the worker cannot see our pid; or -1. */
    int fork_mark;  /* Of the claim for a fork that is under way, or -1; see fork.c. */
    int claim_mark; /* In a child: of that claim, open as long as the mapping is. */
    enum { FORK_UNASKED, FORK_ASKED } fork_state;
};

/* Takes the descriptors, also on failure. The caller is the first holder.
 *   DS_MISMATCH   the memory has another layout */
DS_MUST_USE enum ds_status
mapping_open(const struct welcome *welcome, const char *socket_path,
             const int fds[WELCOME_FDS_MAX], struct mapping **out,
             struct ds_error *err);

/* The same over TCP, where there are no descriptors. */
DS_MUST_USE enum ds_status
mapping_open_remote(const struct welcome *welcome, const char *address,
                    struct mapping **out, struct ds_error *err);

struct mapping *mapping_ref(struct mapping *mapping);
/* Accepts NULL. The last holder's gives our place at the worker back. */
void mapping_unref(struct mapping *mapping);

/* Over TCP: bytes travel by message. */
static inline bool
mapping_is_remote(const struct mapping *mapping)
{
    return mapping->arena == NULL;
}

/* True if [offset, offset + size) lies in the arena and there is such a slot. */
bool mapping_contains(const struct mapping *mapping, uint32_t slot, uint64_t offset,
                      uint64_t size);

/* Let the next request tell the worker that this object is given up. */
void mapping_abort_later(struct mapping *mapping, struct wire_ref ref);

/* The same for all that is lent to us. */
void mapping_give_up_leases(struct mapping *mapping);

/* The refs to give up; malloc()ed, the caller's; NULL if there are none. Put back what
 * could not be told. */
struct wire_ref *mapping_take_aborts(struct mapping *mapping, size_t *out_count);

/* Begins a new epoch: *out (malloc()ed) is what we hold unsealed; all else is void once
 * the worker knows. Until it does, the caller sets `resume_needed` again on failure.
 * False when out of memory. */
DS_MUST_USE bool mapping_begin_epoch(struct mapping *mapping, struct wire_ref **out,
                                     size_t *out_count, uint64_t *out_epoch);

#endif
