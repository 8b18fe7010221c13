#include "store/no_room.h"

#include "base/check.h"
#include "base/status.h"

#include <inttypes.h>
#include <stdio.h>

#define NO_SPACE "Shared memory no space in arena: "
#define REMEDY \
    "delete objects, or start the worker with a larger --shared_memory_size_mb"

enum { HOLDERS_NAMED = 3 };

struct size_text {
    char text[24];
};

/* "512 bytes", "64.0 KiB", "1.5 GiB". */
static struct size_text
size_text(uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    struct size_text out;
    if (bytes < 1024) {
        snprintf(out.text, sizeof out.text, "%" PRIu64 " bytes", bytes);
        return out;
    }
    size_t unit = 0;
    uint64_t scale = 1024;
    while (unit < 3 && bytes / scale >= 1024) {
        scale *= 1024;
        unit++;
    }
    snprintf(out.text, sizeof out.text, "%.1f %s", (double)bytes / (double)scale,
             units[unit]);
    return out;
}

/* "; 1.0 GiB of the arena are still being prepared", or nothing. */
static void
preparing_text(const struct arena_stats *arena, char *out, size_t out_bytes)
{
    uint64_t missing = arena->total_bytes - arena->populated_bytes;
    out[0] = 0;
    if (missing > 0)
        snprintf(out, out_bytes, "; %s of the arena are still being prepared",
                 size_text(missing).text);
}

/* " (PID 4711: 2.0 GiB, PID 4712: 1.0 MiB)", or nothing: who holds what is deleted, or
 * reserved and not sealed. */
static void
holders_text(struct store *store, char *out, size_t out_bytes)
{
    struct store_holder holders[HOLDERS_NAMED];
    size_t count = store_holders(store, true, holders, HOLDERS_NAMED);
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < count; i++) {
        const struct store_holder *holder = &holders[i];
        uint64_t bytes = holder->dead_bytes + holder->unsealed_bytes;
        char who[24] = "one that is not visible";
        if (holder->identity.pid != 0)
            snprintf(who, sizeof who, "PID %" PRIu32, holder->identity.pid);
        int more = snprintf(out + used, out_bytes - used, "%s%s: %s",
                            i == 0 ? " (most by " : ", ", who, size_text(bytes).text);
        used += (size_t)more;
    }
    if (count > 0)
        snprintf(out + used, out_bytes - used, ")");
}

static uint64_t
percent(uint64_t part, uint64_t whole)
{
    return (uint64_t)((double)part * 100.0 / (double)whole + 0.5);
}

static enum ds_status
no_extent(struct store *store, const struct store_stats *stats, uint64_t size,
          struct ds_error *err)
{
    const struct arena_stats *arena = &stats->arena;
    if (size > arena->total_bytes)
        return ds_fail(err, DS_FULL,
                       NO_SPACE
                       "the object of %s is larger than the whole arena of %s; "
                       "store smaller objects, or start the worker with a "
                       "larger --shared_memory_size_mb",
                       size_text(size).text, size_text(arena->total_bytes).text);
    char preparing[80];
    char holders[64 * HOLDERS_NAMED];
    preparing_text(arena, preparing, sizeof preparing);
    holders_text(store, holders, sizeof holders);
    return ds_fail(err, DS_FULL,
                   NO_SPACE "need %s, free %s of %s, largest hole %s; %s (%" PRIu64
                            " %%) are held by %" PRIu64
                            " deleted objects that clients still use, and %" PRIu64
                            " are unsealed%s%s; %" PRIu64 " objects; " REMEDY,
                   size_text(size).text, size_text(arena->free_bytes).text,
                   size_text(arena->total_bytes).text,
                   size_text(arena->largest_free).text,
                   size_text(stats->dead_bytes).text,
                   percent(stats->dead_bytes, arena->total_bytes), stats->dead,
                   stats->writing, holders, preparing, stats->objects);
}

enum ds_status
no_room(struct store *store, enum room_lack lack, uint64_t size, struct ds_error *err)
{
    DS_ASSERT(lack != ROOM_FOUND);
    struct store_stats stats;
    store_stats(store, &stats);
    if (lack == ROOM_NO_EXTENT)
        return no_extent(store, &stats, size, err);
    const char *what = lack == ROOM_NO_SLOT ? "all of its slots are in use"
                                            : "no room is left for keys over 20 bytes";
    return ds_fail(err, DS_FULL,
                   "Object table is full: %s (%" PRIu64 " slots, %" PRIu64
                   " objects, %" PRIu64 " unsealed, %" PRIu64
                   " deleted but still used); " REMEDY
                   ", which also enlarges the table",
                   what, stats.slots_total, stats.objects, stats.writing, stats.dead);
}
