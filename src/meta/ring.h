/* Which member owns a key: a consistent-hash ring (Karger et al., 1997). Pure.
 *
 * Each member has RING_POINTS_PER_MEMBER points, placed by the hash of its node id, and
 * owns what lies between each of them and the point before. So a member that comes or goes
 * moves only its own share, and everybody who knows the members knows the ring.
 *
 * Owner: the caller of ring_create(); it does not change. */
#ifndef META_RING_H
#define META_RING_H

#include <datasystem/datasystem.h>

#include <stddef.h>
#include <stdint.h>

enum { RING_POINTS_PER_MEMBER = 128 }; /* Shares differ by some 10 %. */

struct ring;

/* `nodes` are different from each other. DS_NO_MEMORY */
DS_MUST_USE enum ds_status ring_create(const uint32_t *nodes, size_t count,
                                       struct ring **out, struct ds_error *err);
void ring_destroy(struct ring *ring); /* Accepts NULL. */

/* Where a key lies. */
uint32_t ring_position(struct ds_slice key);

/* The node that owns this position; 0: there is none. */
uint32_t ring_owner(const struct ring *ring, uint32_t position);

/* What `node` owns: (after, upto], which goes around the end where after >= upto. */
struct ring_range {
    uint32_t after;
    uint32_t upto;
};

/* Writes up to `max` ranges in the order of their ends; neighbours are one. Returns how
 * many there are: at most RING_POINTS_PER_MEMBER. */
size_t
ring_ranges(const struct ring *ring, uint32_t node, struct ring_range *out, size_t max);

#endif
