/* What the files of the queue share; nobody else includes it. */
#ifndef QUEUE_INTERNAL_H
#define QUEUE_INTERNAL_H

#include "queue/queue.h"
#include "queue/row.h"

/* For stats; they only grow. */
struct queue_counters {
    uint64_t puts;
    uint64_t put_rows;
    uint64_t repeated_puts;
    uint64_t gets;
    uint64_t get_rows;
    uint64_t cleared_rows;
    uint64_t moved_rows;
};

/* Invariants: row_count is the number of rows of all partitions and tag_bytes that of
 * the bytes of their tags; without rows there are no blocks and no fields. Each
 * operation takes a new `serial`, so that marks of earlier ones mean nothing. */
struct queue {
    struct queue_limits limits;
    bool reports_dead;
    bool is_loading; /* A snapshot was begun, and has not ended. */
    struct hmap partitions_by_name;
    struct list partitions; /* In the order of their creation. */
    uint32_t row_count;
    uint64_t tag_bytes;
    uint64_t serial;
    struct index_pool indexes;
    struct field_table fields;
    struct block_table blocks;
    struct writer scratch;
    bool has_config;
    uint8_t *config; /* Owned. */
    size_t config_len;
    struct queue_counters counters;
};

struct partition *queue_find_partition(const struct queue *queue, struct ds_slice name);

/* The operations; each is queue_apply() for one. */
enum ds_status queue_apply_put(struct queue *queue, const struct queue_request *request,
                               struct writer *reply, struct ds_error *err);
enum ds_status queue_apply_get(struct queue *queue, const struct queue_request *request,
                               struct writer *reply, struct ds_error *err);
enum ds_status
queue_apply_clear(struct queue *queue, const struct queue_request *request,
                  struct writer *reply, struct ds_error *err);
enum ds_status
queue_apply_purge(struct queue *queue, struct writer *reply, struct ds_error *err);
enum ds_status
queue_apply_move(struct queue *queue, const struct queue_request *request,
                 struct writer *reply, struct ds_error *err);
enum ds_status
queue_apply_sparse_blocks(struct queue *queue, const struct queue_request *request,
                          struct writer *reply, struct ds_error *err);
void queue_apply_list(struct queue *queue, const struct queue_request *request,
                      struct writer *reply);

/* A number for partition and keys of a request that brings blocks. */
uint64_t queue_hash_of_keys(const struct queue_request *request);

/* Whether this request was applied already, which its blocks tell: all come together.
 *   DS_INVALID     a block of it came with other keys
 *   DS_NOT_FOUND   it was refused before it came */
enum ds_status
queue_recognise(const struct queue *queue, const struct queue_request *request,
                bool *out_is_repeat, struct ds_error *err);

/* Blocks that an operation would leave without live rows, found before it is carried
 * out, because its reply must be ready by then. Owner: the operation. */
struct doom {
    struct list touched; /* Blocks with doomed_rows > 0. */
    uint32_t dead_count;
};
void doom_init(struct doom *doom);
void doom_entry(struct doom *doom, struct block *block);

/* Also resets the marks of all blocks that were touched. */
void doom_fini(struct doom *doom);

/* The reply's list of the dead; empty when the queue does not report them. */
void queue_write_dead(const struct queue *queue, const struct doom *doom,
                      struct writer *reply);

/* Ids that the reply has reported need no deletion by the queue's holder. */
void queue_drop_reported_dead(struct queue *queue);

/* DS_NO_MEMORY if the reply could not be written. */
enum ds_status queue_check_reply(const struct writer *reply, struct ds_error *err);

/* A copy of `config` is the configuration from now on; false when out of memory. */
bool queue_set_config(struct queue *queue, struct ds_slice config);

/* The names of a set's fields, sorted, as an array. DS_NO_MEMORY. */
enum ds_status queue_write_field_names(const struct queue *queue, struct field_set set,
                                       struct writer *reply, struct ds_error *err);

#endif
