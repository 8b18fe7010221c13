/* Fields and sets of fields as small numbers.
 *
 * Every field name and every set that occurs is kept once. Rows and blocks carry sets
 * by number, so that comparing two sets is comparing two integers, and putting a
 * thousand rows with ten fields costs a thousand steps, not ten thousand. A small cache
 * of recent results makes union, intersection and difference a look-up for all rows but
 * the first.
 *
 * Numbers live until fields_reset(). What is interned for a request that then fails
 * stays interned; nobody can see it.
 *
 * Invariants: members of a set are ascending, without repeats; set 0 is the empty one;
 * no two sets have the same members; `scratch` has room for one more than any set.
 * Owner: the queue. */
#ifndef QUEUE_FIELD_H
#define QUEUE_FIELD_H

#include "base/hmap.h"

#include <datasystem/datasystem.h>

struct field_no {
    uint32_t value;
};

struct field_set {
    uint32_t value; /* 0: no field. */
};

struct field_limits {
    uint32_t names_max;
    uint64_t members_max; /* Of all sets together. */
};

enum { FIELD_CACHE_SLOTS = 4096 };

/* What an operation on two sets gave; valid when `left` is not 0. */
struct field_result {
    uint32_t left;
    uint32_t right;
    uint32_t operation;
    struct field_set result;
};

struct field_name;
struct field_members;

struct field_table {
    struct field_limits limits;
    struct hmap by_name;
    struct field_name **names; /* By number. */
    uint32_t name_count;
    uint32_t name_capacity;
    struct hmap by_members;
    struct field_members **sets; /* By number; [0] is NULL. */
    uint32_t set_count;
    uint32_t set_capacity;
    uint64_t member_count;
    struct field_no *scratch;
    uint32_t scratch_capacity;
    struct field_result *cache; /* FIELD_CACHE_SLOTS. */
};

/* DS_NO_MEMORY. */
DS_MUST_USE enum ds_status
fields_init(struct field_table *table, const struct field_limits *limits,
            struct ds_error *err);

/* Accepts a table of zeros. */
void fields_fini(struct field_table *table);

/* Forgets all names and sets. No number may be in use. */
void fields_reset(struct field_table *table);

/* The number of this name, a new one if need be.
 *   DS_FULL, DS_NO_MEMORY */
DS_MUST_USE enum ds_status
fields_intern(struct field_table *table, struct ds_slice name, struct field_no *out,
              struct ds_error *err);

/* False when nobody ever interned this name. */
bool fields_find(const struct field_table *table, struct ds_slice name,
                 struct field_no *out);

struct ds_slice fields_name(const struct field_table *table, struct field_no field);

/* The set of these fields. Sorts `fields`; repeats are taken once.
 *   DS_FULL, DS_NO_MEMORY */
DS_MUST_USE enum ds_status
fields_make_set(struct field_table *table, struct field_no *fields, uint32_t count,
                struct field_set *out, struct ds_error *err);

/* Members in ascending order of number; borrowed until fields_reset(). */
const struct field_no *fields_members(const struct field_table *table,
                                      struct field_set set, uint32_t *out_count);

/* Members in the order of their names, into an array with room for all of them. */
void fields_sort_by_name(const struct field_table *table, struct field_set set,
                         struct field_no *out);

/* Operations on sets. They fail only when the result never occurred before:
 *   DS_FULL, DS_NO_MEMORY
 * So an operation that was done once can be done again without failing. */
DS_MUST_USE enum ds_status
fields_unite(struct field_table *table, struct field_set a, struct field_set b,
             struct field_set *out, struct ds_error *err);
DS_MUST_USE enum ds_status
fields_intersect(struct field_table *table, struct field_set a, struct field_set b,
                 struct field_set *out, struct ds_error *err);
DS_MUST_USE enum ds_status
fields_subtract(struct field_table *table, struct field_set a, struct field_set b,
                struct field_set *out, struct ds_error *err);

static inline bool
field_set_is_empty(struct field_set set)
{
    return set.value == 0;
}

static inline bool
field_set_equal(struct field_set a, struct field_set b)
{
    return a.value == b.value;
}

/* Walks the whole table; aborts on a broken invariant. */
void fields_check(const struct field_table *table);

#endif
