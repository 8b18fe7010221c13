#include "controller/worker_link.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "net/conn.h"
#include "os/sockets.h"
#include "store/layout.h"
#include "wire/journals.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    BACKOFF_MS_MIN = 50,
    BACKOFF_MS_MAX = 2000,
    ANSWER_MS_MAX = 30000, /* A worker that does not answer a batch is given up. */
    BATCH_BLOCKS_MAX = 65536,
    BATCH_SEQUENCE = 1, /* Of HELLO and batches: one is under way at a time. */
    ORPHANS_SEQUENCE = 2,
    SERVE_SEQUENCE = 3,
    SYNC_SEQUENCE = 4,
    END_SEQUENCE = 5,
};

struct task {
    struct ds_block_id id;
    uint64_t ticket;
    bool is_delete; /* Else it is to be adopted. */
};

/* Invariants: tasks [head, tail) are not acknowledged yet, the first `sent` of them are
 * under way, all of one kind; conn is NULL while away. `timer` ends the back-off while
 * away, and the patience with a batch while up. */
struct worker_link {
    uv_loop_t *loop;
    const char *path;
    const struct queue_serve *serve;
    const struct worker_link_ops *ops;
    void *arg;
    struct conn *conn;
    bool is_up;     /* The worker has welcomed us, */
    bool is_served; /* and knows where our queue is. */
    bool closing;
    bool was_reported_away; /* In the log, once until it is up again. */
    uint32_t handles_open;  /* Timer, turn, and the connection. */
    uint64_t backoff_ms;
    uv_timer_t timer;
    uv_prepare_t turn; /* Active while a batch should be sent. */
    struct task *tasks;
    size_t head;
    size_t tail;
    size_t capacity;
    size_t sent;
    void (*on_flushed)(void *arg);
    void *flushed_arg;
    bool is_ending; /* The queue is: */
    void (*on_ended)(void *arg);
    void *ended_arg;
};

static void connect_to_worker(struct worker_link *link);

/* ---- Tasks ---- */

static size_t
task_count(const struct worker_link *link)
{
    return link->tail - link->head;
}

/* Room for `count` more; false when out of memory. */
static bool
reserve(struct worker_link *link, size_t count)
{
    if (link->tail + count <= link->capacity)
        return true;
    size_t waiting = task_count(link);
    if (link->head > 0 && waiting > 0)
        memmove(link->tasks, link->tasks + link->head, waiting * sizeof *link->tasks);
    link->head = 0;
    link->tail = waiting;
    if (waiting + count <= link->capacity / 2)
        return true;
    size_t wanted = max_u64(waiting + count, max_u64(2 * link->capacity, 256));
    struct task *tasks = realloc(link->tasks, wanted * sizeof *tasks);
    if (tasks == NULL)
        return waiting + count <= link->capacity;
    link->tasks = tasks;
    link->capacity = wanted;
    return true;
}

static void on_turn(uv_prepare_t *turn);

/* Sends a batch before the loop sleeps again, if there is one and none is under way. */
static void
wake(struct worker_link *link)
{
    if (link->closing || !link->is_up || link->sent > 0 || task_count(link) == 0)
        return;
    int result = uv_prepare_start(&link->turn, on_turn);
    DS_ASSERT(result == 0);
}

static void
push(struct worker_link *link, struct ds_block_id id, bool is_delete)
{
    DS_ASSERT(link->tail < link->capacity);
    uint64_t ticket = link->ops->take_ticket(link->arg);
    link->tasks[link->tail++] = (struct task){id, ticket, is_delete};
    wake(link);
}

static void
tell_if_flushed(struct worker_link *link)
{
    if (link->on_flushed == NULL || task_count(link) > 0)
        return;
    void (*on_flushed)(void *arg) = link->on_flushed;
    link->on_flushed = NULL;
    on_flushed(link->flushed_arg);
}

bool
worker_link_deleting(const struct worker_link *link, struct ds_block_id **out,
                     size_t *out_count)
{
    size_t count = 0;
    struct ds_block_id *ids = calloc(task_count(link) + 1, sizeof *ids);
    if (ids == NULL)
        return false;
    for (size_t i = link->head; i < link->tail; i++) {
        if (link->tasks[i].is_delete)
            ids[count++] = link->tasks[i].id;
    }
    *out = ids;
    *out_count = count;
    return true;
}

bool
worker_link_reserve(struct worker_link *link, size_t count)
{
    return reserve(link, count);
}

void
worker_link_adopt(struct worker_link *link, struct ds_block_id id)
{
    push(link, id, false);
}

bool
worker_link_delete(struct worker_link *link, struct ds_block_id id)
{
    if (!reserve(link, 1))
        return false;
    push(link, id, true);
    return true;
}

void
worker_link_wake(struct worker_link *link)
{
    wake(link);
}

bool
worker_link_is_up(const struct worker_link *link)
{
    return link->is_up;
}

void
worker_link_flush(struct worker_link *link, void (*on_flushed)(void *arg), void *arg)
{
    link->on_flushed = on_flushed;
    link->flushed_arg = arg;
    tell_if_flushed(link);
}

static bool
is_of_another_arena(const struct welcome *welcome, const struct ds_block_id *id)
{
    struct block_birth birth = wire_block_birth(id);
    return birth.node == welcome->node && birth.incarnation != welcome->incarnation;
}

static void
drop_tasks_of_another_arena(struct worker_link *link, const struct welcome *welcome)
{
    DS_ASSERT(link->sent == 0);
    size_t kept = link->head;
    for (size_t i = link->head; i < link->tail; i++) {
        if (!is_of_another_arena(welcome, &link->tasks[i].id))
            link->tasks[kept++] = link->tasks[i];
    }
    if (kept < link->tail)
        log_warn("controller worker has a new arena: dropped_orders=%zu",
                 link->tail - kept);
    link->tail = kept;
}

/* ---- Messages ---- */

static void
send_message(struct worker_link *link, enum message_type type, uint32_t sequence,
             const struct writer *body)
{
    if (body->failed) {
        conn_close(link->conn, "out of memory for a message to the worker");
        return;
    }
    struct frame_header header = {
        .type = type,
        .sequence = sequence,
        .body_bytes = (uint32_t)body->len,
    };
    conn_send(link->conn, &header, slice(body->data, body->len), NULL, 0, NULL, 0);
}

static void
on_no_answer(uv_timer_t *timer)
{
    struct worker_link *link = timer->data;
    if (link->conn != NULL)
        conn_close(link->conn, "the worker does not answer");
}

/* The longest run of tasks of one kind that may be told, up to a limit. */
static size_t
next_batch(const struct worker_link *link, struct ds_block_id *ids)
{
    size_t count = 0;
    const struct task *first = &link->tasks[link->head];
    size_t max = min_u64(task_count(link), BATCH_BLOCKS_MAX);
    while (count < max && first[count].is_delete == first->is_delete &&
           link->ops->is_covered(first[count].ticket, link->arg)) {
        ids[count] = first[count].id;
        count++;
    }
    return count;
}

static void
send_batch(struct worker_link *link)
{
    static struct ds_block_id ids[BATCH_BLOCKS_MAX]; /* Loop thread only. */
    size_t count = next_batch(link, ids);
    if (count == 0)
        return;
    bool is_delete = link->tasks[link->head].is_delete;
    AUTO_WRITER(body);
    encode_block_ids(&body, ids, count);
    link->sent = count;
    send_message(link, is_delete ? MESSAGE_BLOCK_DELETE : MESSAGE_BLOCK_ADOPT,
                 BATCH_SEQUENCE, &body);
    int result = uv_timer_start(&link->timer, on_no_answer, ANSWER_MS_MAX, 0);
    DS_ASSERT(result == 0);
}

static void
on_turn(uv_prepare_t *turn)
{
    struct worker_link *link = turn->data;
    (void)uv_prepare_stop(turn);
    if (!link->is_up || link->sent > 0 || task_count(link) == 0)
        return;
    link->ops->before_batch(link->arg);
    send_batch(link);
}

static void
ask_for_orphans(struct worker_link *link)
{
    AUTO_WRITER(body);
    send_message(link, MESSAGE_ORPHANS, ORPHANS_SEQUENCE, &body);
}

/* Whoever looks for this queue finds it through its own worker. */
static void
say_where_we_are(struct worker_link *link)
{
    if (link->serve->place.name.len == 0)
        return;
    AUTO_WRITER(body);
    encode_queue_serve(&body, link->serve);
    send_message(link, MESSAGE_QUEUE_SERVE, SERVE_SEQUENCE, &body);
}

bool
worker_link_is_served(const struct worker_link *link)
{
    return link->is_served && !link->is_ending;
}

void
worker_link_sync(struct worker_link *link, const struct journal_sync *message)
{
    DS_ASSERT(worker_link_is_served(link));
    AUTO_WRITER(body);
    encode_journal_sync(&body, message);
    send_message(link, MESSAGE_JOURNAL_SYNC, SYNC_SEQUENCE, &body);
}

static void
say_that_it_ended(struct worker_link *link)
{
    AUTO_WRITER(body);
    send_message(link, MESSAGE_JOURNAL_END, END_SEQUENCE, &body);
}

void
worker_link_end_queue(struct worker_link *link, void (*on_ended)(void *arg), void *arg)
{
    link->is_ending = true;
    link->on_ended = on_ended;
    link->ended_arg = arg;
    if (link->is_served)
        say_that_it_ended(link);
}

static void
handle_welcome(struct worker_link *link, struct ds_slice body)
{
    struct welcome welcome;
    if (link->is_up || !decode_welcome(body, &welcome)) {
        conn_close(link->conn, "the worker's welcome is malformed or out of turn");
        return;
    }
    conn_accept_peer(link->conn);
    link->is_up = true;
    link->backoff_ms = BACKOFF_MS_MIN;
    link->was_reported_away = false;
    log_info("controller worker up node=%u incarnation=%u orders=%zu", welcome.node,
             welcome.incarnation, task_count(link));
    drop_tasks_of_another_arena(link, &welcome);
    say_where_we_are(link);
    ask_for_orphans(link);
    tell_if_flushed(link);
    wake(link);
}

static void
handle_answer(struct worker_link *link, const struct frame_header *header,
              struct ds_slice body)
{
    uint32_t count;
    const uint8_t *flags;
    bool is_adopt = header->type == MESSAGE_BLOCK_ADOPT;
    if (link->sent == 0 || link->tasks[link->head].is_delete == is_adopt ||
        (is_adopt && (!decode_flags(body, &count, &flags) || count != link->sent))) {
        conn_close(link->conn, "the worker's answer is malformed or out of turn");
        return;
    }
    (void)uv_timer_stop(&link->timer);
    for (uint32_t i = 0; is_adopt && i < count; i++) {
        if (!flags[i])
            log_debug("controller adopted a block that the worker does not have");
    }
    link->head += link->sent;
    link->sent = 0;
    tell_if_flushed(link);
    wake(link);
}

/* Blocks of dead writers: known ones are kept, the others will never be put. */
static void
handle_orphans(struct worker_link *link, struct ds_slice body)
{
    struct block_id_list ids;
    if (!decode_block_ids(body, &ids) || !reserve(link, ids.count)) {
        conn_close(link->conn, "the worker's orphans are malformed or too many");
        return;
    }
    log_info("controller orphans count=%u", ids.count);
    struct ds_block_id id;
    bool is_known = false;
    while (next_block_id(&ids, &id)) {
        if (link->ops->judge_orphan(&id, &is_known, link->arg))
            push(link, id, !is_known);
    }
    ask_for_orphans(link);
}

static void
handle_served(struct worker_link *link, struct ds_slice body)
{
    bool is_copied;
    if (!decode_queue_served(body, &is_copied)) {
        conn_close(link->conn, "the worker's answer is malformed");
        return;
    }
    link->is_served = true;
    if (link->is_ending)
        say_that_it_ended(link);
    else
        link->ops->on_served(is_copied, link->arg);
}

static void
handle_synced(struct worker_link *link, struct ds_slice body)
{
    struct journal_synced answer;
    if (decode_journal_synced(body, &answer))
        link->ops->on_synced(&answer, link->arg);
    else
        conn_close(link->conn, "the worker's answer is malformed");
}

static void
handle_end(struct worker_link *link)
{
    void (*on_ended)(void *arg) = link->on_ended;
    link->on_ended = NULL;
    if (on_ended != NULL)
        on_ended(link->ended_arg);
}

static bool
is_superseded(const struct frame_header *header)
{
    return header->status == DS_EXISTS && (header->type == MESSAGE_QUEUE_SERVE ||
                                           header->type == MESSAGE_JOURNAL_SYNC ||
                                           header->type == MESSAGE_JOURNAL_END);
}

static void
on_frame(struct conn *conn, const struct frame_header *header, struct ds_slice body,
         const int *fds, size_t fd_count)
{
    struct worker_link *link = conn_user(conn);
    (void)fds;
    (void)fd_count;
    if (is_superseded(header)) {
        link->ops->on_superseded(link->arg);
    } else if (header->status != DS_OK) {
        log_warn("controller worker refused status=%s reason=\"%.*s\"",
                 ds_status_name(header->status), (int)min_u64(body.len, 512),
                 (const char *)body.data);
        conn_close(conn, "the worker refused a message");
    } else if (header->type == MESSAGE_HELLO) {
        handle_welcome(link, body);
    } else if (link->is_up && (header->type == MESSAGE_BLOCK_ADOPT ||
                               header->type == MESSAGE_BLOCK_DELETE)) {
        handle_answer(link, header, body);
    } else if (link->is_up && header->type == MESSAGE_ORPHANS) {
        handle_orphans(link, body);
    } else if (link->is_up && header->type == MESSAGE_QUEUE_SERVE) {
        handle_served(link, body);
    } else if (link->is_up && header->type == MESSAGE_JOURNAL_SYNC) {
        handle_synced(link, body);
    } else if (link->is_up && header->type == MESSAGE_JOURNAL_END) {
        handle_end(link);
    } else {
        conn_close(conn, "the worker sent a message out of turn");
    }
}

/* ---- Connecting ---- */

static void
release(struct worker_link *link)
{
    DS_ASSERT(link->handles_open > 0);
    link->handles_open--;
    if (link->handles_open > 0)
        return;
    free(link->tasks);
    free(link);
}

static void
on_handle_closed(uv_handle_t *handle)
{
    release(handle->data);
}

static void
on_retry(uv_timer_t *timer)
{
    connect_to_worker(timer->data);
}

static void
retry_later(struct worker_link *link, const char *reason)
{
    if (!link->was_reported_away)
        log_warn("controller worker away socket=%s reason=\"%s\"", link->path, reason);
    link->was_reported_away = true;
    int result = uv_timer_start(&link->timer, on_retry, link->backoff_ms, 0);
    DS_ASSERT(result == 0);
    link->backoff_ms = min_u64(2 * link->backoff_ms, BACKOFF_MS_MAX);
}

static void
on_closed(struct conn *conn, const char *reason)
{
    struct worker_link *link = conn_user(conn);
    link->conn = NULL;
    link->is_up = false;
    link->is_served = false;
    link->sent = 0; /* To be told again. */
    if (!link->closing) {
        link->ops->on_away(link->arg);
        (void)uv_prepare_stop(&link->turn);
        retry_later(link, reason != NULL ? reason : "it closed the connection");
    }
    release(link);
}

static const struct conn_ops link_ops = {
    .on_frame = on_frame,
    .on_closed = on_closed,
};

static enum ds_status
check_peer(int fd, struct ds_error *err)
{
    uid_t user = 0;
    enum ds_status status = socket_peer_user(fd, &user, err);
    if (status != DS_OK || user == geteuid())
        return status;
    return ds_fail(err, DS_INVALID, "the worker has uid %u, this queue is of uid %u",
                   user, geteuid());
}

static enum ds_status
open_connection(struct worker_link *link, struct ds_error *err)
{
    int fd;
    enum ds_status status = socket_connect_unix(link->path, &fd, err);
    if (status != DS_OK)
        return status;
    status = check_peer(fd, err);
    if (status != DS_OK) {
        socket_close(fd);
        return status;
    }
    return conn_create(link->loop, fd, &link_ops, link, &link->conn, err);
}

static void
connect_to_worker(struct worker_link *link)
{
    struct ds_error err = {0};
    if (open_connection(link, &err) != DS_OK) {
        retry_later(link, err.message);
        return;
    }
    link->handles_open++;
    struct hello hello = {
        .layout_version = LAYOUT_VERSION,
        .protocol_version = PROTOCOL_VERSION,
    };
    AUTO_WRITER(body);
    encode_hello(&body, &hello, NULL, 0);
    send_message(link, MESSAGE_HELLO, BATCH_SEQUENCE, &body);
}

enum ds_status
worker_link_open(uv_loop_t *loop, const char *path, const struct queue_serve *serve,
                 const struct worker_link_ops *ops, void *arg, struct worker_link **out,
                 struct ds_error *err)
{
    struct worker_link *link = calloc(1, sizeof *link);
    if (link == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the link to the worker");
    link->loop = loop;
    link->path = path;
    link->serve = serve;
    link->ops = ops;
    link->arg = arg;
    link->backoff_ms = BACKOFF_MS_MIN;
    link->handles_open = 2;
    int result = uv_timer_init(loop, &link->timer);
    DS_ASSERT(result == 0);
    result = uv_prepare_init(loop, &link->turn);
    DS_ASSERT(result == 0);
    link->timer.data = link;
    link->turn.data = link;
    connect_to_worker(link);
    *out = link;
    return DS_OK;
}

void
worker_link_close(struct worker_link *link)
{
    if (link == NULL || link->closing)
        return;
    link->closing = true;
    if (link->conn != NULL)
        conn_close(link->conn, NULL);
    uv_close((uv_handle_t *)&link->timer, on_handle_closed);
    uv_close((uv_handle_t *)&link->turn, on_handle_closed);
}
