/* The queue's state machine on whatever the decoder lets through.
 *
 * The first byte chooses options; then MessagePack values follow, one step each: a
 * request (an array); a bin of 16 bytes, whose block is given up as that of a dead
 * writer; a nil, which takes a dead block off. After every step the whole queue is
 * checked, every reply is one well-formed value, and a step that failed has changed
 * nothing that can be seen. */
#include "fuzz.h"

#include "queue/queue.h"
#include "wire/msgpack.h"

enum { STEPS_MAX = 64 };

/* What `operation`, which changes nothing, says about the queue now. */
static void
ask(struct queue *queue, enum queue_operation operation, struct writer *out)
{
    struct queue_request request = {.operation = operation};
    enum ds_status status = queue_apply(queue, &request, out, NULL);
    DS_ASSERT(status == DS_OK);
}

static void
check_reply(const struct writer *reply)
{
    struct reader reader = reader_of(reply->data, reply->len);
    msgpack_skip(&reader);
    DS_ASSERT(!reply->failed);
    DS_ASSERT(reader_done(&reader));
}

static void
check_unchanged(struct queue *queue, const struct writer *before)
{
    AUTO_WRITER(after);
    ask(queue, QUEUE_KV_LIST, &after);
    DS_ASSERT(
        slice_equal(slice(before->data, before->len), slice(after.data, after.len)));
}

static void
apply(struct queue *queue, const struct queue_request *request)
{
    AUTO_WRITER(before);
    AUTO_WRITER(reply);
    struct ds_error err = {0};
    ask(queue, QUEUE_KV_LIST, &before);
    enum ds_status status = queue_apply(queue, request, &reply, &err);
    if (status == DS_OK) {
        check_reply(&reply);
        return;
    }
    DS_ASSERT(err.status == status);
    DS_ASSERT(err.message[0] != '\0');
    check_unchanged(queue, &before);
}

static void
give_up_block(struct queue *queue, struct ds_slice bytes)
{
    struct ds_block_id id;
    if (bytes.len != sizeof id.bytes)
        return;
    memcpy(id.bytes, bytes.data, sizeof id.bytes);
    DS_ASSERT(queue_refuse_block(queue, &id) == queue_knows_block(queue, &id));
}

static void
pop_dead(struct queue *queue)
{
    struct ds_block_id id;
    if (!queue_peek_dead(queue, &id))
        return;
    DS_ASSERT(!queue_knows_block(queue, &id));
    queue_pop_dead(queue);
}

static void
step(struct queue *queue, struct ds_slice value)
{
    struct reader reader = reader_of(value.data, value.len);
    enum msgpack_type type = msgpack_peek(&reader);
    AUTO_QUEUE_REQUEST(request);
    if (type == MSGPACK_BIN)
        give_up_block(queue, msgpack_read_bin(&reader));
    else if (type == MSGPACK_NIL)
        pop_dead(queue);
    else if (queue_request_decode(value, &request, NULL) == DS_OK)
        apply(queue, &request);
    queue_check(queue);
}

static struct queue_options
options_of(uint8_t choice)
{
    struct queue_options options = {.limits = queue_limits_default(),
                                    .reports_dead = (choice & 1) != 0};
    if ((choice & 2) != 0)
        options.limits = (struct queue_limits){.partitions_max = 2,
                                               .rows_max = 6,
                                               .fields_max = 4,
                                               .field_set_members_max = 12,
                                               .row_tag_bytes_max = 24,
                                               .tag_bytes_max = 64};
    return options;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    AUTO(queue) struct queue *queue = NULL;
    struct queue_options options = options_of(data[0]);
    enum ds_status status = queue_create(&options, &queue, NULL);
    DS_ASSERT(status == DS_OK);
    struct reader reader = reader_of(data + 1, size - 1);
    for (int i = 0; i < STEPS_MAX && reader_left(&reader) > 0; i++) {
        struct ds_slice value = msgpack_read_raw(&reader);
        if (!reader_ok(&reader))
            break;
        step(queue, value);
    }
    return 0;
}
