/* Client's methods on objects by key. */
#include "arguments.h"
#include "client.h"

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
    if (!set_options_open(state, &arguments, &options) ||
        !key_open(state, key_object, &key) || !value_open(state, value_object, &value))
        return NULL;

    struct client *client = client_enter(self);
    if (client == NULL)
        return NULL;
    struct ds_error err = {0};
    enum ds_status status = CLIENT_CALL(
        client, &err, ds_put(client->handle, key, value.bytes, &options, &err));
    return none_or_raise(state, status, &err);
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
        memcpy(ds_buffer_data(handles[i]), bytes.data, bytes.len);
    }
    return ds_seal(client, handles, keys->count, err);
}

static PyObject *
put_many(PyObject *self, const struct keys *keys, const struct values *values,
         const struct ds_set_options *options)
{
    const struct core_state *state = core_state_of(self);
    AUTO(handles) struct handles handles = {0};
    AUTO(sizes) struct sizes sizes = {0};
    sizes.items = array_new(keys->count, sizeof *sizes.items);
    if (sizes.items == NULL || !handles_open(keys->count, &handles))
        return NULL;
    for (size_t i = 0; i < keys->count; i++)
        sizes.items[i] = values->items[i].bytes.len;

    struct client *client = client_enter(self);
    if (client == NULL)
        return NULL;
    struct ds_error err = {0};
    enum ds_status status =
        CLIENT_CALL(client, &err,
                    copy_in(client->handle, keys, values, sizes.items, options,
                            handles.items, &err));
    return none_or_raise(state, status, &err);
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
        !keys_open(state, keys_object, DS_BATCH_KEYS_MAX, &keys) ||
        !values_open(state, values_object, &values))
        return NULL;
    if (keys.count != values.count)
        return raise_text(state, DS_INVALID,
                          "The number of key and value is not the same.");
    return put_many(self, &keys, &values, &options);
}

/* Sizes that the library would refuse, with the words that users know. */
static bool
sizes_check(const struct core_state *state, const struct keys *keys,
            const struct sizes *sizes)
{
    if (keys->count != sizes->count) {
        raise_text(state, DS_INVALID, "The number of key and size is not the same.");
        return false;
    }
    for (size_t i = 0; i < sizes->count; i++) {
        if (sizes->items[i] == 0) {
            raise_text(state, DS_INVALID,
                       "The dataSize value should be bigger than zero.");
            return false;
        }
    }
    return true;
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
        !keys_open(state, keys_object, DS_BATCH_KEYS_MAX, &keys) ||
        !sizes_open(sizes_object, &sizes) || !sizes_check(state, &keys, &sizes) ||
        !handles_open(keys.count, &handles))
        return NULL;

    struct client *client = client_enter(self);
    if (client == NULL)
        return NULL;
    struct ds_error err = {0};
    enum ds_status status =
        CLIENT_CALL(client, &err,
                    ds_create(client->handle, keys.items, sizes.items, keys.count,
                              &options, handles.items, &err));
    if (status != DS_OK)
        return raise_status(state, status, &err);
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

    struct client *client = client_enter(self);
    if (client == NULL)
        return NULL;
    struct ds_error err = {0};
    enum ds_status status = CLIENT_CALL(
        client, &err, ds_seal(client->handle, sealing.items, sealing.count, &err));
    return none_or_raise(state, status, &err);
}

/* ---- Reading ----------------------------------------------------------------- */

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
    if (!keys_open(state, keys_object, DS_BATCH_KEYS_MAX, &keys) ||
        !handles_open(keys.count, handles))
        return false;

    struct client *client = client_enter(self);
    if (client == NULL)
        return false;
    struct ds_error err = {0};
    enum ds_status status = CLIENT_CALL(
        client, &err,
        ds_get(client->handle, keys.items, keys.count, wait_ms, handles->items, &err));
    if (status != DS_OK)
        raise_status(state, status, &err);
    return status == DS_OK;
}

CLIENT_METHOD(client_get)
{
    AUTO(handles) struct handles handles = {0};
    if (!look_up(self, args, kwargs, &handles))
        return NULL;
    return handles_to_list(core_state_of(self), &handles);
}

/* New bytes objects of the right sizes, still to be filled; None where there is none.
 */
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
        !key_open(state, key_object, &key) || !handles_open(1, &handles))
        return NULL;

    struct client *client = client_enter(self);
    if (client == NULL)
        return NULL;
    struct ds_error err = {0};
    enum ds_status status = CLIENT_CALL(
        client, &err,
        ds_get_range(client->handle, key, offset, size, wait_ms, handles.items, &err));
    if (status != DS_OK)
        return raise_status(state, status, &err);
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
    if (!keys_open(state, keys_object, DS_BATCH_KEYS_MAX, &keys))
        return NULL;

    struct client *client = client_enter(self);
    if (client == NULL)
        return NULL;
    struct ds_error err = {0};
    enum ds_status status = CLIENT_CALL(
        client, &err, ds_delete(client->handle, keys.items, keys.count, &err));
    return none_or_raise(state, status, &err);
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
    if (!keys_open(state, keys_object, DS_EXIST_KEYS_MAX, &keys) ||
        !flags_open(keys.count, &found))
        return NULL;

    struct client *client = client_enter(self);
    if (client == NULL)
        return NULL;
    struct ds_error err = {0};
    enum ds_status status = CLIENT_CALL(
        client, &err,
        ds_exist(client->handle, keys.items, keys.count, found.items, &err));
    if (status != DS_OK)
        return raise_status(state, status, &err);
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
    if (!keys_open(state, keys_object, DS_BATCH_KEYS_MAX, &keys) ||
        !flags_open(keys.count, &found))
        return NULL;

    struct client *client = client_enter(self);
    if (client == NULL)
        return NULL;
    struct ds_error err = {0};
    enum ds_status status =
        CLIENT_CALL(client, &err,
                    ds_expire(client->handle, keys.items, keys.count, ttl_seconds,
                              found.items, &err));
    if (status != DS_OK)
        return raise_status(state, status, &err);
    return flags_to_list(&found);
}
