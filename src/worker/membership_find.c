/* Which member has what: a queue, or what another worker had. */
#include "worker/membership.h"

#include "base/slice.h"
#include "meta/members.h"
#include "wire/leaving.h"
#include "wire/message.h"

/* Steps through all queues of the cluster, with their members. */
struct queue_walk {
    uint32_t next; /* Member. */
    struct ds_slice queues;
};

static bool
next_queue(const struct membership *membership, struct queue_walk *walk,
           struct queue_place *out_place, const struct member **out_member)
{
    while (walk->queues.len == 0) {
        if (walk->next == membership_count(membership))
            return false;
        walk->queues = membership_at(membership, walk->next++)->queues;
    }
    *out_member = membership_at(membership, walk->next - 1);
    return next_member_queue(&walk->queues, out_place);
}

bool
membership_find_queue(const struct membership *membership, struct ds_slice name,
                      struct queue_place *out)
{
    struct queue_walk walk = {0};
    struct queue_place place;
    const struct member *member;
    bool is_found = false;
    uint32_t own = membership == NULL ? 0 : membership_own_node(membership);
    while (membership != NULL && next_queue(membership, &walk, &place, &member)) {
        bool is_wanted = member->node != own && slice_equal(place.name, name) &&
                         place.tcp_address.len > 0;
        if (!is_wanted || (is_found && place.term <= out->term))
            continue;
        *out = place;
        is_found = true;
    }
    return is_found;
}

/* Whoever has them whole goes before who is just being given them. */
const struct member *
membership_find_taker(const struct membership *membership, uint32_t node,
                      uint32_t incarnation, bool *out_is_whole)
{
    const struct member *found = NULL;
    *out_is_whole = false;
    if (membership == NULL || !membership_has_arenas(membership))
        return NULL; /* As most often. */
    uint32_t own = membership_own_node(membership);
    for (uint32_t i = 0; i < membership_count(membership); i++) {
        const struct member *member = membership_at(membership, i);
        struct ds_slice arenas = member->arenas;
        struct wire_arena arena;
        while (member->node != own && !*out_is_whole && next_arena(&arenas, &arena)) {
            if (arena.node != node || arena.incarnation != incarnation)
                continue;
            found = member;
            *out_is_whole = arena.is_whole;
        }
    }
    return found;
}

const struct member *
membership_find_tag(const struct membership *membership, uint16_t tag)
{
    struct queue_walk walk = {0};
    struct queue_place place;
    const struct member *member;
    uint32_t own = membership == NULL ? 0 : membership_own_node(membership);
    while (membership != NULL && next_queue(membership, &walk, &place, &member)) {
        if (member->node != own && (tag == 0 || wire_queue_tag(place.name) == tag))
            return member;
    }
    return NULL;
}
