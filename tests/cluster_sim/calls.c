/* One request over a connection of its own. */
#include "sim.h"

#include "base/check.h"
#include "base/slice.h"
#include "net/conn.h"
#include "wire/message.h"

#include <stdlib.h>

/* Owner: its connection. */
struct call {
    call_fn on_answer; /* NULL: it was called. */
    void *arg;
    uint8_t *payload; /* Owned. */
};

static void
answer(struct call *call, const struct frame_header *header, struct ds_slice body)
{
    call_fn on_answer = call->on_answer;
    call->on_answer = NULL;
    if (on_answer != NULL && !run.is_over)
        on_answer(call->arg, header, body, call->payload);
}

static void *
on_payload_begin(struct conn *conn, const struct frame_header *header,
                 struct ds_slice body)
{
    struct call *call = conn_user(conn);
    (void)body;
    free(call->payload);
    call->payload = malloc(header->payload_bytes);
    DS_ASSERT(call->payload != NULL);
    return call->payload;
}

static void
on_frame(struct conn *conn, const struct frame_header *header, struct ds_slice body,
         const int *fds, size_t fd_count)
{
    (void)fds;
    (void)fd_count;
    if (header->type == MESSAGE_HELLO)
        return;
    answer(conn_user(conn), header, body);
    conn_close(conn, NULL);
}

static void
on_closed(struct conn *conn, const char *reason)
{
    struct call *call = conn_user(conn);
    (void)reason;
    answer(call, NULL, (struct ds_slice){0});
    free(call->payload);
    free(call);
}

void
call_once(struct node *node, enum message_type type, struct ds_slice body,
          call_fn on_answer, void *arg)
{
    static const struct conn_ops ops = {.on_frame = on_frame,
                                        .on_payload_begin = on_payload_begin,
                                        .on_closed = on_closed};
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION};
    AUTO_WRITER(greeting);
    struct call *call = calloc(1, sizeof *call);
    DS_ASSERT(call != NULL);
    *call = (struct call){.on_answer = on_answer, .arg = arg};
    struct conn *conn = network_dial(node, PORT_UNIX, &ops, call);
    struct frame_header header = {.type = MESSAGE_HELLO, .sequence = 1};
    encode_hello(&greeting, &hello, NULL, 0);
    conn_send(conn, &header, slice(greeting.data, greeting.len), NULL, 0, NULL, 0);
    header = (struct frame_header){.type = type, .sequence = 2};
    conn_send(conn, &header, body, NULL, 0, NULL, 0);
}
