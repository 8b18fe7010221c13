#include "client/lease.h"

#include "store/layout.h"

bool
leases_add(struct leases *leases, const struct lease *lease)
{
    if (leases_are_full(leases))
        return false;
    leases->items[leases->count++] = *lease;
    return true;
}

static void
take(struct leases *leases, size_t at, struct lease *out)
{
    *out = leases->items[at];
    leases->items[at] = leases->items[--leases->count];
    leases->misses = 0;
}

bool
leases_take(struct leases *leases, uint64_t size, struct lease *out)
{
    for (size_t i = leases->count; i > 0; i--) {
        if (extent_bytes(leases->items[i - 1].size) != extent_bytes(size))
            continue;
        take(leases, i - 1, out);
        return true;
    }
    if (leases_are_full(leases))
        leases->misses++;
    return false;
}

bool
leases_take_any(struct leases *leases, struct lease *out)
{
    if (leases->count == 0)
        return false;
    take(leases, leases->count - 1, out);
    return true;
}
