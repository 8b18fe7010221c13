/* What clients do, in processes of their own; and what goes wrong meanwhile. */
#ifndef TESTS_SIM_WORKLOAD_H
#define TESTS_SIM_WORKLOAD_H

#include "oracle.h"
#include "sim.h"

enum {
    STORE_KEYS = 12, /* The oracle's keys, then those of the queue's rows. */
    QUEUE_ROWS = 8,
    HELD_MAX = 6,
    TIMEOUT_MS = 3000,
};

struct workload {
    uint32_t operations_wanted;
    uint32_t faults_wanted;
    bool has_queue;
    bool has_faults;
};

struct counts {
    uint32_t operations; /* That have ended, in a living client. */
    uint32_t done;       /* Of them with success, */
    uint32_t full;       /* for want of room. */
    uint32_t faults;
    uint32_t kills;
    uint32_t clients;
};

/* Runs as the body of sim_run(): clients and faults until both are enough, then quiet,
 * then all that is left is looked at. */
struct workload_run {
    struct workload workload;
    struct counts counts;
};
void workload_main(void *workload_run);

/* faults.c: one fault, chosen at random. */
void fault_happens(struct counts *counts, bool has_queue);

/* Bytes that a client looks at again later. Owner: its process. */
struct held {
    struct ds_buffer *buffer;
    uint64_t offset; /* Of the value in it. */
    uint32_t key;
    uint32_t value;
};

/* One client. Owner: its process. */
struct client {
    struct ds_client *ds;
    struct ds_queue *queue; /* NULL: there is none. */
    bool over_tcp;
    struct held held[HELD_MAX];
    uint64_t begin_ns; /* Of the operation under way. */
};

/* Counts the operation that began at client->begin_ns; it must not have taken longer than
 * it may. */
void workload_book(struct client *client, enum ds_status status, const char *what,
                   uint64_t max_ms);
/* Fails the run if this must not happen: in quiet times nothing fails but for want of
 * room. */
void workload_expect(const struct client *client, enum ds_status status,
                     const struct ds_error *err, const char *what);
/* What is known of a write that ended so. */
enum outcome workload_outcome(enum ds_status status);
/* Keeps the buffer for a while, or lets go of it. */
void workload_hold(struct client *client, struct ds_buffer *buffer, uint64_t offset,
                   uint32_t key, uint32_t value);

/* queue_load.c: what clients do with rows. */
void queue_load_put(struct client *client);
void queue_load_get(struct client *client);
void queue_load_clear(struct client *client);
void queue_load_get_all(struct client *client);
void queue_load_clear_all(struct client *client);

/* The processes of clients. */
enum { CLIENTS_AT_ONCE = 5 };
struct process *workload_random_client(void);

#endif
