#include "lookup.h"

#include "base/check.h"
#include "base/slice.h"
#include "net/conn.h"
#include "nodes.h"
#include "wire/journals.h"

#include <stdlib.h>

enum { ANSWER_MS = 1000 };

/* One request behind HELLO. */
struct caller {
    enum message_type type;
    struct ds_slice body;
    struct frame_header reply;
    struct writer reply_body;
    uint64_t began_ns;
    uint64_t answered_ns;
    bool is_answered;
    bool is_closed;
};

static void
on_frame(struct conn *conn, const struct frame_header *header, struct ds_slice body,
         const int *fds, size_t fd_count)
{
    struct caller *caller = conn_user(conn);
    (void)fds;
    (void)fd_count;
    if (header->type == MESSAGE_HELLO) {
        struct frame_header request = {.type = caller->type, .sequence = 2};
        caller->began_ns = virtual_now_ns();
        conn_send(conn, &request, caller->body, NULL, 0, NULL, 0);
        return;
    }
    caller->reply = *header;
    write_bytes(&caller->reply_body, body);
    caller->answered_ns = virtual_now_ns();
    caller->is_answered = true;
}

static void
on_closed(struct conn *conn, const char *reason)
{
    struct caller *caller = conn_user(conn);
    (void)reason;
    caller->is_closed = true;
}

static const struct conn_ops caller_ops = {.on_frame = on_frame,
                                           .on_closed = on_closed};

static void
run_until(const bool *done)
{
    for (int ms = 0; ms < ANSWER_MS && !*done; ms++)
        virtual_run_until(virtual_now_ns() + VIRTUAL_MS);
}

/* False: not answered well. */
static bool
call(struct node *node, enum port port, struct caller *caller)
{
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION};
    AUTO_WRITER(body);
    encode_hello(&body, &hello, NULL, 0);
    struct conn *conn = network_dial(node, port, &caller_ops, caller);
    struct frame_header header = {.type = MESSAGE_HELLO, .sequence = 1};
    conn_send(conn, &header, slice(body.data, body.len), NULL, 0, NULL, 0);
    run_until(&caller->is_answered);
    if (!caller->is_closed)
        conn_close(conn, NULL);
    run_until(&caller->is_closed);
    return caller->is_answered && caller->reply.status == DS_OK;
}

uint64_t
lookup_key(struct node *node, struct ds_slice key)
{
    struct lookup lookup = {.wait_ms = ANSWER_MS};
    struct found found;
    struct wire_object object = {.found = false};
    AUTO_WRITER(body);
    encode_lookup(&body, &lookup, &key, 1);
    struct caller caller = {.type = MESSAGE_LOOKUP, .body = slice(body.data, body.len)};
    bool is_found =
        call(node, PORT_UNIX, &caller) &&
        decode_found(slice(caller.reply_body.data, caller.reply_body.len), &found) &&
        next_object(&found, &object) && object.found;
    writer_fini(&caller.reply_body);
    if (!is_found)
        cluster_fail("a key is not found");
    return caller.answered_ns - caller.began_ns;
}

void
plant_journal(struct node *node, const struct node *served_by)
{
    static const char records[] = "records that nobody looks at";
    struct journal_write piece = {
        .name = slice_of_text("train"),
        .term = QUEUE_TERM_FIRST,
        .node = node_id(served_by),
        .incarnation = store_header(served_by->worker.store)->incarnation,
        .id = 1,
        .sequence = 1,
        .bytes = slice(records, sizeof records)};
    AUTO_WRITER(body);
    encode_journal_write(&body, &piece);
    struct caller caller = {.type = MESSAGE_JOURNAL_WRITE,
                            .body = slice(body.data, body.len)};
    if (!call(node, PORT_WORKER, &caller))
        cluster_fail("node %u does not keep a journal", node->index);
    writer_fini(&caller.reply_body);
}
