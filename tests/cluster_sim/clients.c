/* What clients do. Each has one request under way, over a connection to its own node. */
#include "sim.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "net/conn.h"
#include "os/checksum.h"
#include "store/table_reader.h"
#include "wire/message.h"

#include <stdlib.h>
#include <string.h>

enum {
    CLIENTS_MAX = NODES_MAX * CLIENTS_EACH,
    PATIENT_MS = 25000,  /* More than anything waits for the owner of a key. */
    IMPATIENT_MS = 3000, /* Some give up. */
    CALM_MS = 1000,      /* Longer takes nothing in quiet times. */
    THINKS_MS = 1500,    /* At most, between two requests; */
    HURRIES_MS = 12,     /* while something happens. */
    AGAIN_MS = 100,      /* A lost connection is made anew within so long. */
    TRIES_MAX = 3,
    WAIT_MS_MAX = 2500, /* Some gets wait until the key is there. */
};

enum kind { PUT, FETCH, DELETE, EXIST };

/* What is under way. Invariant: `number` was begun by record_begin() while `is_open`. */
struct request {
    enum kind kind;
    uint32_t key;
    uint32_t value;
    bool only_if_absent;
    uint32_t number;
    uint32_t tries; /* Sent so often. */
    uint64_t begin_ns;
    uint64_t troubles; /* When it began. */
    uint64_t max_ms;
    uint32_t wait_ms; /* Of a get. */
    bool is_open;
};

/* A connection, which its client may have left. Owner: itself, until on_closed. */
struct line {
    struct client *client; /* NULL: it has another one. */
    struct conn *conn;
    bool is_welcome;
    uint8_t *payload; /* Owned. */
};

struct client {
    uint32_t index;
    struct node *node;
    struct line *line; /* NULL: none. */
    uint32_t sequence;
    uint64_t
        serial; /* Of the request: what is due for an earlier one is of the past. */
    struct request request;
    bool looks;        /* At all keys, in quiet times; */
    uint32_t next_key; /* this one is next. */
};

static struct client clients[CLIENTS_MAX];
static uint32_t client_count;

static void begin(struct client *client);
static void send_request(struct client *client);

/* ---- What is due ---- */

struct due {
    struct client *client;
    uint64_t serial;
};

static void
at(struct client *client, uint64_t after_ns, virtual_fn then)
{
    struct due *due = malloc(sizeof *due);
    DS_ASSERT(due != NULL);
    *due = (struct due){client, client->serial};
    virtual_at(virtual_now_ns() + after_ns, then, due);
}

/* NULL: it is of the past. */
static struct client *
take_due(void *arg)
{
    struct due *due = arg;
    struct client *client = due->serial == due->client->serial ? due->client : NULL;
    free(due);
    return run.is_over ? NULL : client;
}

static void
on_next(void *arg)
{
    struct client *client = take_due(arg);
    if (client != NULL && (!run.is_ending || client->looks))
        begin(client);
}

static void
begin_later(struct client *client)
{
    uint64_t most_ms = virtual_now_ns() < run.hurry_until_ns ? HURRIES_MS : THINKS_MS;
    client->serial++;
    if (client->looks)
        most_ms = 1;
    at(client, chance_below(most_ms * VIRTUAL_MS), on_next);
}

/* ---- The end of a request ---- */

static void
check_time(const struct client *client, const char *how)
{
    const struct request *request = &client->request;
    uint64_t ms = (virtual_now_ns() - request->begin_ns) / VIRTUAL_MS;
    bool was_calm = run.is_calm && request->begin_ns >= run.calm_since_ns;
    if (was_calm && ms > CALM_MS)
        cluster_fail("client %u: a request of kind %d for key %u %s after %ju ms in "
                     "quiet times",
                     client->index, (int)request->kind, request->key, how,
                     (uintmax_t)ms);
}

static void
end(struct client *client, enum outcome outcome, uint32_t value)
{
    struct request *request = &client->request;
    bool is_write = request->kind == PUT || request->kind == DELETE;
    losses_look(); /* Who answered may have just heard of another epoch. */
    if (outcome == OUTCOME_NOTHING && request->tries > 1 && is_write)
        outcome = OUTCOME_UNKNOWN; /* The first time it may have been done. */
    check_time(client, "ends");
    trace("client %u at node %u: kind %d key %u value %u %s", client->index,
          client->node->index, (int)request->kind, request->key,
          is_write ? request->value : value, history_outcome_name(outcome));
    record_end(request->number, outcome, value,
               request->tries > 1 ? UINT64_MAX : request->troubles);
    if (request->kind == PUT && outcome != OUTCOME_NOTHING)
        losses_note_put(client->node, request->key, request->value);
    request->is_open = false;
    run.operations++;
    run.done += outcome == OUTCOME_DONE;
    run_note(virtual_now_ns() ^ (uint64_t)request->key << 32 ^ value);
    begin_later(client);
}

/* Of a request that had no answer. */
static void
end_unknown(struct client *client)
{
    bool was_sent = client->request.tries > 0;
    end(client, was_sent ? OUTCOME_UNKNOWN : OUTCOME_NOTHING, 0);
}

static void
leave_line(struct client *client)
{
    struct line *line = client->line;
    if (line == NULL)
        return;
    client->line = NULL;
    line->client = NULL;
    conn_close(line->conn, NULL);
}

static void
on_deadline(void *arg)
{
    struct client *client = take_due(arg);
    if (client == NULL || !client->request.is_open)
        return;
    check_time(client, "has no answer");
    trace("client %u gives up", client->index);
    leave_line(client);
    end_unknown(client);
}

/* ---- Answers ---- */

static void
expect(const struct client *client, const struct frame_header *header,
       struct ds_slice body, bool is_known)
{
    bool is_calm = run.is_calm && client->request.begin_ns >= run.calm_since_ns;
    if (!is_known || (is_calm && header->status != DS_OK &&
                      header->status != DS_NOT_FOUND && header->status != DS_FULL))
        cluster_fail("client %u at node %u: %s for key %u%s: %.*s", client->index,
                     client->node->index, ds_status_name(header->status),
                     client->request.key, is_calm ? " in quiet times" : "",
                     (int)min_u64(body.len, 300), (const char *)body.data);
}

/* It says so before it does anything. */
static bool
is_leaving(const struct frame_header *header, struct ds_slice body)
{
    static const char text[] = "leaves its cluster";
    return header->status == DS_NOT_READY &&
           memmem(body.data, body.len, text, sizeof text - 1) != NULL;
}

static void
on_put_answer(struct client *client, const struct frame_header *header,
              struct ds_slice body)
{
    enum ds_status status = header->status;
    expect(client, header, body,
           status == DS_OK || status == DS_FULL || status == DS_NOT_READY);
    run.full += status == DS_FULL;
    end(client,
        status == DS_OK                                 ? OUTCOME_DONE
        : status == DS_FULL || is_leaving(header, body) ? OUTCOME_NOTHING
                                                        : OUTCOME_UNKNOWN,
        0);
}

/* The value that came; 0: there is none. */
static uint32_t
read_fetched(const struct client *client, const struct frame_header *header,
             struct ds_slice body)
{
    struct fetched list;
    struct wire_value value;
    if (!decode_fetched(body, &list) || list.count != 1 || !next_value(&list, &value))
        cluster_fail("client %u: an answer is malformed", client->index);
    if (!value.found)
        return 0;
    if (value.size != header->payload_bytes || value.total != value.size)
        cluster_fail("client %u: not all bytes of key %u came", client->index,
                     client->request.key);
    if (checksum_of(client->line->payload, value.size) != value.checksum)
        cluster_fail("client %u: key %u has a wrong checksum", client->index,
                     client->request.key);
    return value_read(client->line->payload, value.size, client->request.key, "get");
}

static void
on_fetch_answer(struct client *client, const struct frame_header *header,
                struct ds_slice body)
{
    enum ds_status status = header->status;
    bool is_known = status == DS_OK || status == DS_NOT_FOUND;
    expect(client, header, body,
           is_known || status == DS_NOT_READY || status == DS_FULL ||
               status == DS_TIMEOUT || status == DS_CORRUPT);
    uint32_t value = status == DS_OK ? read_fetched(client, header, body) : 0;
    run.full += status == DS_FULL;
    end(client, is_known ? OUTCOME_DONE : OUTCOME_NOTHING, value);
}

static void
on_flags_answer(struct client *client, const struct frame_header *header,
                struct ds_slice body)
{
    const uint8_t *flags;
    uint32_t count;
    expect(client, header, body,
           header->status == DS_OK || header->status == DS_NOT_READY);
    if (header->status != DS_OK) {
        end(client, OUTCOME_UNKNOWN, 0);
        return;
    }
    if (!decode_flags(body, &count, &flags) || count != 1)
        cluster_fail("client %u: an answer is malformed", client->index);
    end(client, OUTCOME_DONE, client->request.kind == EXIST ? flags[0] : 0);
}

static void
on_answer(struct client *client, const struct frame_header *header,
          struct ds_slice body)
{
    if (client->request.kind == PUT)
        on_put_answer(client, header, body);
    else if (client->request.kind == FETCH)
        on_fetch_answer(client, header, body);
    else
        on_flags_answer(client, header, body);
}

/* ---- Its connection ---- */

static void *
on_payload_begin(struct conn *conn, const struct frame_header *header,
                 struct ds_slice body)
{
    struct line *line = conn_user(conn);
    (void)body;
    free(line->payload);
    line->payload = malloc(header->payload_bytes);
    DS_ASSERT(line->payload != NULL);
    return line->payload;
}

static void
on_frame(struct conn *conn, const struct frame_header *header, struct ds_slice body,
         const int *fds, size_t fd_count)
{
    struct line *line = conn_user(conn);
    struct client *client = line->client;
    (void)fds;
    (void)fd_count;
    if (client == NULL)
        return;
    if (header->type == MESSAGE_HELLO && header->status != DS_OK)
        cluster_fail("client %u is refused", client->index);
    if (header->type == MESSAGE_HELLO) {
        line->is_welcome = true;
        if (client->request.is_open)
            send_request(client);
    } else if (client->request.is_open && header->sequence == client->sequence) {
        on_answer(client, header, body);
    }
}

static void
on_again(void *arg)
{
    struct client *client = take_due(arg);
    if (client != NULL && client->request.is_open && client->line == NULL)
        send_request(client);
}

/* As the library does: it asks again, but not for ever. */
static void
on_closed(struct conn *conn, const char *reason)
{
    struct line *line = conn_user(conn);
    struct client *client = line->client;
    (void)reason;
    free(line->payload);
    free(line);
    if (client == NULL)
        return;
    client->line = NULL;
    if (run.is_over || !client->request.is_open)
        return;
    if (client->request.tries < TRIES_MAX && chance_of(2, 3))
        at(client, chance_below(AGAIN_MS * VIRTUAL_MS), on_again);
    else
        end_unknown(client);
}

static const struct conn_ops line_ops = {
    .on_frame = on_frame, .on_payload_begin = on_payload_begin, .on_closed = on_closed};

static void
dial(struct client *client)
{
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION};
    AUTO_WRITER(body);
    struct line *line = calloc(1, sizeof *line);
    DS_ASSERT(line != NULL);
    line->client = client;
    line->conn = network_dial(client->node, PORT_UNIX, &line_ops, line);
    client->line = line;
    encode_hello(&body, &hello, NULL, 0);
    struct frame_header header = {.type = MESSAGE_HELLO};
    conn_send(line->conn, &header, slice(body.data, body.len), NULL, 0, NULL, 0);
}

static void
send_put(struct client *client, struct ds_slice key)
{
    const struct request *request = &client->request;
    uint64_t bytes = value_bytes(request->value);
    uint8_t *data = malloc(bytes);
    DS_ASSERT(data != NULL);
    value_write(data, request->key, request->value);
    struct put put = {.only_if_absent = request->only_if_absent,
                      .checksum = {true, checksum_of(data, bytes)},
                      .key = key};
    AUTO_WRITER(body);
    encode_put(&body, &put);
    struct frame_header header = {.type = MESSAGE_PUT, .sequence = client->sequence};
    struct conn_payload payload = {.data = data, .bytes = bytes};
    conn_send(client->line->conn, &header, slice(body.data, body.len), NULL, 0,
              &payload, 1);
    free(data);
}

static void
send_request(struct client *client)
{
    static const enum message_type types[] = {MESSAGE_PUT, MESSAGE_FETCH,
                                              MESSAGE_DELETE, MESSAGE_EXIST};
    struct request *request = &client->request;
    char name[64];
    struct ds_slice key = sim_key_name(request->key, name);
    if (client->line == NULL)
        dial(client);
    if (!client->line->is_welcome)
        return;
    client->sequence++;
    request->tries++;
    if (request->kind == PUT) {
        send_put(client, key);
        return;
    }
    AUTO_WRITER(body);
    struct lookup lookup = {.wait_ms = request->wait_ms};
    if (request->kind == FETCH)
        encode_lookup(&body, &lookup, &key, 1);
    else
        encode_keys(&body, &key, 1);
    struct frame_header header = {.type = types[request->kind],
                                  .sequence = client->sequence};
    conn_send(client->line->conn, &header, slice(body.data, body.len), NULL, 0, NULL,
              0);
}

/* ---- Without a call: as clients read that share memory ---- */

static uint64_t
boot_ds(struct node *node)
{
    return (virtual_now_ns() + node->clock_ns) / (100 * VIRTUAL_MS);
}

/* False: the table does not say. */
static bool
read_table(struct client *client)
{
    struct request *request = &client->request;
    struct node *node = client->node;
    struct table_reader reader;
    struct table_hit hit;
    char name[64];
    if (!node->has_supervisor ||
        table_reader_init(&reader, node->memory.table, node->memory.table_bytes,
                          NULL) != DS_OK ||
        !table_reader_find(&reader, sim_key_name(request->key, name), false,
                           boot_ds(node), &hit) ||
        !table_reader_is_current(&reader, boot_ds(node)) ||
        !table_reader_confirms(&reader, &hit))
        return false;
    end(client, OUTCOME_DONE,
        value_read(node->arena + hit.offset, hit.size, request->key, "table"));
    return true;
}

/* ---- Requests ---- */

static enum operation
operation_of(const struct request *request)
{
    switch (request->kind) {
    case PUT:
        return request->only_if_absent ? OPERATION_PUT_ABSENT : OPERATION_PUT;
    case FETCH:
        return OPERATION_READ;
    case DELETE:
        return OPERATION_CLEAR;
    default:
        return OPERATION_EXIST;
    }
}

static enum kind
choose_kind(void)
{
    uint64_t chance = chance_below(100);
    return chance < 38 ? PUT : chance < 80 ? FETCH : chance < 95 ? DELETE : EXIST;
}

static void
begin(struct client *client)
{
    struct request *request = &client->request;
    if (client->looks && client->next_key == KEYS)
        return;
    DS_ASSERT(!request->is_open);
    *request = (struct request){.kind = client->looks ? FETCH : choose_kind(),
                                .key = client->looks ? client->next_key++
                                                     : (uint32_t)chance_below(KEYS),
                                .begin_ns = virtual_now_ns(),
                                .troubles = run_troubles(),
                                .max_ms = chance_of(1, 4) ? IMPATIENT_MS : PATIENT_MS,
                                .is_open = true};
    if (request->kind == FETCH && !run.is_ending && chance_of(1, 5))
        request->wait_ms = (uint32_t)chance_below(WAIT_MS_MAX);
    if (request->kind == PUT) {
        request->value = value_new();
        request->only_if_absent = chance_of(1, 6);
    }
    client->serial++;
    request->number = record_begin(request->key, operation_of(request), request->value,
                                   client->index);
    if (request->kind == FETCH && chance_of(1, 2) && read_table(client))
        return;
    if (client->line != NULL && chance_of(1, 20))
        leave_line(client);
    at(client, request->max_ms * VIRTUAL_MS, on_deadline);
    send_request(client);
}

/* ---- All ---- */

void
clients_start(void)
{
    client_count = cluster.count * CLIENTS_EACH;
    memset(clients, 0, sizeof clients);
    for (uint32_t i = 0; i < client_count; i++) {
        clients[i].index = i;
        clients[i].node = &cluster.nodes[i % cluster.count];
        begin_later(&clients[i]);
    }
}

bool
clients_are_idle(void)
{
    for (uint32_t i = 0; i < client_count; i++) {
        if (clients[i].request.is_open)
            return false;
        if (clients[i].looks && clients[i].next_key < KEYS)
            return false;
    }
    return true;
}

void
clients_expect_answers(uint64_t ms)
{
    for (uint32_t i = 0; i < client_count; i++) {
        const struct request *request = &clients[i].request;
        uint64_t whole_ns = virtual_now_ns() - run.whole_since_ns;
        bool is_due = whole_ns > (ms + request->wait_ms) * VIRTUAL_MS;
        if (request->is_open && is_due && request->begin_ns < run.whole_since_ns)
            cluster_fail("client %u: no answer to a request of kind %d for key %u, of "
                         "%.6f, though all is whole since %.6f",
                         i, (int)request->kind, request->key,
                         (double)request->begin_ns / 1e9,
                         (double)run.whole_since_ns / 1e9);
    }
}

void
clients_look_at_all(void)
{
    for (uint32_t i = 0; i < client_count; i++) {
        struct client *client = &clients[i];
        client->looks = i < cluster.count && client->node->is_up;
        client->next_key = 0;
        if (client->looks)
            begin_later(client);
    }
}

void
clients_hang_up(void)
{
    for (uint32_t i = 0; i < client_count; i++)
        leave_line(&clients[i]);
}
