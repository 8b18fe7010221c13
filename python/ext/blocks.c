/* Client's methods on blocks. */
#include "arguments.h"
#include "client.h"
#include "results.h"

CLIENT_METHOD(client_block_create)
{
    static char *names[] = {"sizes", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *sizes_object;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:block_create", names,
                                     &sizes_object))
        return NULL;
    AUTO(sizes) struct sizes sizes = {0};
    AUTO(handles) struct handles handles = {0};
    if (!sizes_open(sizes_object, &sizes) || !handles_open(sizes.count, &handles))
        return NULL;

    struct call call = {.action = "DS_BLOCK_CLIENT_CREATE",
                        .item_count = sizes.count,
                        .bytes = sizes_total(&sizes)};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status =
        CALL(&call, ds_block_create(call.handle, sizes.items, sizes.count,
                                    handles.items, &call.err));
    if (status != DS_OK)
        return call_raise(&call, status);
    return handles_to_list(state, &handles);
}

/* The blocks whose parts have these sizes, one after the other. They borrow them. */
static struct ds_block_sizes *
divide(const struct core_state *state, const struct sizes *sizes,
       const struct indexes *counts)
{
    struct ds_block_sizes *blocks = array_new(counts->count, sizeof *blocks);
    size_t at = 0;
    for (size_t i = 0; blocks != NULL && i < counts->count; i++) {
        size_t left = sizes->count - at;
        blocks[i] = (struct ds_block_sizes){sizes->items + at, counts->items[i]};
        at += counts->items[i] <= left ? counts->items[i] : left + 1;
        if (at > sizes->count)
            break;
    }
    if (blocks == NULL || at == sizes->count)
        return blocks;
    PyMem_RawFree(blocks);
    (void)raise_text(state, DS_INVALID, "The counts of parts do not add up to %zu.",
                     sizes->count);
    return NULL;
}

CLIENT_METHOD(client_blocks_create)
{
    static char *names[] = {"sizes", "counts", "room_wait_ms", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *sizes_object, *counts_object;
    uint32_t room_wait_ms;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO&:blocks_create", names,
                                     &sizes_object, &counts_object, parse_u32,
                                     &room_wait_ms))
        return NULL;
    AUTO(sizes) struct sizes sizes = {0};
    AUTO(indexes) struct indexes counts = {0};
    AUTO(handles) struct handles handles = {0};
    if (!sizes_open(sizes_object, &sizes) || !indexes_open(counts_object, &counts) ||
        !handles_open(sizes.count, &handles))
        return NULL;
    struct ds_block_sizes *blocks = divide(state, &sizes, &counts);
    if (blocks == NULL)
        return NULL;

    struct call call = {.action = "DS_BLOCK_CLIENT_CREATE",
                        .item_count = sizes.count,
                        .bytes = sizes_total(&sizes)};
    enum ds_status status = DS_INVALID;
    bool begun = call_begin(self, &call);
    if (begun)
        status = CALL(&call, ds_blocks_create(call.handle, blocks, counts.count,
                                              room_wait_ms, handles.items, &call.err));
    PyMem_RawFree(blocks);
    if (!begun)
        return NULL;
    if (status != DS_OK)
        return call_raise(&call, status);
    return handles_to_list(state, &handles);
}

CLIENT_METHOD(client_block_seal)
{
    static char *names[] = {"parts", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *parts;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:block_seal", names, &parts))
        return NULL;
    AUTO(sealing) struct sealing sealing = {0};
    if (!sealing_open(state, parts, &sealing))
        return NULL;

    struct call call = {.action = "DS_BLOCK_CLIENT_SEAL", .item_count = sealing.count};
    if (!call_begin(self, &call))
        return NULL;
    struct ds_block_id id;
    enum ds_status status = CALL(&call, ds_block_seal(call.handle, sealing.items,
                                                      sealing.count, &id, &call.err));
    if (status != DS_OK)
        return call_raise(&call, status);
    return PyBytes_FromStringAndSize((const char *)id.bytes, sizeof id.bytes);
}

static enum ds_status
get(struct call *call, const struct block_ids *ids, const struct indexes *parts,
    struct handles *handles)
{
    enum ds_status status = ds_block_get(call->handle, ids->items, parts->items,
                                         ids->count, handles->items, &call->err);
    call->bytes = handles_bytes(handles);
    return status;
}

CLIENT_METHOD(client_block_get)
{
    static char *names[] = {"ids", "parts", NULL};
    const struct core_state *state = core_state_of(self);
    PyObject *ids_object, *parts_object;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:block_get", names, &ids_object,
                                     &parts_object))
        return NULL;
    AUTO(block_ids) struct block_ids ids = {0};
    AUTO(indexes) struct indexes parts = {0};
    AUTO(handles) struct handles handles = {0};
    if (!block_ids_open(ids_object, &ids) || !indexes_open(parts_object, &parts) ||
        !handles_open(ids.count, &handles))
        return NULL;
    if (ids.count != parts.count)
        return raise_text(state, DS_INVALID, "%zu block ids but %zu parts.", ids.count,
                          parts.count);

    struct call call = {.action = "DS_BLOCK_CLIENT_GET", .item_count = ids.count};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status = CALL(&call, get(&call, &ids, &parts, &handles));
    if (status != DS_OK)
        return call_raise(&call, status);
    return handles_to_list(state, &handles);
}

CLIENT_METHOD(client_block_delete)
{
    static char *names[] = {"ids", NULL};
    PyObject *ids_object;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:block_delete", names,
                                     &ids_object))
        return NULL;
    AUTO(block_ids) struct block_ids ids = {0};
    if (!block_ids_open(ids_object, &ids))
        return NULL;

    struct call call = {.action = "DS_BLOCK_CLIENT_DELETE", .item_count = ids.count};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status =
        CALL(&call, ds_block_delete(call.handle, ids.items, ids.count, &call.err));
    return call_none_or_raise(&call, status);
}
