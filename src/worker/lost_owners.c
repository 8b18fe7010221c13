#include "worker/lost_owners.h"

#include "base/check.h"
#include "base/slice.h"
#include "meta/ring.h"

#include <stdlib.h>
#include <string.h>

/* Owner: the list. */
struct lost_epoch {
    struct list link;
    struct ring *ring; /* Owned; of the members before. NULL: not needed yet. */
    uint32_t count;
    struct past_member members[];
};

void
lost_owners_init(struct lost_owners *lost)
{
    list_init(&lost->epochs);
}

void
lost_owners_forget(struct lost_owners *lost)
{
    LIST_FOREACH (link, &lost->epochs) {
        struct lost_epoch *epoch = CONTAINER_OF(link, struct lost_epoch, link);
        list_remove(link);
        ring_destroy(epoch->ring);
        free(epoch);
    }
}

bool
lost_owners_add(struct lost_owners *lost, const struct past_member *members,
                uint32_t count)
{
    struct lost_epoch *epoch =
        calloc(1, sizeof *epoch + count * sizeof epoch->members[0]);
    if (epoch == NULL)
        return false;
    epoch->count = count;
    if (count > 0)
        memcpy(epoch->members, members, count * sizeof members[0]);
    list_push_back(&lost->epochs, &epoch->link);
    return true;
}

/* NULL: it is none of them. */
static const struct past_member *
find(const struct lost_epoch *epoch, uint32_t node)
{
    uint32_t low = 0, high = epoch->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (epoch->members[middle].node < node)
            low = middle + 1;
        else
            high = middle;
    }
    bool is_found = low < epoch->count && epoch->members[low].node == node;
    return is_found ? &epoch->members[low] : NULL;
}

static bool
has_left(const struct lost_epoch *epoch, uint32_t node, uint32_t incarnation)
{
    const struct past_member *member = find(epoch, node);
    return member != NULL && member->incarnation == incarnation && member->has_left;
}

/* The last epoch in which it had left; NULL: it never had. */
static struct lost_epoch *
find_last(const struct lost_owners *lost, uint32_t node, uint32_t incarnation)
{
    struct lost_epoch *last = NULL;
    LIST_FOREACH (link, &lost->epochs) {
        struct lost_epoch *epoch = CONTAINER_OF(link, struct lost_epoch, link);
        if (has_left(epoch, node, incarnation))
            last = epoch;
    }
    return last;
}

bool
lost_owners_has(const struct lost_owners *lost, uint32_t node, uint32_t incarnation)
{
    return find_last(lost, node, incarnation) != NULL;
}

static bool
make_ring(struct lost_epoch *epoch)
{
    uint32_t *nodes = calloc((size_t)epoch->count + 1, sizeof *nodes);
    for (uint32_t i = 0; nodes != NULL && i < epoch->count; i++)
        nodes[i] = epoch->members[i].node;
    bool is_made =
        nodes != NULL && ring_create(nodes, epoch->count, &epoch->ring, NULL) == DS_OK;
    free(nodes);
    return is_made;
}

static bool
was_gone(struct lost_epoch *epoch, struct ds_slice key)
{
    if (epoch->ring == NULL && !make_ring(epoch))
        return true;
    const struct past_member *owner =
        find(epoch, ring_owner(epoch->ring, ring_position(key)));
    return owner == NULL || owner->is_gone;
}

bool
lost_owners_had(struct lost_owners *lost, struct ds_slice key)
{
    LIST_FOREACH (link, &lost->epochs) {
        if (was_gone(CONTAINER_OF(link, struct lost_epoch, link), key))
            return true;
    }
    return false;
}

bool
lost_owners_none_since(struct lost_owners *lost, uint32_t node, uint32_t incarnation,
                       struct ds_slice key)
{
    const struct lost_epoch *last = find_last(lost, node, incarnation);
    const struct list *before = last != NULL ? &last->link : &lost->epochs;
    for (struct list *link = before->next; link != &lost->epochs; link = link->next) {
        if (was_gone(CONTAINER_OF(link, struct lost_epoch, link), key))
            return false;
    }
    return true;
}
