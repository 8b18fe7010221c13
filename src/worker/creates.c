/* CREATE and BLOCK_CREATE, and the line of those that wait for room.
 *
 * A request that finds none waits as long as it asked to, and as long as the arena is
 * still being populated. Room appears without a word to the worker when a client drops a
 * pin, so while somebody waits the store is looked at every few milliseconds.
 *
 * First come, first served, except that a small one may pass larger ones: what passes a
 * request comes, over its whole wait, to a quarter of its own size at most. So a large
 * request is delayed by a bounded amount, and a small one does not stand for nothing
 * behind a large one that waits for a hole. */
#include "worker/creates.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/objects.h"
#include "worker/populate.h"

#include <stdlib.h>

enum {
    ROOM_TICK_MS = 5,
    PASS_SHARE = 4,     /* What may pass a request, as a share of its size. */
    TRIES_PER_TICK = 8, /* Each may scan the pins. */
};

/* One in the line. Owner: loop thread. */
struct parked_create {
    struct list link;         /* In worker->parked_creates, in the order of arrival. */
    struct list session_link; /* In session->parked_creates. */
    struct session *session;
    uint64_t until_ms;     /* Of the loop's clock; past: waits for populating only. */
    uint64_t bytes;        /* That it asks for. */
    uint64_t passed_bytes; /* What came after it and was served before. */
    struct frame_header header;
    size_t body_bytes;
    uint8_t body[];
};

/* ---- One request ---- */

/* All or nothing: what a failed batch took is found by its request's number. */
static enum ds_status
create_all(struct session *session, uint32_t sequence, struct create message,
           struct writer *writer, struct ds_error *err)
{
    encode_created_begin(writer, (struct ds_block_id){{0}}, message.objects.count);
    struct object_view view[1] = {0};
    struct ds_slice key;
    uint64_t size;
    while (next_sized_key(&message.objects, &key, &size)) {
        enum ds_status status =
            objects_create(session, key, size, message.write_mode, sequence, view, err);
        if (status != DS_OK)
            return status;
        objects_write_created(writer, view);
    }
    return DS_OK;
}

/* All parts of all blocks, and whether each block has as many as it may. */
static enum ds_status
count_parts(struct size_list sizes, uint32_t *out_parts, struct ds_error *err)
{
    uint32_t parts = 0, parts_of_block = 0;
    uint64_t size;
    bool is_right = sizes.count <= CREATE_OBJECTS_MAX;
    while (next_size(&sizes, &size)) {
        is_right = is_right && (size > 0 || parts_of_block > 0);
        parts_of_block = size == 0 ? 0 : parts_of_block + 1;
        is_right = is_right && parts_of_block <= DS_BLOCK_PARTS_MAX;
        parts += size > 0;
    }
    if (!is_right || parts_of_block == 0)
        return ds_fail(err, DS_INVALID,
                       "a block has 1 to %u parts, and a request at most %u",
                       DS_BLOCK_PARTS_MAX, CREATE_OBJECTS_MAX);
    *out_parts = parts;
    return DS_OK;
}

static enum ds_status
create_part(struct session *session, uint32_t sequence, struct ds_block_id id,
            uint32_t part, uint64_t size, struct writer *writer, struct ds_error *err)
{
    struct worker *worker = session->worker;
    uint8_t key[BLOCK_KEY_BYTES];
    wire_block_key(id, part, key);
    struct create_request request = {
        .key = slice(key, sizeof key),
        .size = size,
        .client = session->creator,
        .sequence = sequence,
        .flags = BLOCK_PART_FLAGS,
    };
    struct object_view view = {0};
    enum ds_status status =
        store_create(worker->store, &request, clock_boot_ds(), &view, err);
    if (status != DS_OK)
        return status;
    worker->counters.creates++;
    objects_write_created(writer, &view);
    return DS_OK;
}

/* As create_all(): the blocks of one put are there together or not at all. */
static enum ds_status
block_create_all(struct session *session, uint32_t sequence, struct size_list sizes,
                 struct writer *writer, struct ds_error *err)
{
    uint32_t parts = 0, part = 0;
    enum ds_status status = count_parts(sizes, &parts, err);
    if (status != DS_OK)
        return status;
    struct ds_block_id id = objects_issue_block_id(session);
    encode_created_begin(writer, id, parts);
    uint64_t size;
    while (status == DS_OK && next_size(&sizes, &size)) {
        if (size > 0) {
            status = create_part(session, sequence, id, part++, size, writer, err);
        } else {
            id = objects_issue_block_id(session);
            part = 0;
        }
    }
    return status;
}

/* What of a request matters for its place in the line. False if it is malformed. */
static bool
measure(const struct frame_header *header, struct ds_slice body, uint32_t *out_wait_ms,
        uint64_t *out_bytes)
{
    uint64_t size;
    struct create create;
    struct block_create block;
    *out_bytes = 0;
    if (header->type == MESSAGE_CREATE) {
        struct ds_slice key;
        if (!decode_create(body, &create))
            return false;
        *out_wait_ms = create.wait_ms;
        while (next_sized_key(&create.objects, &key, &size))
            *out_bytes = saturating_add(*out_bytes, size);
        return true;
    }
    if (!decode_block_create(body, &block))
        return false;
    *out_wait_ms = block.wait_ms;
    while (next_size(&block.sizes, &size))
        *out_bytes = saturating_add(*out_bytes, size);
    return true;
}

/* Tries a well-formed CREATE or BLOCK_CREATE; `writer` gets the reply's body. */
static enum ds_status
try_create(struct session *session, const struct frame_header *header,
           struct ds_slice body, struct writer *writer, struct ds_error *err)
{
    enum ds_status status;
    struct create create;
    struct block_create block;
    if (header->type == MESSAGE_CREATE) {
        bool decoded = decode_create(body, &create);
        DS_ASSERT(decoded);
        if (create.objects.count > CREATE_OBJECTS_MAX)
            return ds_fail(err, DS_INVALID,
                           "%u objects in one request; at most %u are allowed, split "
                           "it",
                           create.objects.count, CREATE_OBJECTS_MAX);
        status = create_all(session, header->sequence, create, writer, err);
    } else {
        bool decoded = decode_block_create(body, &block);
        DS_ASSERT(decoded);
        status = block_create_all(session, header->sequence, block.sizes, writer, err);
    }
    if (status != DS_OK && session->creator != 0)
        store_abort_request(session->worker->store, session->creator, header->sequence);
    return status;
}

static void
answer_create(struct session *session, const struct frame_header *header,
              enum ds_status status, const struct writer *writer,
              const struct ds_error *err)
{
    if (status == DS_OK) {
        session_reply(session, header, writer);
        return;
    }
    if (status == DS_FULL)
        session->worker->counters.out_of_memory++;
    conn_reply_error(session->conn, header, err);
}

/* ---- The line ---- */

static size_t
parked_bytes(size_t body_bytes)
{
    return sizeof(struct parked_create) + body_bytes;
}

static void
unpark(struct parked_create *parked)
{
    struct worker *worker = parked->session->worker;
    session_unpark(parked->session, parked_bytes(parked->body_bytes));
    list_remove(&parked->link);
    list_remove(&parked->session_link);
    free(parked);
    if (list_is_empty(&worker->parked_creates) && !worker->stopping)
        (void)uv_timer_stop(&worker->room_tick);
}

void
creates_drop(struct session *session)
{
    LIST_FOREACH (link, &session->parked_creates)
        unpark(CONTAINER_OF(link, struct parked_create, session_link));
}

static void
on_room_tick(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    (void)store_tick(worker->store, clock_boot_ds());
    creates_retry(worker);
}

/* False when this session has too much waiting already, or out of memory. */
static bool
park(struct session *session, const struct frame_header *header, struct ds_slice body,
     uint64_t until_ms, uint64_t bytes)
{
    struct worker *worker = session->worker;
    if (session_park(session, parked_bytes(body.len), NULL) != DS_OK)
        return false;
    struct parked_create *parked = malloc(parked_bytes(body.len));
    if (parked == NULL) {
        session_unpark(session, parked_bytes(body.len));
        return false;
    }
    *parked = (struct parked_create){
        .session = session,
        .until_ms = until_ms,
        .bytes = bytes,
        .header = *header,
        .body_bytes = body.len,
    };
    memcpy(parked->body, body.data, body.len);
    if (list_is_empty(&worker->parked_creates))
        uv_timer_start(&worker->room_tick, on_room_tick, ROOM_TICK_MS, ROOM_TICK_MS);
    list_push_back(&worker->parked_creates, &parked->link);
    list_push_back(&session->parked_creates, &parked->session_link);
    populate_hurry(worker->populate);
    return true;
}

/* May a request of so many bytes be served before those in the line in front of `end`
 * (itself, or the line's head for one that is not in it)? */
static bool
may_pass(const struct worker *worker, const struct list *end, uint64_t bytes)
{
    const struct list *link = worker->parked_creates.next;
    for (; link != end; link = link->next) {
        const struct parked_create *front =
            CONTAINER_OF(link, struct parked_create, link);
        if (saturating_add(front->passed_bytes, bytes) > front->bytes / PASS_SHARE)
            return false;
    }
    return true;
}

static void
note_passed(struct worker *worker, const struct list *end, uint64_t bytes)
{
    struct list *link = worker->parked_creates.next;
    for (; link != end; link = link->next)
        CONTAINER_OF(link, struct parked_create, link)->passed_bytes += bytes;
}

bool
creates_could_fit(struct worker *worker, uint64_t bytes)
{
    if (populate_is_done(worker->populate))
        return false;
    struct store_stats stats;
    store_stats(worker->store, &stats);
    return bytes <= stats.arena.total_bytes - stats.arena.used_bytes;
}

bool
creates_populate_for(struct worker *worker, uint64_t bytes)
{
    return creates_could_fit(worker, bytes) && populate_step_now(worker->populate);
}

/* Whoever does not wait takes what is there, or hears that there is nothing. */
static enum ds_status
try_in_turn(struct session *session, const struct frame_header *header,
            struct ds_slice body, uint32_t wait_ms, uint64_t bytes,
            struct writer *writer, struct ds_error *err)
{
    struct worker *worker = session->worker;
    const struct list *line = &worker->parked_creates;
    if (wait_ms > 0 && !may_pass(worker, line, bytes))
        return ds_fail(err, DS_FULL, "others wait for room, too");
    enum ds_status status = try_create(session, header, body, writer, err);
    if (status == DS_OK && wait_ms > 0)
        note_passed(worker, line, bytes);
    return status;
}

void
handle_create(struct session *session, const struct frame_header *header,
              struct ds_slice body)
{
    struct worker *worker = session->worker;
    uint32_t wait_ms = 0;
    uint64_t bytes = 0;
    if (session->client == NULL || !measure(header, body, &wait_ms, &bytes)) {
        session_reject(session, session->client == NULL ? "CREATE by who is no member"
                                                        : "malformed CREATE");
        return;
    }
    struct ds_error err = {0};
    AUTO_WRITER(writer);
    enum ds_status status =
        try_in_turn(session, header, body, wait_ms, bytes, &writer, &err);
    bool can_wait = wait_ms > 0 && bytes <= store_header(worker->store)->arena_bytes;
    if (status == DS_FULL && (can_wait || creates_could_fit(worker, bytes)) &&
        park(session, header, body, uv_now(&worker->loop) + wait_ms, bytes))
        return;
    if (status == DS_FULL && can_wait) /* Its line is full: say what is the matter. */
        status = try_create(session, header, body, &writer, &err);
    answer_create(session, header, status, &writer, &err);
}

void
handle_block_create(struct session *session, const struct frame_header *header,
                    struct ds_slice body)
{
    handle_create(session, header, body);
}

/* One in the line whose turn it is, or whose time is up. False: it waits on. */
static bool
serve(struct parked_create *parked, bool is_over)
{
    struct session *session = parked->session;
    struct ds_error err = {0};
    AUTO_WRITER(writer);
    struct ds_slice body = slice(parked->body, parked->body_bytes);
    enum ds_status status = try_create(session, &parked->header, body, &writer, &err);
    if (status == DS_FULL && !is_over)
        return false;
    if (status == DS_OK)
        note_passed(session->worker, &parked->link, parked->bytes);
    struct frame_header header = parked->header;
    unpark(parked);
    answer_create(session, &header, status, &writer, &err);
    return true;
}

void
creates_retry(struct worker *worker)
{
    uint64_t now = uv_now(&worker->loop);
    bool may_grow = !populate_is_done(worker->populate);
    int tries = 0;
    LIST_FOREACH (link, &worker->parked_creates) {
        struct parked_create *parked = CONTAINER_OF(link, struct parked_create, link);
        bool is_over = now >= parked->until_ms && !may_grow;
        bool is_its_turn =
            tries < TRIES_PER_TICK && may_pass(worker, link, parked->bytes);
        if (is_over || is_its_turn) {
            (void)serve(parked, is_over);
            tries++;
        }
    }
}
