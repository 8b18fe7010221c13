#include "queue/snapshot.h"

#include "queue/internal.h"

#include "wire/msgpack.h"

#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

enum { RECORD_BYTES = 1 << 20 }; /* After which the next one begins. */

/* A snapshot under way. Owner: snapshot_write(). */
struct dump {
    const struct snapshot_source *source;
    const struct queue *queue;
    snapshot_fn emit;
    void *arg;
    struct ds_error *err;
    enum ds_status status; /* Of the first failure; nothing is written after it. */
    struct writer body;
    uint32_t *ordinals; /* By block number: its place among those that are written. */
};

static void
dump_fini(struct dump *dump)
{
    writer_fini(&dump->body);
    free(dump->ordinals);
}

static void
end_record(struct dump *dump, enum record_type type)
{
    struct writer *body = &dump->body;
    if (dump->status == DS_OK && body->failed)
        dump->status = ds_fail(dump->err, DS_NO_MEMORY, "out of memory for a snapshot");
    if (dump->status == DS_OK)
        dump->status =
            dump->emit(type, slice(body->data, body->len), dump->arg, dump->err);
    writer_clear(body);
}

static bool
is_long(const struct dump *dump)
{
    return dump->body.len >= RECORD_BYTES;
}

static void
write_id(struct dump *dump, const struct ds_block_id *id)
{
    msgpack_write_bin(&dump->body, slice(id->bytes, sizeof id->bytes));
}

static void
dump_fields(struct dump *dump)
{
    const struct field_table *fields = &dump->queue->fields;
    struct writer *body = &dump->body;
    msgpack_write_array(body, fields->name_count);
    for (uint32_t i = 0; i < fields->name_count; i++)
        msgpack_write_str(body, fields_name(fields, (struct field_no){i}));
    msgpack_write_array(body, fields->set_count - 1);
    for (uint32_t i = 1; i < fields->set_count; i++) {
        uint32_t count;
        const struct field_no *members =
            fields_members(fields, (struct field_set){i}, &count);
        msgpack_write_array(body, count);
        for (uint32_t j = 0; j < count; j++)
            msgpack_write_uint(body, members[j].value);
    }
    end_record(dump, SNAPSHOT_FIELDS);
}

static void
dump_indexes(struct dump *dump)
{
    enum { INDEXES_EACH = 1 << 18 };
    const struct index_pool *pool = &dump->queue->indexes;
    uint32_t done = 0;
    do {
        uint32_t left = pool->count - done;
        uint32_t count = left < INDEXES_EACH ? left : INDEXES_EACH;
        msgpack_write_uint(&dump->body, pool->next);
        msgpack_write_array(&dump->body, count);
        for (uint32_t end = done + count; done < end; done++) {
            uint64_t at = ((uint64_t)pool->head + done) % pool->capacity;
            msgpack_write_uint(&dump->body, pool->free[at]);
        }
        end_record(dump, SNAPSHOT_INDEXES);
    } while (done < pool->count);
}

static void
dump_block(struct dump *dump, const struct block *block)
{
    struct writer *body = &dump->body;
    uint32_t columns;
    fields_members(&dump->queue->fields, block->fields, &columns);
    write_id(dump, &block->id);
    msgpack_write_uint(body, block->keys_hash);
    msgpack_write_uint(body, block->row_count);
    msgpack_write_uint(body, block->fields.value);
    msgpack_write_str(body, slice(block->backend, block->backend_len));
    msgpack_write_array(body, columns);
    for (uint32_t i = 0; i < columns; i++)
        msgpack_write_uint(body, block->column_bytes[i]);
}

static void
dump_blocks(struct dump *dump)
{
    const struct block_table *blocks = &dump->queue->blocks;
    uint32_t ordinal = 0;
    for (uint32_t i = 0; i < blocks->count; i++) {
        if (blocks->blocks[i] == NULL)
            continue;
        dump->ordinals[i] = ordinal++;
        dump_block(dump, blocks->blocks[i]);
        if (is_long(dump))
            end_record(dump, SNAPSHOT_BLOCKS);
    }
    end_record(dump, SNAPSHOT_BLOCKS);
}

static void
dump_row(struct dump *dump, const struct row *row)
{
    struct writer *body = &dump->body;
    msgpack_write_str(body, row_key(row));
    msgpack_write_uint(body, row->index);
    if (row->tags == NULL)
        msgpack_write_nil(body);
    else
        write_bytes(body, tags_slice(row->tags));
    msgpack_write_array(body, 3 * (size_t)row->entry_count);
    for (uint32_t i = 0; i < row->entry_count; i++) {
        msgpack_write_uint(body, dump->ordinals[row->entries[i].block.value]);
        msgpack_write_uint(body, row->entries[i].row);
        msgpack_write_uint(body, row->entries[i].fields.value);
    }
}

static void
dump_partition(struct dump *dump, const struct partition *partition)
{
    msgpack_write_str(&dump->body, partition_name(partition));
    LIST_FOREACH (link, &partition->order) {
        if (PLANTED(SHORT_SNAPSHOT) && link == partition->order.prev)
            continue;
        dump_row(dump, CONTAINER_OF(link, struct row, link));
        if (!is_long(dump))
            continue;
        end_record(dump, SNAPSHOT_ROWS);
        msgpack_write_str(&dump->body, partition_name(partition));
    }
    end_record(dump, SNAPSHOT_ROWS);
}

static void
dump_past(struct dump *dump)
{
    const struct block_table *blocks = &dump->queue->blocks;
    for (uint32_t i = 0; i < QUEUE_PAST_BLOCKS_MAX; i++) {
        uint32_t at = (blocks->past_next + i) % QUEUE_PAST_BLOCKS_MAX;
        const struct past_block *past = &blocks->past[at];
        if (!past->is_used)
            continue;
        write_id(dump, &past->id);
        msgpack_write_uint(&dump->body, past->is_refused);
        if (is_long(dump))
            end_record(dump, SNAPSHOT_PAST);
    }
    end_record(dump, SNAPSHOT_PAST);
}

static void
dump_dead(struct dump *dump)
{
    const struct snapshot_source *source = dump->source;
    for (size_t i = 0; i < source->deleting_count; i++) {
        write_id(dump, &source->deleting[i]);
        if (is_long(dump))
            end_record(dump, SNAPSHOT_DEAD);
    }
    LIST_FOREACH (link, &dump->queue->blocks.dead) {
        write_id(dump, &CONTAINER_OF(link, struct block, link)->id);
        if (is_long(dump))
            end_record(dump, SNAPSHOT_DEAD);
    }
    end_record(dump, SNAPSHOT_DEAD);
}

static void
dump_reply(struct request_id id, struct ds_slice reply, void *arg)
{
    struct dump *dump = arg;
    msgpack_write_uint(&dump->body, id.client);
    msgpack_write_uint(&dump->body, id.number);
    msgpack_write_bin(&dump->body, reply);
    if (is_long(dump))
        end_record(dump, SNAPSHOT_REPLIES);
}

static void
dump_end(struct dump *dump)
{
    const struct queue *queue = dump->queue;
    const struct queue_counters *counters = &queue->counters;
    struct writer *body = &dump->body;
    struct ds_slice config;
    if (queue_config(queue, &config))
        msgpack_write_bin(body, config);
    else
        msgpack_write_nil(body);
    const uint64_t values[] = {counters->puts,          counters->put_rows,
                               counters->repeated_puts, counters->gets,
                               counters->get_rows,      counters->cleared_rows};
    size_t count = sizeof values / sizeof values[0];
    msgpack_write_array(body, count);
    for (size_t i = 0; i < count; i++)
        msgpack_write_uint(body, values[i]);
    msgpack_write_uint(body, queue->row_count);
    msgpack_write_uint(body, queue->blocks.by_id.count);
    end_record(dump, SNAPSHOT_END);
}

enum ds_status
snapshot_write(const struct snapshot_source *source, snapshot_fn emit, void *arg,
               struct ds_error *err)
{
    const struct queue *queue = source->queue;
    struct dump dump = {
        .source = source, .queue = queue, .emit = emit, .arg = arg, .err = err};
    dump.ordinals = calloc(queue->blocks.count + 1u, sizeof *dump.ordinals);
    if (dump.ordinals == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a snapshot");
    dump_fields(&dump);
    dump_indexes(&dump);
    dump_blocks(&dump);
    LIST_FOREACH (link, &queue->partitions)
        dump_partition(&dump, CONTAINER_OF(link, struct partition, link));
    dump_past(&dump);
    dump_dead(&dump);
    replies_each(source->replies, dump_reply, &dump);
    end_record(&dump, SNAPSHOT_REPLIES);
    dump_end(&dump);
    dump_fini(&dump);
    return dump.status;
}
