/* Descriptors, and the objects behind them: sockets, listeners, memory files, pidfds,
 * marks, locks. A process has descriptors, an object lives as long as one is open. */
#include "objects.h"

#include "base/check.h"
#include "os/sockets.h"

#include <string.h>
#include <sys/mman.h>

enum {
    DESCRIPTORS_MAX = 4096,
    FD_BASE = 10000, /* Smaller ones are of the simulating process. */
};

struct descriptor {
    struct object *object;
    struct process *owner; /* NULL: of the simulation, e.g. a supervisor. */
};

static struct descriptor descriptors[DESCRIPTORS_MAX];
static uint32_t descriptor_count;
static struct list objects = {.next = &objects, .prev = &objects};

struct list *
objects_all(void)
{
    return &objects;
}

/* ---- Objects ---- */

struct object *
object_new(enum object_kind kind)
{
    struct object *object = sim_allocate(sizeof *object);
    object->kind = kind;
    list_init(&object->segments);
    list_init(&object->backlog);
    list_init(&object->backlog_link);
    list_push_back(&objects, &object->link);
    return object;
}

void
object_note_loss(const struct object *object)
{
    for (int i = 0; i < DESCRIPTORS_MAX; i++) {
        if (descriptors[i].object == object && descriptors[i].owner != NULL)
            descriptors[i].owner->losses++;
    }
}

void
object_unref(struct object *object)
{
    DS_ASSERT(object->refs > 0);
    if (--object->refs > 0)
        return;
    list_remove(&object->link);
    list_remove(&object->backlog_link);
    if (object->kind == OBJECT_SOCKET)
        object_socket_end(object);
    LIST_FOREACH (link, &object->backlog)
        object_unref(CONTAINER_OF(link, struct object, backlog_link));
    if (object->kind == OBJECT_MEMORY)
        list_push_back(&objects, &object->link); /* May be mapped: until the end. */
    else
        sim_free(object);
}

void
descriptors_reset(void)
{
    for (int i = 0; i < DESCRIPTORS_MAX; i++)
        descriptors[i] = (struct descriptor){0};
    LIST_FOREACH (link, &objects) {
        struct object *object = CONTAINER_OF(link, struct object, link);
        object_segments_free(object);
        if (object->kind == OBJECT_MEMORY)
            munmap(object->data, object->data_bytes);
        list_remove(link);
        sim_free(object);
    }
    descriptor_count = 0;
    sockets_refuse_until(0);
}

/* ---- Descriptors ---- */

static struct descriptor *
descriptor_of(int fd)
{
    DS_ASSERT(fd >= FD_BASE);
    DS_ASSERT(fd < FD_BASE + DESCRIPTORS_MAX);
    struct descriptor *descriptor = &descriptors[fd - FD_BASE];
    DS_ASSERT(descriptor->object != NULL);
    return descriptor;
}

struct object *
object_of(int fd)
{
    return descriptor_of(fd)->object;
}

int
descriptor_open(struct object *object)
{
    for (int i = 0; i < DESCRIPTORS_MAX; i++) {
        if (descriptors[i].object != NULL)
            continue;
        object->refs++;
        descriptor_count++;
        descriptors[i] = (struct descriptor){object, process_current()};
        return FD_BASE + i;
    }
    sim_fail("more than %d descriptors are open", DESCRIPTORS_MAX);
}

static void
descriptor_close(int fd)
{
    struct descriptor *descriptor = descriptor_of(fd);
    struct object *object = descriptor->object;
    *descriptor = (struct descriptor){0};
    descriptor_count--;
    object_unref(object);
}

void
descriptors_give(int fd, struct process *owner)
{
    descriptor_of(fd)->owner = owner;
}

void
descriptors_close_of(struct process *process)
{
    LIST_FOREACH (link, &objects) {
        struct object *object = CONTAINER_OF(link, struct object, link);
        if (object->watcher == process)
            object->watcher = NULL;
    }
    for (int i = 0; i < DESCRIPTORS_MAX; i++)
        if (descriptors[i].object != NULL && descriptors[i].owner == process)
            descriptor_close(FD_BASE + i);
}

void
descriptors_process_ended(const struct process *process)
{
    LIST_FOREACH (link, &objects) {
        struct object *object = CONTAINER_OF(link, struct object, link);
        if (object->kind == OBJECT_PROCESS && object->number == process->pid)
            process_wake_at(object->watcher, sim.now_ns + sim_below(SIM_MS));
    }
}

uint32_t
descriptors_count(void)
{
    return descriptor_count;
}

int __real_close(int fd);
int __wrap_close(int fd);
int
__wrap_close(int fd)
{
    if (fd < FD_BASE)
        return __real_close(fd);
    descriptor_close(fd);
    return 0;
}

void
socket_close(int fd)
{
    if (fd >= 0)
        descriptor_close(fd);
}

int __wrap_fcntl(int fd, int command, ...);
int
__wrap_fcntl(int fd, int command, ...)
{
    (void)command; /* Only F_DUPFD_CLOEXEC is used above src/os. */
    return descriptor_open(object_of(fd));
}

/* ---- Marks and locks ---- */

bool
object_mark_exists(const struct object *file, uint64_t number)
{
    LIST_FOREACH (link, &objects) {
        const struct object *object = CONTAINER_OF(link, struct object, link);
        if (object->kind == OBJECT_MARK && object->marked == file &&
            object->number == number)
            return true;
    }
    return false;
}

bool
object_lock_exists(const char *path)
{
    LIST_FOREACH (link, &objects) {
        const struct object *object = CONTAINER_OF(link, struct object, link);
        if (object->kind == OBJECT_LOCK && strcmp(object->name, path) == 0)
            return true;
    }
    return false;
}
