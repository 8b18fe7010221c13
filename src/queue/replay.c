#include "queue/replay.h"

#include "queue/snapshot.h"

#include "base/slice.h"
#include "base/status.h"

static enum ds_status
replay_request(struct queue *queue, struct replies *replies,
               const struct record *record, struct ds_error *err)
{
    struct request_id id = {record->client, record->request};
    AUTO_QUEUE_REQUEST(request);
    AUTO_WRITER(reply);
    enum ds_status status = queue_request_decode(record->body, &request, err);
    if (status != DS_OK)
        return status;
    if (!replies_reserve(replies, id))
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the table of replies");
    /* Whatever the table says about it: the first time it was applied, perhaps because
     * its client had been forgotten over the readers, which are in no journal. */
    status = queue_apply(queue, &request, &reply, err);
    if (status == DS_OK)
        replies_keep(replies, id, slice(reply.data, reply.len));
    return status;
}

static enum ds_status
replay_refused(struct queue *queue, const struct record *record, struct ds_error *err)
{
    struct ds_block_id id;
    if (record->body.len != sizeof id.bytes)
        return ds_fail(err, DS_INVALID, "not the id of a block");
    memcpy(id.bytes, record->body.data, sizeof id.bytes);
    if (queue_refuse_block(queue, &id))
        return ds_fail(err, DS_INVALID, "a block is both known and refused");
    return DS_OK;
}

enum ds_status
replay_record(struct queue *queue, struct replies *replies, const struct record *record,
              struct ds_error *err)
{
    if (snapshot_has(record->type))
        return snapshot_read(queue, replies, record->type, record->body, err);
    if (queue_is_loading(queue))
        return ds_fail(err, DS_INVALID, "a snapshot without an end is before it");
    if (record->type == RECORD_REQUEST)
        return replay_request(queue, replies, record, err);
    return replay_refused(queue, record, err);
}
