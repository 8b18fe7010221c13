/* What is behind a descriptor. For sockets.c and machine.c. */
#ifndef TESTS_SIM_OBJECTS_H
#define TESTS_SIM_OBJECTS_H

#include "sim.h"

enum object_kind {
    OBJECT_SOCKET,
    OBJECT_LISTENER,
    OBJECT_MEMORY,
    OBJECT_PROCESS, /* A pidfd. */
    OBJECT_MARK,    /* On a memory file. */
    OBJECT_LOCK,
    OBJECT_MAILBOX,
};

enum { OBJECT_NAME_BYTES = 256 };

struct object {
    struct list link; /* In the list of all. */
    enum object_kind kind;
    uint32_t refs;           /* Descriptors, and those under way in a message. */
    struct process *watcher; /* Who is woken. */
    uint64_t number;         /* PROCESS, SOCKET: a pid; MARK: its; MAILBOX: is ready. */
    char name[OBJECT_NAME_BYTES]; /* LISTENER, LOCK */

    /* SOCKET: what comes in. */
    struct object *peer; /* NULL: gone. */
    bool is_tcp;
    struct list segments;
    size_t bytes; /* In them. */
    uint64_t last_arrival_ns;
    uint64_t connected_ns;
    bool has_eof;
    bool is_reset; /* Rather than ended in good order. */
    bool is_visible;
    uint64_t end_ns;
    struct list backlog_link;

    struct list backlog; /* LISTENER */

    uint8_t *data; /* MEMORY */
    size_t data_bytes;
    const struct object *marked; /* MARK */
};

struct object *object_new(enum object_kind kind);
/* Whoever has it open has lost a connection. */
void object_note_loss(const struct object *object);
void object_unref(struct object *object);
struct list *objects_all(void);
/* sockets.c: nobody has it open any more. */
void object_socket_end(struct object *socket);
void object_segments_free(struct object *socket);
struct object *object_of(int fd);
/* Does anybody have it open? */
bool object_mark_exists(const struct object *file, uint64_t number);
bool object_lock_exists(const char *path);

#endif
