/* Client's methods on objects by key. */
#include "arguments.h"
#include "client.h"
#include "results.h"

#include <string.h>

CLIENT_METHOD(client_put)
{
    static char *names[] = {"key",        "value", "ttl_seconds", "only_if_absent",
                            "write_mode", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *key_object, *value_object;
    struct set_arguments arguments = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO&pi:put", names, &key_object,
                                     &value_object, parse_u32, &arguments.ttl_seconds,
                                     &arguments.only_if_absent, &arguments.write_mode))
        return NULL;

    struct ds_set_options options;
    struct ds_slice key;
    AUTO(value) struct value value = {0};
    if (!set_options_open(state, &arguments, &options) || !key_open(key_object, &key) ||
        !value_open(value_object, &value))
        return NULL;

    struct call call = {
        .action = "DS_KV_CLIENT_SET", .item_count = 1, .bytes = value.bytes.len};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status =
        CALL(&call, ds_put(call.handle, key, value.bytes, &options, &call.err));
    return call_none_or_raise(&call, status);
}

/* Create, fill and seal in one go. `handles` has room for them all. */
static enum ds_status
copy_in(struct ds_client *client, const struct keys *keys, const struct values *values,
        const uint64_t *sizes, const struct ds_set_options *options,
        struct ds_buffer **handles, struct ds_error *err)
{
    enum ds_status status =
        ds_create(client, keys->items, sizes, keys->count, options, handles, err);
    if (status != DS_OK)
        return status;
    for (size_t i = 0; i < keys->count; i++) {
        struct ds_slice bytes = values->items[i].bytes;
        status = ds_buffer_write(handles[i], bytes.data, bytes.len, err);
        if (status != DS_OK)
            return status;
    }
    return ds_seal(client, handles, keys->count, err);
}

static PyObject *
copy_all(PyObject *self, const struct keys *keys, const struct values *values,
         const struct ds_set_options *options)
{
    AUTO(handles) struct handles handles = {0};
    AUTO(sizes) struct sizes sizes = {0};
    sizes.items = array_new(keys->count, sizeof *sizes.items);
    if (sizes.items == NULL || !handles_open(keys->count, &handles))
        return NULL;
    sizes.count = keys->count;
    for (size_t i = 0; i < keys->count; i++)
        sizes.items[i] = values->items[i].bytes.len;

    struct call call = {.action = "DS_KV_CLIENT_MSET",
                        .item_count = keys->count,
                        .bytes = sizes_total(&sizes)};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status = CALL(&call, copy_in(call.handle, keys, values, sizes.items,
                                                options, handles.items, &call.err));
    return call_none_or_raise(&call, status);
}

CLIENT_METHOD(client_put_many)
{
    static char *names[] = {"keys",           "values",     "ttl_seconds",
                            "only_if_absent", "write_mode", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *keys_object, *values_object;
    struct set_arguments arguments = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO&pi:put_many", names,
                                     &keys_object, &values_object, parse_u32,
                                     &arguments.ttl_seconds, &arguments.only_if_absent,
                                     &arguments.write_mode))
        return NULL;

    struct ds_set_options options;
    AUTO(keys) struct keys keys = {0};
    AUTO(values) struct values values = {0};
    if (!set_options_open(state, &arguments, &options) ||
        !keys_open(state, keys_object, &keys) || !values_open(values_object, &values))
        return NULL;
    if (keys.count != values.count)
        return raise_text(state, DS_INVALID,
                          "The number of key and value is not the same.");
    return copy_all(self, &keys, &values, &options);
}

CLIENT_METHOD(client_create)
{
    static char *names[] = {"keys",           "sizes",      "ttl_seconds",
                            "only_if_absent", "write_mode", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *keys_object, *sizes_object;
    struct set_arguments arguments = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO&pi:create", names, &keys_object,
                                     &sizes_object, parse_u32, &arguments.ttl_seconds,
                                     &arguments.only_if_absent, &arguments.write_mode))
        return NULL;

    struct ds_set_options options;
    AUTO(keys) struct keys keys = {0};
    AUTO(sizes) struct sizes sizes = {0};
    AUTO(handles) struct handles handles = {0};
    if (!set_options_open(state, &arguments, &options) ||
        !keys_open(state, keys_object, &keys) || !sizes_open(sizes_object, &sizes) ||
        !handles_open(keys.count, &handles))
        return NULL;
    if (keys.count != sizes.count)
        return raise_text(state, DS_INVALID,
                          "The number of key and size is not the same.");

    struct call call = {.action = "DS_KV_CLIENT_MCREATE",
                        .item_count = keys.count,
                        .bytes = sizes_total(&sizes)};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status =
        CALL(&call, ds_create(call.handle, keys.items, sizes.items, keys.count,
                              &options, handles.items, &call.err));
    if (status != DS_OK)
        return call_raise(&call, status);
    return handles_to_list(state, &handles);
}

CLIENT_METHOD(client_seal)
{
    static char *names[] = {"buffers", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *buffers;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:seal", names, &buffers))
        return NULL;
    AUTO(sealing) struct sealing sealing = {0};
    if (!sealing_open(state, buffers, &sealing))
        return NULL;

    struct call call = {.action = "DS_KV_CLIENT_MSET_BUFFER",
                        .item_count = sealing.count};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status =
        CALL(&call, ds_seal(call.handle, sealing.items, sealing.count, &call.err));
    return call_none_or_raise(&call, status);
}

/* ---- Reading ----------------------------------------------------------------- */

static enum ds_status
get(struct call *call, const struct keys *keys, uint32_t wait_ms,
    struct handles *handles)
{
    enum ds_status status = ds_get(call->handle, keys->items, keys->count, wait_ms,
                                   handles->items, &call->err);
    call->bytes = handles_bytes(handles);
    return status;
}

/* What get() and get_bytes() share: `handles` answers the keys in `args`. */
static bool
look_up(PyObject *self, PyObject *args, PyObject *kwargs, struct handles *handles)
{
    static char *names[] = {"keys", "wait_ms", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *keys_object;
    uint32_t wait_ms;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO&:get", names, &keys_object,
                                     parse_u32, &wait_ms))
        return false;
    AUTO(keys) struct keys keys = {0};
    if (!keys_open(state, keys_object, &keys) || !handles_open(keys.count, handles))
        return false;

    struct call call = {.action = "DS_KV_CLIENT_GET", .item_count = keys.count};
    if (!call_begin(self, &call))
        return false;
    enum ds_status status = CALL(&call, get(&call, &keys, wait_ms, handles));
    if (status != DS_OK)
        call_raise(&call, status);
    return status == DS_OK;
}

CLIENT_METHOD(client_get)
{
    AUTO(handles) struct handles handles = {0};
    if (!look_up(self, args, kwargs, &handles))
        return NULL;
    return handles_to_list(core_state_of(self), &handles);
}

/* New bytes objects of the right sizes, to be filled; None where there is none. */
static PyObject *
blank_copies(const struct handles *handles)
{
    AUTO(object) PyObject *list = PyList_New((Py_ssize_t)handles->count);
    if (list == NULL)
        return NULL;
    for (size_t i = 0; i < handles->count; i++) {
        struct ds_buffer *handle = handles->items[i];
        PyObject *copy =
            handle == NULL
                ? Py_NewRef(Py_None)
                : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)ds_buffer_size(handle));
        if (copy == NULL)
            return NULL;
        PyList_SET_ITEM(list, (Py_ssize_t)i, copy);
    }
    return TAKE(list);
}

CLIENT_METHOD(client_get_bytes)
{
    AUTO(handles) struct handles handles = {0};
    if (!look_up(self, args, kwargs, &handles))
        return NULL;
    AUTO(object) PyObject *list = blank_copies(&handles);
    if (list == NULL)
        return NULL;
    gil_release(); /* Nobody else knows the list or the bytes yet. */
    for (size_t i = 0; i < handles.count; i++) {
        PyObject *copy = PyList_GET_ITEM(list, (Py_ssize_t)i);
        if (handles.items[i] != NULL)
            memcpy(PyBytes_AS_STRING(copy), ds_buffer_data(handles.items[i]),
                   ds_buffer_size(handles.items[i]));
    }
    gil_take();
    return TAKE(list);
}

CLIENT_METHOD(client_get_range)
{
    static char *names[] = {"key", "offset", "size", "wait_ms", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *key_object;
    uint64_t offset, size;
    uint32_t wait_ms;
    struct ds_slice key;
    AUTO(handles) struct handles handles = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO&O&O&:get_range", names,
                                     &key_object, parse_u64, &offset, parse_u64, &size,
                                     parse_u32, &wait_ms) ||
        !key_open(key_object, &key) || !handles_open(1, &handles))
        return NULL;

    struct call call = {.action = "DS_KV_CLIENT_READ", .item_count = 1};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status =
        CALL(&call, ds_get_range(call.handle, key, offset, size, wait_ms, handles.items,
                                 &call.err));
    if (status != DS_OK)
        return call_raise(&call, status);
    return buffer_wrap(state, &handles.items[0]);
}

/* ---- The rest ---------------------------------------------------------------- */

CLIENT_METHOD(client_delete)
{
    static char *names[] = {"keys", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *keys_object;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:delete", names, &keys_object))
        return NULL;
    AUTO(keys) struct keys keys = {0};
    if (!keys_open(state, keys_object, &keys))
        return NULL;

    struct call call = {.action = "DS_KV_CLIENT_DELETE", .item_count = keys.count};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status =
        CALL(&call, ds_delete(call.handle, keys.items, keys.count, &call.err));
    return call_none_or_raise(&call, status);
}

CLIENT_METHOD(client_exist)
{
    static char *names[] = {"keys", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *keys_object;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:exist", names, &keys_object))
        return NULL;
    AUTO(keys) struct keys keys = {0};
    AUTO(flags) struct flags found = {0};
    if (!keys_open(state, keys_object, &keys) || !flags_open(keys.count, &found))
        return NULL;

    struct call call = {.action = "DS_KV_CLIENT_EXIST", .item_count = keys.count};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status = CALL(
        &call, ds_exist(call.handle, keys.items, keys.count, found.items, &call.err));
    if (status != DS_OK)
        return call_raise(&call, status);
    return flags_to_list(&found);
}

CLIENT_METHOD(client_expire)
{
    static char *names[] = {"keys", "ttl_seconds", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *keys_object;
    uint32_t ttl_seconds;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO&:expire", names, &keys_object,
                                     parse_u32, &ttl_seconds))
        return NULL;
    AUTO(keys) struct keys keys = {0};
    AUTO(flags) struct flags found = {0};
    if (!keys_open(state, keys_object, &keys) || !flags_open(keys.count, &found))
        return NULL;

    struct call call = {.action = "DS_KV_CLIENT_EXPIRE", .item_count = keys.count};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status = CALL(&call, ds_expire(call.handle, keys.items, keys.count,
                                                  ttl_seconds, found.items, &call.err));
    if (status != DS_OK)
        return call_raise(&call, status);
    return flags_to_list(&found);
}
