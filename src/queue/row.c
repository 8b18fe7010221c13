#include "queue/row.h"

#include "queue/hash.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"

#include <stdlib.h>

struct row *
row_create(struct ds_slice key)
{
    DS_ASSERT(key.len > 0 && key.len <= UINT32_MAX);
    struct row *row = malloc(sizeof *row + key.len);
    if (row == NULL)
        return NULL;
    *row = (struct row){
        .entries = row->inline_entries,
        .entry_capacity = ROW_ENTRIES_INLINE,
        .key_len = (uint32_t)key.len,
    };
    list_init(&row->link);
    memcpy(row->key, key.data, key.len);
    return row;
}

void
row_destroy(struct row *row)
{
    if (row == NULL)
        return;
    tags_free(row->tags);
    if (row->entries != row->inline_entries)
        free(row->entries);
    free(row);
}

bool
row_reserve_entry(struct row *row)
{
    if (row->entry_count < row->entry_capacity)
        return true;
    bool is_inline = row->entries == row->inline_entries;
    size_t wanted = (size_t)row->entry_capacity * 2;
    struct entry *entries =
        realloc(is_inline ? NULL : row->entries, wanted * sizeof *entries);
    if (entries == NULL)
        return false;
    if (is_inline)
        memcpy(entries, row->inline_entries, sizeof row->inline_entries);
    row->entries = entries;
    row->entry_capacity = (uint32_t)wanted;
    return true;
}

struct ds_slice
row_key(const struct row *row)
{
    return slice(row->key, row->key_len);
}

bool
row_same_shape(const struct row *a, const struct row *b)
{
    if (a->entry_count != b->entry_count)
        return false;
    for (uint32_t i = 0; i < a->entry_count; i++) {
        if (!field_set_equal(a->entries[i].fields, b->entries[i].fields))
            return false;
    }
    return true;
}

struct partition *
partition_create(struct ds_slice name)
{
    struct partition *partition = malloc(sizeof *partition + name.len);
    if (partition == NULL)
        return NULL;
    *partition = (struct partition){.name_len = (uint32_t)name.len};
    list_init(&partition->link);
    list_init(&partition->order);
    if (name.len > 0)
        memcpy(partition->name, name.data, name.len);
    return partition;
}

void
partition_destroy(struct partition *partition)
{
    if (partition == NULL)
        return;
    LIST_FOREACH (link, &partition->order)
        row_destroy(CONTAINER_OF(link, struct row, link));
    hmap_fini(&partition->rows);
    free(partition);
}

struct ds_slice
partition_name(const struct partition *partition)
{
    return slice(partition->name, partition->name_len);
}

struct row *
partition_find(const struct partition *partition, struct ds_slice key, uint64_t hash)
{
    struct hmap_node *node = hmap_chain(&partition->rows, hash);
    for (; node != NULL; node = node->next) {
        struct row *row = CONTAINER_OF(node, struct row, node);
        if (node->hash == hash && slice_equal(row_key(row), key))
            return row;
    }
    return NULL;
}

void
index_pool_fini(struct index_pool *pool)
{
    free(pool->free);
    *pool = (struct index_pool){0};
}

bool
index_pool_reserve(struct index_pool *pool, uint32_t count)
{
    uint64_t fresh = count > pool->count ? count - pool->count : 0;
    uint64_t needed = pool->next + fresh;
    if (needed <= pool->capacity)
        return true;
    uint64_t wanted = max_u64(needed, max_u64(2 * (uint64_t)pool->capacity, 256));
    if (wanted > UINT32_MAX)
        return false;
    uint32_t *grown = malloc(wanted * sizeof *grown);
    if (grown == NULL)
        return false;
    for (uint32_t i = 0; i < pool->count; i++)
        grown[i] = pool->free[(pool->head + i) % pool->capacity];
    free(pool->free);
    pool->free = grown;
    pool->capacity = (uint32_t)wanted;
    pool->head = 0;
    return true;
}

uint32_t
index_pool_take(struct index_pool *pool)
{
    if (pool->count == 0) {
        DS_ASSERT(pool->next < pool->capacity);
        return pool->next++;
    }
    uint32_t index = pool->free[pool->head];
    pool->head = (pool->head + 1) % pool->capacity;
    pool->count--;
    return index;
}

void
index_pool_give(struct index_pool *pool, uint32_t index)
{
    DS_ASSERT(index < pool->next);
    DS_ASSERT(pool->count < pool->capacity);
    uint32_t tail = (uint32_t)(((uint64_t)pool->head + pool->count) % pool->capacity);
    pool->free[tail] = index;
    pool->count++;
}
