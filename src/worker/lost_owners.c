#include "worker/lost_owners.h"

#include "base/check.h"
#include "base/slice.h"
#include "meta/ring.h"

#include <stdlib.h>
#include <string.h>

/* So much is told at most; of what was before, only that nobody knows it. */
enum { TOLD_BYTES_MAX = 1 << 20 };

/* Owner: the list. */
struct lost_epoch {
    struct list link;
    struct ring *ring; /* Owned; of the members before. NULL: not needed yet. */
    uint32_t count;
    struct past_member members[];
};

static struct lost_epoch *
epoch_of(const struct list *link)
{
    return CONTAINER_OF(link, struct lost_epoch, link);
}

static struct lost_epoch *
epoch_new(uint32_t count)
{
    struct lost_epoch *epoch =
        calloc(1, sizeof *epoch + count * sizeof epoch->members[0]);
    if (epoch != NULL)
        epoch->count = count;
    return epoch;
}

static void
forget(struct list *epochs)
{
    LIST_FOREACH (link, epochs) {
        ring_destroy(epoch_of(link)->ring);
        free(epoch_of(link));
    }
    list_init(epochs);
}

void
lost_owners_init(struct lost_owners *lost)
{
    list_init(&lost->told);
    list_init(&lost->seen);
}

void
lost_owners_forget(struct lost_owners *lost)
{
    forget(&lost->told);
    forget(&lost->seen);
}

bool
lost_owners_add(struct lost_owners *lost, const struct past_member *members,
                uint32_t count)
{
    struct lost_epoch *epoch = epoch_new(count);
    if (epoch == NULL)
        return false;
    if (count > 0)
        memcpy(epoch->members, members, count * sizeof members[0]);
    list_push_back(&lost->seen, &epoch->link);
    return true;
}

/* ---- Told to others ---- */

/* The latest first. False: it is too much, and nothing before is told. */
static bool
encode(const struct list *epochs, struct writer *out, size_t end)
{
    for (const struct list *link = epochs->prev; link != epochs; link = link->prev) {
        const struct lost_epoch *epoch = epoch_of(link);
        bool is_too_much = out->len > end;
        uint32_t count = is_too_much ? 0 : epoch->count;
        encode_past_epoch_begin(out, count);
        for (uint32_t i = 0; i < count; i++)
            encode_past_member(out, &epoch->members[i]);
        if (is_too_much)
            return false;
    }
    return true;
}

void
lost_owners_encode(const struct lost_owners *lost, struct writer *out)
{
    size_t end = out->len + TOLD_BYTES_MAX;
    if (encode(&lost->seen, out, end))
        (void)encode(&lost->told, out, end);
}

bool
lost_owners_hear(struct lost_owners *lost, struct ds_slice told)
{
    struct reader list = reader_of(told.data, told.len);
    struct past_epoch past;
    forget(&lost->told);
    while (next_past_epoch(&list, &past)) {
        struct lost_epoch *epoch = epoch_new(past.count);
        if (epoch == NULL)
            return false;
        for (uint32_t i = 0; next_past_member(&past, &epoch->members[i]);)
            i++;
        list_push_front(&lost->told, &epoch->link);
    }
    return true;
}

/* ---- Asked ---- */

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
static const struct lost_epoch *
find_last(const struct lost_owners *lost, uint32_t node, uint32_t incarnation)
{
    const struct list *lists[] = {&lost->told, &lost->seen};
    const struct lost_epoch *last = NULL;
    for (int i = 0; i < 2; i++) {
        LIST_FOREACH (link, lists[i]) {
            if (has_left(epoch_of(link), node, incarnation))
                last = epoch_of(link);
        }
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
    if (epoch->count == 0 || (epoch->ring == NULL && !make_ring(epoch)))
        return true;
    const struct past_member *owner =
        find(epoch, ring_owner(epoch->ring, ring_position(key)));
    return owner == NULL || owner->is_gone;
}

bool
lost_owners_had(struct lost_owners *lost, struct ds_slice key)
{
    return !lost_owners_none_since(lost, 0, 0, key);
}

bool
lost_owners_none_since(struct lost_owners *lost, uint32_t node, uint32_t incarnation,
                       struct ds_slice key)
{
    const struct list *lists[] = {&lost->told, &lost->seen};
    const struct lost_epoch *last = find_last(lost, node, incarnation);
    bool is_after = last == NULL;
    for (int i = 0; i < 2; i++) {
        LIST_FOREACH (link, lists[i]) {
            if (is_after && was_gone(epoch_of(link), key))
                return false;
            is_after = is_after || epoch_of(link) == last;
        }
    }
    return true;
}
