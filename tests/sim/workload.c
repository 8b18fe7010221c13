#include "workload.h"

#include "node.h"
#include "oracle.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>
#include <string.h>

enum {
    BATCH_MAX = 5,
    SLACK_MS = 1500, /* Beyond a deadline: what the network and the processor take. */
};

static struct workload_run *run;
static bool is_ending;
static struct process *clients[CLIENTS_AT_ONCE];

/* ---- Keys ---- */

/* Some are longer than what a slot holds. */
static struct ds_slice
key_name(uint32_t key, char out[64])
{
    const char *tail = key % 3 == 0 ? "-and.a.tail.that.does.not.fit.into.a.slot" : "";
    int len = snprintf(out, 64, "key.%u%s", key, tail);
    return slice(out, (size_t)len);
}

static uint32_t
random_key(void)
{
    return (uint32_t)sim_below(STORE_KEYS);
}

/* ---- Outcomes ---- */

static uint64_t
stalled_ms(void)
{
    return sim.calm ? 0 : 2000; /* A client that was stopped is late. */
}

void
workload_book(struct client *client, enum ds_status status, const char *what,
              uint64_t max_ms)
{
    uint64_t ms = (sim.now_ns - client->begin_ns) / SIM_MS;
    run->counts.operations++;
    run->counts.done += status == DS_OK;
    run->counts.full += status == DS_FULL;
    sim_trace("%s: %s in %ju ms", what, ds_status_name(status), (uintmax_t)ms);
    if (ms > max_ms + SLACK_MS + stalled_ms())
        sim_fail("%s took %ju ms, with a limit of %ju", what, (uintmax_t)ms,
                 (uintmax_t)max_ms);
}

enum outcome
workload_outcome(enum ds_status status)
{
    switch (status) {
    case DS_OK:
        return OUTCOME_DONE;
    case DS_FULL:
    case DS_INVALID:
        return OUTCOME_NOTHING;
    default:
        return OUTCOME_UNKNOWN;
    }
}

void
workload_expect(const struct client *client, enum ds_status status,
                const struct ds_error *err, const char *what)
{
    bool known = status == DS_OK || status == DS_FULL || status == DS_NOT_FOUND ||
                 status == DS_IO || status == DS_TIMEOUT || status == DS_NOT_READY;
    if (!known)
        sim_fail("%s: %s %s", what, ds_status_name(status), err->message);
    bool was_calm = sim.calm && client->begin_ns > sim.calm_since_ns;
    if (was_calm && status != DS_OK && status != DS_NOT_FOUND && status != DS_FULL)
        sim_fail("%s in quiet times: %s %s", what, ds_status_name(status),
                 err->message);
}

/* ---- Operations ---- */

static void
do_put(struct client *client)
{
    char name[64];
    struct ds_error err = {0};
    uint32_t key = random_key();
    uint32_t value = oracle_new_value();
    uint64_t bytes = value_bytes(value);
    struct ds_set_options options = {.only_if_absent = sim_chance(1, 5)};
    uint8_t *data = malloc(bytes);
    value_write(data, key, value);
    sim_trace("put key=%u value=%u bytes=%ju%s", key, value, (uintmax_t)bytes,
              options.only_if_absent ? " if absent" : "");
    uint32_t number = oracle_begin(
        key, options.only_if_absent ? OPERATION_PUT_ABSENT : OPERATION_PUT, value);
    enum ds_status status =
        ds_put(client->ds, key_name(key, name), slice(data, bytes), &options, &err);
    oracle_end(number, workload_outcome(status), 0);
    free(data);
    workload_book(client, status, "put", TIMEOUT_MS);
    workload_expect(client, status, &err, "put");
}

/* Several at once, filled in place. */
static void
do_create(struct client *client)
{
    char names[BATCH_MAX][64];
    struct ds_slice keys[BATCH_MAX];
    uint64_t sizes[BATCH_MAX];
    uint32_t at[BATCH_MAX];
    uint32_t values[BATCH_MAX] = {0};
    uint32_t numbers[BATCH_MAX];
    struct ds_buffer *buffers[BATCH_MAX];
    struct ds_error err = {0};
    size_t count = sim_between(1, BATCH_MAX);
    uint32_t first = random_key();
    for (size_t i = 0; i < count; i++) {
        at[i] = (first + (uint32_t)i) % STORE_KEYS;
        keys[i] = key_name(at[i], names[i]);
        values[i] = oracle_new_value();
        sizes[i] = value_bytes(values[i]);
    }
    sim_trace("create keys=%u+%zu values=%u..", first, count, values[0]);
    enum ds_status status =
        ds_create(client->ds, keys, sizes, count, NULL, buffers, &err);
    workload_book(client, status, "create", TIMEOUT_MS);
    workload_expect(client, status, &err, "create");
    if (status != DS_OK)
        return;
    for (size_t i = 0; i < count; i++)
        value_write(ds_buffer_data(buffers[i]), at[i], values[i]);
    if (sim_chance(1, 8)) { /* Changed its mind. */
        for (size_t i = 0; i < count; i++)
            ds_buffer_release(buffers[i]);
        return;
    }
    client->begin_ns = sim.now_ns;
    for (size_t i = 0; i < count; i++)
        numbers[i] = oracle_begin(at[i], OPERATION_PUT, values[i]);
    status = ds_seal(client->ds, buffers, count, &err);
    for (size_t i = 0; i < count; i++)
        oracle_end(numbers[i], workload_outcome(status), 0);
    workload_book(client, status, "seal", TIMEOUT_MS);
    if (status != DS_IO) /* It may have been created before the memory was lost. */
        workload_expect(client, status, &err, "seal");
    for (size_t i = 0; i < count; i++) {
        value_check(ds_buffer_data(buffers[i]), sizes[i], at[i], values[i],
                    "own buffer");
        ds_buffer_release(buffers[i]);
    }
}

void
workload_hold(struct client *client, struct ds_buffer *buffer, uint64_t offset,
              uint32_t key, uint32_t value)
{
    struct held *held = &client->held[sim_below(HELD_MAX)];
    if (held->buffer != NULL || sim_chance(1, 2)) {
        ds_buffer_release(buffer);
        return;
    }
    *held = (struct held){buffer, offset, key, value};
}

static void
do_get(struct client *client)
{
    char names[BATCH_MAX][64];
    struct ds_slice keys[BATCH_MAX];
    uint32_t at[BATCH_MAX];
    uint32_t numbers[BATCH_MAX];
    struct ds_buffer *buffers[BATCH_MAX] = {NULL};
    struct ds_error err = {0};
    size_t count = sim_chance(2, 3) ? 1 : sim_between(2, BATCH_MAX);
    uint32_t wait_ms = sim_chance(1, 6) ? (uint32_t)sim_below(400) : 0;
    uint32_t first = random_key();
    for (size_t i = 0; i < count; i++) {
        at[i] = (first + (uint32_t)i) % STORE_KEYS;
        keys[i] = key_name(at[i], names[i]);
        numbers[i] = oracle_begin(at[i], OPERATION_READ, 0);
    }
    enum ds_status status = ds_get(client->ds, keys, count, wait_ms, buffers, &err);
    bool is_known = status == DS_OK || status == DS_NOT_FOUND;
    uint32_t values[BATCH_MAX] = {0};
    uint64_t end_ns = sim.now_ns;
    for (size_t i = 0; i < count; i++) {
        if (buffers[i] != NULL)
            values[i] = value_read(ds_buffer_data(buffers[i]),
                                   ds_buffer_size(buffers[i]), at[i], "get");
        oracle_end(numbers[i], is_known ? OUTCOME_DONE : OUTCOME_UNKNOWN, values[i]);
    }
    sim_trace("get keys=%u+%zu wait=%u values=%u..", first, count, wait_ms, values[0]);
    client->begin_ns += sim.now_ns - end_ns; /* Reading is not the library's time. */
    workload_book(client, status, "get", TIMEOUT_MS + wait_ms);
    workload_expect(client, status, &err, "get");
    for (size_t i = 0; i < count; i++)
        if (buffers[i] != NULL)
            workload_hold(client, buffers[i], 0, at[i], values[i]);
}

static void
do_delete(struct client *client)
{
    char names[BATCH_MAX][64];
    struct ds_slice keys[BATCH_MAX];
    uint32_t numbers[BATCH_MAX];
    struct ds_error err = {0};
    size_t count = sim_chance(2, 3) ? 1 : sim_between(2, BATCH_MAX);
    uint32_t first = random_key();
    for (size_t i = 0; i < count; i++) {
        uint32_t key = (first + (uint32_t)i) % STORE_KEYS;
        keys[i] = key_name(key, names[i]);
        numbers[i] = oracle_begin(key, OPERATION_CLEAR, 0);
    }
    sim_trace("delete keys=%u+%zu", first, count);
    enum ds_status status = ds_delete(client->ds, keys, count, &err);
    for (size_t i = 0; i < count; i++)
        oracle_end(numbers[i], workload_outcome(status), 0);
    workload_book(client, status, "delete", TIMEOUT_MS);
    workload_expect(client, status, &err, "delete");
}

static void
do_exist(struct client *client)
{
    char names[STORE_KEYS][64];
    struct ds_slice keys[STORE_KEYS];
    uint32_t numbers[STORE_KEYS];
    bool found[STORE_KEYS] = {false};
    struct ds_error err = {0};
    for (uint32_t i = 0; i < STORE_KEYS; i++) {
        keys[i] = key_name(i, names[i]);
        numbers[i] = oracle_begin(i, OPERATION_EXIST, 0);
    }
    enum ds_status status = ds_exist(client->ds, keys, STORE_KEYS, found, &err);
    for (uint32_t i = 0; i < STORE_KEYS; i++)
        oracle_end(numbers[i], status == DS_OK ? OUTCOME_DONE : OUTCOME_UNKNOWN,
                   found[i]);
    workload_book(client, status, "exist", TIMEOUT_MS);
    workload_expect(client, status, &err, "exist");
}

/* What is held has not changed; then it is let go. */
static void
release(struct client *client, bool everything)
{
    for (int i = 0; i < HELD_MAX; i++) {
        struct held *held = &client->held[i];
        if (held->buffer == NULL)
            continue;
        const uint8_t *data = ds_buffer_data(held->buffer);
        value_check(data + held->offset, value_bytes(held->value), held->key,
                    held->value, "held buffer");
        if (!everything && sim_chance(1, 3))
            continue;
        ds_buffer_release(held->buffer);
        held->buffer = NULL;
    }
}

static void
do_one_with_rows(struct client *client)
{
    uint64_t chance = sim_below(100);
    if (chance < 40)
        queue_load_put(client);
    else if (chance < 80)
        queue_load_get(client);
    else
        queue_load_clear(client);
}

static void
do_one(struct client *client)
{
    if (client->queue != NULL && sim_chance(1, 2)) {
        do_one_with_rows(client);
        return;
    }
    uint64_t chance = sim_below(100);
    client->begin_ns = sim.now_ns;
    if (chance < 30)
        do_put(client);
    else if (chance < 45)
        do_create(client);
    else if (chance < 72)
        do_get(client);
    else if (chance < 86)
        do_delete(client);
    else if (chance < 90)
        do_exist(client);
    else
        release(client, false);
}

/* ---- A client ---- */

/* Where it cannot be had the client goes without, as one that asks later would. */
static bool
open_queue(struct client *client)
{
    struct ds_error err = {0};
    struct ds_queue_options options = {.struct_bytes = sizeof options,
                                       .address = "unix:" NODE_CONTROLLER_SOCKET,
                                       .connect_timeout_ms = TIMEOUT_MS};
    enum ds_status status = ds_queue_open(&options, &client->queue, &err);
    sim_trace("open queue: %s %s", ds_status_name(status), err.message);
    if (status != DS_OK)
        workload_expect(client, status, &err, "open queue");
    return true;
}

static bool
open_client(struct client *client)
{
    struct ds_error err = {0};
    struct ds_client_options options = {
        .struct_bytes = sizeof options,
        .host = NODE_HOST,
        .port = NODE_PORT,
        .connect_timeout_ms = TIMEOUT_MS,
        .request_timeout_ms = TIMEOUT_MS,
        .no_shared_memory = client->over_tcp,
    };
    client->begin_ns = sim.now_ns;
    enum ds_status status = ds_client_open(&options, &client->ds, &err);
    sim_trace("open: %s %s", ds_status_name(status), err.message);
    if (status != DS_OK && status != DS_FULL)
        workload_expect(client, status, &err, "open");
    return status == DS_OK && (!run->workload.has_queue || open_queue(client));
}

static void
client_main(void *arg)
{
    struct client *client = calloc(1, sizeof *client);
    (void)arg;
    client->over_tcp = sim_chance(1, 5);
    while (!is_ending && !open_client(client))
        sim_sleep(sim_below(100 * SIM_MS));
    uint64_t left = sim_between(20, 300);
    while (!is_ending && left-- > 0) {
        do_one(client);
        if (sim_chance(1, 4))
            sim_sleep(sim_below(3 * SIM_MS));
    }
    bool closes_first = sim_chance(1, 2); /* Buffers may outlive their client. */
    if (closes_first)
        ds_client_close(client->ds);
    release(client, true);
    if (!closes_first)
        ds_client_close(client->ds);
    ds_queue_close(client->queue);
    free(client);
    sim_trace("client ends");
}

static void
on_client_end(void *arg)
{
    *(struct process **)arg = NULL;
}

static void
start_missing_clients(void)
{
    for (int i = 0; i < CLIENTS_AT_ONCE; i++) {
        char name[24];
        if (clients[i] != NULL)
            continue;
        snprintf(name, sizeof name, "client.%u", ++run->counts.clients);
        clients[i] = process_start(name, client_main, NULL);
        clients[i]->is_visible = sim_chance(4, 5);
        clients[i]->on_end = on_client_end;
        clients[i]->end_arg = &clients[i];
    }
}

struct process *
workload_random_client(void)
{
    return clients[sim_below(CLIENTS_AT_ONCE)];
}

/* ---- The last look ---- */

static bool last_look_is_over;

/* A client of quiet times: everything must go well. */
static void
last_look(void *arg)
{
    struct client *client = calloc(1, sizeof *client);
    (void)arg;
    if (!open_client(client))
        sim_fail("a client cannot get in in quiet times");
    for (uint32_t key = 0; key < STORE_KEYS; key++) {
        char name[64];
        struct ds_buffer *buffer = NULL;
        struct ds_error err = {0};
        struct ds_slice slice = key_name(key, name);
        client->begin_ns = sim.now_ns;
        uint32_t number = oracle_begin(key, OPERATION_READ, 0);
        enum ds_status status = ds_get(client->ds, &slice, 1, 0, &buffer, &err);
        workload_expect(client, status, &err, "last get");
        uint32_t value = 0;
        if (buffer != NULL)
            value = value_read(ds_buffer_data(buffer), ds_buffer_size(buffer), key,
                               "last get");
        oracle_end(number, OUTCOME_DONE, value);
        ds_buffer_release(buffer);
    }
    client->begin_ns = sim.now_ns;
    do_exist(client);
    if (client->queue != NULL) {
        queue_load_get_all(client);
        queue_load_clear_all(client);
        release(client, true);
        ds_queue_close(client->queue);
    }
    ds_client_close(client->ds);
    free(client);
    last_look_is_over = true;
}

static void
wait_for_clients(void)
{
    uint64_t until = sim.now_ns + 60 * SIM_S;
    for (int i = 0; i < CLIENTS_AT_ONCE; i++) {
        while (clients[i] != NULL) {
            if (sim.now_ns > until)
                sim_fail("%s hangs", clients[i]->name);
            sim_sleep(10 * SIM_MS);
        }
    }
}

static void
make_quiet(void)
{
    sim_trace("quiet from here on");
    sim.calm = true;
    sim.calm_since_ns = sim.now_ns + 2 * SIM_S; /* What is late has arrived by then. */
    sim.lag_until_ns = 0;
    sockets_refuse_until(0);
    for (int i = 0; i < CLIENTS_AT_ONCE; i++) {
        if (clients[i] != NULL) {
            clients[i]->stalled_until_ns = 0;
            clients[i]->steps_left = 0;
        }
    }
    if (node.worker != NULL) {
        node.worker->stalled_until_ns = 0;
        node.worker->steps_left = 0;
    }
    if (node.controller != NULL)
        node.controller->stalled_until_ns = 0;
    sim_sleep(2 * SIM_S); /* What is late arrives, who is dead is started again. */
}

void
workload_main(void *arg)
{
    run = arg;
    is_ending = false;
    memset(clients, 0, sizeof clients);
    oracle_reset();
    node_start(run->workload.has_queue);
    uint32_t next_fault = (uint32_t)sim_between(5, 40);
    uint64_t until = sim.now_ns + 2000 * SIM_S;
    while (run->counts.operations < run->workload.operations_wanted ||
           run->counts.faults < run->workload.faults_wanted) {
        start_missing_clients();
        sim_sleep(sim_between(1, 2000) * 1000);
        if (sim.now_ns > until)
            sim_fail("no progress: %u operations", run->counts.operations);
        if (run->workload.has_faults && run->counts.operations >= next_fault) {
            fault_happens(&run->counts, run->workload.has_queue);
            next_fault = run->counts.operations + (uint32_t)sim_between(3, 60);
        }
    }
    make_quiet();
    is_ending = true;
    wait_for_clients();
    last_look_is_over = false;
    process_start("last", last_look, NULL);
    uint64_t deadline = sim.now_ns + 20 * SIM_S;
    while (!last_look_is_over) {
        if (sim.now_ns > deadline)
            sim_fail("the last look hangs");
        sim_sleep(10 * SIM_MS);
    }
    oracle_check();
    sim_sleep((NODE_DEAD_TIMEOUT_S + 12) * SIM_S);
    node_check_settled(run->workload.has_queue);
}
