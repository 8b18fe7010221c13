/* From Python's arguments to the library's, once per call: counted, checked, and kept
 * alive while the GIL is away. Each x_open() has set an exception when it returns
 * false; each x_auto() accepts what x_open() left half-built. */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include "buffer.h"

/* "O&" converters for integers that must fit; OverflowError otherwise. */
int parse_u16(PyObject *object, void *out);
int parse_u32(PyObject *object, void *out);
int parse_u64(PyObject *object, void *out);

/* What is common to a set: how long it lives, and how it treats what is there. */
struct set_arguments {
    unsigned ttl_seconds;
    int only_if_absent;
    int write_mode;
};

bool
set_options_open(const struct core_state *state, const struct set_arguments *arguments,
                 struct ds_set_options *out);

/* Non-empty keys; the slices borrow from the strings in `owner`. The library checks the
 * rest of the rules. */
struct keys {
    PyObject *owner;
    struct ds_slice *items;
    size_t count;
};

bool keys_open(const struct core_state *state, PyObject *object, struct keys *out);
void keys_auto(struct keys *keys);

/* One key, borrowed from `object`. */
bool key_open(PyObject *object, struct ds_slice *out);

/* The bytes of a str or of an object with the buffer protocol. Bytes that are not
 * contiguous are copied; otherwise `bytes` borrows from the object. */
struct value {
    Py_buffer view;
    void *copy;
    struct ds_slice bytes;
};

bool value_open(PyObject *object, struct value *out);
void value_auto(struct value *value);

struct values {
    struct value *items;
    size_t count;
};

bool values_open(PyObject *object, struct values *out);
void values_auto(struct values *values);

/* A sequence of integers of 64 or 32 bits. */
struct sizes {
    uint64_t *items;
    size_t count;
};

bool sizes_open(PyObject *object, struct sizes *out);
void sizes_auto(struct sizes *sizes);
uint64_t sizes_total(const struct sizes *sizes);

struct indexes {
    uint32_t *items;
    size_t count;
};

bool indexes_open(PyObject *object, struct indexes *out);
void indexes_auto(struct indexes *indexes);

struct block_ids {
    struct ds_block_id *items;
    size_t count;
};

bool block_ids_open(PyObject *object, struct block_ids *out);
void block_ids_auto(struct block_ids *ids);

/* Buffers about to be sealed: held, and marked so that no second seal runs into it. */
struct sealing {
    PyObject *owner;
    struct ds_buffer **items;
    size_t count; /* Of those marked so far. */
};

bool
sealing_open(const struct core_state *state, PyObject *object, struct sealing *out);
void sealing_auto(struct sealing *sealing);

/* calloc() that raises MemoryError; to be freed with PyMem_RawFree(). */
void *array_new(size_t count, size_t item_bytes);

#endif
