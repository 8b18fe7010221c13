#include "queue/field.h"

#include "queue/hash.h"

#include "base/check.h"
#include "base/list.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

struct field_name {
    struct hmap_node node;
    struct field_no number;
    uint32_t len;
    char text[];
};

struct field_members {
    struct hmap_node node;
    struct field_set number;
    uint32_t count;
    struct field_no fields[];
};

enum operation { UNITE = 1, INTERSECT, SUBTRACT };

static enum ds_status
fail_memory(struct ds_error *err)
{
    return ds_fail(err, DS_NO_MEMORY, "out of memory for the names of fields");
}

enum ds_status
fields_init(struct field_table *table, const struct field_limits *limits,
            struct ds_error *err)
{
    *table = (struct field_table){.limits = *limits, .set_count = 1};
    table->cache = calloc(FIELD_CACHE_SLOTS, sizeof *table->cache);
    table->sets = calloc(1, sizeof(struct field_members *));
    table->set_capacity = 1;
    if (table->cache == NULL || table->sets == NULL) {
        fields_fini(table);
        return fail_memory(err);
    }
    return DS_OK;
}

static void
free_contents(struct field_table *table)
{
    for (uint32_t i = 0; i < table->name_count; i++)
        free(table->names[i]);
    for (uint32_t i = 1; i < table->set_count; i++)
        free(table->sets[i]);
    hmap_fini(&table->by_name);
    hmap_fini(&table->by_members);
    table->name_count = 0;
    table->set_count = 1;
    table->member_count = 0;
}

void
fields_fini(struct field_table *table)
{
    free_contents(table);
    free(table->names);
    free(table->sets);
    free(table->scratch);
    free(table->cache);
    *table = (struct field_table){0};
}

void
fields_reset(struct field_table *table)
{
    free_contents(table);
    memset(table->cache, 0, FIELD_CACHE_SLOTS * sizeof *table->cache);
}

static struct field_name *
find_name(const struct field_table *table, struct ds_slice name, uint64_t hash)
{
    struct hmap_node *node = hmap_chain(&table->by_name, hash);
    for (; node != NULL; node = node->next) {
        struct field_name *field = CONTAINER_OF(node, struct field_name, node);
        if (node->hash == hash && slice_equal(name, slice(field->text, field->len)))
            return field;
    }
    return NULL;
}

bool
fields_find(const struct field_table *table, struct ds_slice name, struct field_no *out)
{
    struct field_name *field = find_name(table, name, hash_slice(name));
    if (field == NULL)
        return false;
    *out = field->number;
    return true;
}

/* `array` with room for one more element of `size` bytes; NULL when out of memory, with
 * the array as it was. */
static void *
grow(void *array, uint32_t *capacity, uint32_t count, size_t size)
{
    if (count < *capacity)
        return array;
    uint32_t wanted = *capacity < 8 ? 16 : *capacity * 2;
    void *grown = realloc(array, wanted * size);
    if (grown != NULL)
        *capacity = wanted;
    return grown;
}

static bool
reserve_name(struct field_table *table)
{
    uint32_t count = table->name_count;
    void *names =
        grow(table->names, &table->name_capacity, count, sizeof(struct field_name *));
    if (names == NULL)
        return false;
    table->names = names;
    void *scratch = grow(table->scratch, &table->scratch_capacity, count + 1,
                         sizeof(struct field_no));
    if (scratch == NULL)
        return false;
    table->scratch = scratch;
    return hmap_reserve(&table->by_name, count + 1u);
}

enum ds_status
fields_intern(struct field_table *table, struct ds_slice name, struct field_no *out,
              struct ds_error *err)
{
    DS_ASSERT(name.len > 0 && name.len <= UINT32_MAX);
    uint64_t hash = hash_slice(name);
    struct field_name *field = find_name(table, name, hash);
    if (field != NULL) {
        *out = field->number;
        return DS_OK;
    }
    if (table->name_count >= table->limits.names_max)
        return ds_fail(err, DS_FULL,
                       "the queue knows %u names of fields, the most it may; use fewer "
                       "names, or clear all rows",
                       table->name_count);
    if (!reserve_name(table))
        return fail_memory(err);
    field = malloc(sizeof *field + name.len);
    if (field == NULL)
        return fail_memory(err);
    *field =
        (struct field_name){.number = {table->name_count}, .len = (uint32_t)name.len};
    memcpy(field->text, name.data, name.len);
    bool inserted = hmap_insert(&table->by_name, &field->node, hash);
    DS_ASSERT(inserted);
    table->names[table->name_count++] = field;
    *out = field->number;
    return DS_OK;
}

struct ds_slice
fields_name(const struct field_table *table, struct field_no field)
{
    DS_ASSERT(field.value < table->name_count);
    const struct field_name *name = table->names[field.value];
    return slice(name->text, name->len);
}

const struct field_no *
fields_members(const struct field_table *table, struct field_set set,
               uint32_t *out_count)
{
    DS_ASSERT(set.value < table->set_count);
    if (field_set_is_empty(set)) {
        *out_count = 0;
        return NULL;
    }
    *out_count = table->sets[set.value]->count;
    return table->sets[set.value]->fields;
}

static struct field_members *
find_members(const struct field_table *table, const struct field_no *fields,
             uint32_t count, uint64_t hash)
{
    struct hmap_node *node = hmap_chain(&table->by_members, hash);
    for (; node != NULL; node = node->next) {
        struct field_members *set = CONTAINER_OF(node, struct field_members, node);
        if (node->hash == hash && set->count == count &&
            memcmp(set->fields, fields, count * sizeof *fields) == 0)
            return set;
    }
    return NULL;
}

static bool
reserve_set(struct field_table *table)
{
    void *sets = grow(table->sets, &table->set_capacity, table->set_count,
                      sizeof(struct field_members *));
    if (sets == NULL)
        return false;
    table->sets = sets;
    return hmap_reserve(&table->by_members, table->set_count);
}

static enum ds_status
add_set(struct field_table *table, const struct field_no *fields, uint32_t count,
        uint64_t hash, struct field_set *out, struct ds_error *err)
{
    if (table->member_count + count > table->limits.members_max)
        return ds_fail(err, DS_FULL,
                       "the queue knows %u different combinations of fields, the most "
                       "it may; put the same fields together, or clear all rows",
                       table->set_count);
    if (!reserve_set(table))
        return fail_memory(err);
    struct field_members *set = malloc(sizeof *set + count * sizeof *fields);
    if (set == NULL)
        return fail_memory(err);
    *set = (struct field_members){.number = {table->set_count}, .count = count};
    memcpy(set->fields, fields, count * sizeof *fields);
    bool inserted = hmap_insert(&table->by_members, &set->node, hash);
    DS_ASSERT(inserted);
    table->sets[table->set_count++] = set;
    table->member_count += count;
    *out = set->number;
    return DS_OK;
}

/* The set with these ascending members. */
static enum ds_status
intern_set(struct field_table *table, const struct field_no *fields, uint32_t count,
           struct field_set *out, struct ds_error *err)
{
    if (count == 0) {
        *out = (struct field_set){0};
        return DS_OK;
    }
    uint64_t hash = hash_bytes(fields, count * sizeof *fields);
    struct field_members *set = find_members(table, fields, count, hash);
    if (set == NULL)
        return add_set(table, fields, count, hash, out, err);
    *out = set->number;
    return DS_OK;
}

static int
compare_numbers(const void *a, const void *b)
{
    uint32_t left = ((const struct field_no *)a)->value;
    uint32_t right = ((const struct field_no *)b)->value;
    return left < right ? -1 : left > right;
}

enum ds_status
fields_make_set(struct field_table *table, struct field_no *fields, uint32_t count,
                struct field_set *out, struct ds_error *err)
{
    if (count > 0)
        qsort(fields, count, sizeof *fields, compare_numbers);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        DS_ASSERT(fields[i].value < table->name_count);
        if (kept == 0 || fields[kept - 1].value != fields[i].value)
            fields[kept++] = fields[i];
    }
    return intern_set(table, fields, kept, out, err);
}

/* Merges two ascending lists into `scratch` as the operation says; returns the count.
 */
static uint32_t
merge(struct field_table *table, enum operation operation, struct field_set a,
      struct field_set b)
{
    uint32_t a_count;
    uint32_t b_count;
    const struct field_no *left = fields_members(table, a, &a_count);
    const struct field_no *right = fields_members(table, b, &b_count);
    uint32_t i = 0;
    uint32_t j = 0;
    uint32_t count = 0;
    while (i < a_count || j < b_count) {
        bool in_left = i < a_count && (j == b_count || left[i].value <= right[j].value);
        bool in_right =
            j < b_count && (i == a_count || right[j].value <= left[i].value);
        struct field_no field = in_left ? left[i] : right[j];
        bool keep = operation == UNITE ||
                    (operation == INTERSECT && in_left && in_right) ||
                    (operation == SUBTRACT && in_left && !in_right);
        i += in_left;
        j += in_right;
        if (keep)
            table->scratch[count++] = field;
    }
    DS_ASSERT(count <= table->scratch_capacity);
    return count;
}

static enum ds_status
operate(struct field_table *table, enum operation operation, struct field_set a,
        struct field_set b, struct field_set *out, struct ds_error *err)
{
    DS_ASSERT(!field_set_is_empty(a));
    uint64_t hash = hash_combine(hash_combine(operation, a.value), b.value);
    struct field_result *slot = &table->cache[(hash >> 32) % FIELD_CACHE_SLOTS];
    if (slot->left != a.value || slot->right != b.value ||
        slot->operation != (uint32_t)operation) {
        struct field_set result;
        uint32_t count = merge(table, operation, a, b);
        enum ds_status status = intern_set(table, table->scratch, count, &result, err);
        if (status != DS_OK)
            return status;
        *slot = (struct field_result){a.value, b.value, operation, result};
    }
    *out = slot->result;
    return DS_OK;
}

enum ds_status
fields_unite(struct field_table *table, struct field_set a, struct field_set b,
             struct field_set *out, struct ds_error *err)
{
    if (field_set_is_empty(a) || field_set_equal(a, b)) {
        *out = b;
        return DS_OK;
    }
    return operate(table, UNITE, a, b, out, err);
}

enum ds_status
fields_intersect(struct field_table *table, struct field_set a, struct field_set b,
                 struct field_set *out, struct ds_error *err)
{
    if (field_set_is_empty(a) || field_set_equal(a, b)) {
        *out = a;
        return DS_OK;
    }
    return operate(table, INTERSECT, a, b, out, err);
}

enum ds_status
fields_subtract(struct field_table *table, struct field_set a, struct field_set b,
                struct field_set *out, struct ds_error *err)
{
    if (field_set_is_empty(a) || field_set_equal(a, b)) {
        *out = (struct field_set){0};
        return DS_OK;
    }
    return operate(table, SUBTRACT, a, b, out, err);
}

static int
compare_names(const void *a, const void *b, void *arg)
{
    const struct field_table *table = arg;
    struct ds_slice left = fields_name(table, *(const struct field_no *)a);
    struct ds_slice right = fields_name(table, *(const struct field_no *)b);
    size_t common = left.len < right.len ? left.len : right.len;
    int order = memcmp(left.data, right.data, common);
    return order != 0 ? order : (left.len > right.len) - (left.len < right.len);
}

void
fields_sort_by_name(const struct field_table *table, struct field_set set,
                    struct field_no *out)
{
    uint32_t count;
    const struct field_no *members = fields_members(table, set, &count);
    if (count == 0)
        return;
    memcpy(out, members, count * sizeof *out);
    qsort_r(out, count, sizeof *out, compare_names, (void *)(uintptr_t)table);
}

void
fields_check(const struct field_table *table)
{
    uint64_t members = 0;
    for (uint32_t i = 1; i < table->set_count; i++) {
        const struct field_members *set = table->sets[i];
        DS_ASSERT(set->number.value == i);
        DS_ASSERT(set->count > 0);
        for (uint32_t j = 0; j < set->count; j++) {
            DS_ASSERT(set->fields[j].value < table->name_count);
            DS_ASSERT(j == 0 || set->fields[j - 1].value < set->fields[j].value);
        }
        members += set->count;
    }
    DS_ASSERT(members == table->member_count);
    DS_ASSERT(table->by_members.count == table->set_count - 1);
    DS_ASSERT(table->by_name.count == table->name_count);
}
