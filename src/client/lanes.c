#include "client/lanes.h"

#include "client/library.h"
#include "os/random.h"

#include <stdlib.h>
#include <unistd.h>

void
lanes_init(struct lanes *lanes)
{
    *lanes = (struct lanes){.pid = getpid()};
}

void
lanes_fini(struct lanes *lanes)
{
    while (lanes->free != NULL) {
        struct lane *lane = lanes->free;
        lanes->free = lane->next;
        free(lane);
    }
}

struct lane *
lanes_take(struct lanes *lanes)
{
    library_lock();
    if (lanes->pid != getpid()) {
        lanes_fini(lanes);
        lanes->pid = getpid();
    }
    struct lane *lane = lanes->free;
    if (lane != NULL)
        lanes->free = lane->next;
    library_unlock();
    if (lane != NULL)
        return lane;
    lane = calloc(1, sizeof *lane);
    if (lane == NULL)
        return NULL;
    lane->client = random_u64() | 1; /* 0 would be nobody. */
    return lane;
}

void
lanes_leave(struct lanes *lanes, struct lane *lane)
{
    library_lock();
    lane->next = lanes->free;
    lanes->free = lane;
    library_unlock();
}
