/* Blocks: made on one node, read, adopted and deleted on any. A block does not change, so all
 * that is to be held is that its bytes are right wherever they are read; that it is there, on
 * every node, as long as nobody deletes it, also when its node has left; and that it is not
 * there any more, but for copies, once it was deleted. Not while a node is away, and not once
 * the only memory that had it is gone. */
#include "sim.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/checksum.h"
#include "os/clock.h"
#include "store/table_reader.h"
#include "worker/leaving.h"
#include "worker/seal.h"

#include <stdlib.h>
#include <string.h>

enum {
    BLOCKS_MAX = 1024,
    LIVE_MAX = 12,      /* At a time, */
    LIVE_SMALL = 4,     /* and in small arenas. */
    FIRST_KEY = 0x8000, /* Of their values: no user's key has such a number. */
    PAUSE_MS = 400,     /* At most, between two acts; */
    HURRIES_MS = 15,    /* while something happens. */
};

struct block {
    struct ds_block_id id;
    uint32_t value;
    bool may_be_lost; /* The memory that had it is gone. */
    bool is_deleted;  /* Somebody has asked for it; */
    bool is_gone;     /* and was answered, while all was whole. */
};

enum act { MAKE, READ, ADOPT, DROP };

/* One on each node, which does one thing after the other. */
struct actor {
    struct node *node;
    enum act act;
    uint32_t block;
    uint64_t begin_ns;
    bool began_well; /* All was whole then, and its node up. */
    bool is_busy;
    bool looks; /* At all blocks, in quiet times; `block` is the next. */
};

static struct block blocks[BLOCKS_MAX];
static uint32_t block_count;
static struct actor actors[NODES_MAX];

/* ---- Where they are ---- */

static struct ds_slice
key_of(const struct block *block, uint8_t out[BLOCK_KEY_BYTES])
{
    wire_block_key(block->id, 0, out);
    return slice(out, BLOCK_KEY_BYTES);
}

/* It is no copy there. */
static bool
is_kept_by(const struct block *block, const struct node *node)
{
    struct table_reader reader;
    uint8_t key[BLOCK_KEY_BYTES];
    struct ds_slice wanted = key_of(block, key);
    if (!node->has_supervisor ||
        table_reader_init(&reader, node->memory.table, node->memory.table_bytes,
                          NULL) != DS_OK)
        return false;
    for (uint32_t i = 0; i < reader.slot_count; i++) {
        const struct slot *slot = &reader.slots[i];
        uint32_t flags = place_flags(slot->place);
        if (commit_state(slot->commit) == SLOT_SEALED &&
            (flags & SLOT_FLAG_BLOCK) != 0 && (flags & SLOT_FLAG_COPY) == 0 &&
            slice_equal(value_slot_key(&reader, slot), wanted))
            return true;
    }
    return false;
}

static bool
is_kept_elsewhere(const struct block *block, const struct node *node)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        if (&cluster.nodes[i] != node && is_kept_by(block, &cluster.nodes[i]))
            return true;
    }
    return false;
}

static bool
somebody_hands_over(void)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        struct node *node = &cluster.nodes[i];
        if (node->is_up && leaving_is_handed_over(&node->worker))
            return true;
    }
    return false;
}

/* One that has handed over goes, and what it had is the taker's alone; unless it is killed
 * and started again, then what was deleted at the taker in between is still there. */
void
blocks_wipe(const struct node *node)
{
    bool is_taken = somebody_hands_over();
    for (uint32_t i = 0; i < block_count; i++) {
        struct block *block = &blocks[i];
        if (is_kept_by(block, node) && (is_taken || !is_kept_elsewhere(block, node)))
            block->may_be_lost = true;
    }
}

void
blocks_left(const struct node *node)
{
    for (uint32_t i = 0; i < block_count; i++) {
        struct block *block = &blocks[i];
        if (!block->is_deleted && !block->may_be_lost && is_kept_by(block, node) &&
            !is_kept_elsewhere(block, node))
            cluster_fail("block %u goes with node %u, which has left", i, node->index);
    }
}

/* ---- What is done ---- */

static void begin(struct actor *actor);

static void
on_next(void *arg)
{
    struct actor *actor = arg;
    if (!run.is_over && !actor->is_busy && (!run.is_ending || actor->looks))
        begin(actor);
}

static void
begin_later(struct actor *actor)
{
    uint64_t most_ms = virtual_now_ns() < run.hurry_until_ns ? HURRIES_MS : PAUSE_MS;
    if (actor->looks)
        most_ms = 1;
    virtual_at(virtual_now_ns() + chance_below(most_ms * VIRTUAL_MS), on_next, actor);
}

/* All was well from its beginning on, so nothing excuses anything. */
static bool
was_whole(const struct actor *actor)
{
    return actor->began_well && run.whole_since_ns != 0 &&
           run.whole_since_ns <= actor->begin_ns && run_is_whole();
}

static void
check_read(const struct actor *actor, const struct frame_header *header,
           struct ds_slice body, const uint8_t *payload)
{
    const struct block *block = &blocks[actor->block];
    struct fetched list;
    struct wire_value value = {.found = false};
    if (header->status == DS_OK &&
        (!decode_fetched(body, &list) || list.count != 1 || !next_value(&list, &value)))
        cluster_fail("block %u: an answer is malformed", actor->block);
    if (value.found) {
        if (value.size != header->payload_bytes || value.total != value.size)
            cluster_fail("block %u: not all bytes came", actor->block);
        uint32_t read =
            value_read(payload, value.size, FIRST_KEY + actor->block, "block");
        if (read != block->value)
            cluster_fail("block %u: another block's bytes came", actor->block);
    } else if (!block->is_deleted && !block->may_be_lost && was_whole(actor) &&
               header->status != DS_FULL &&
               (header->status != DS_CORRUPT || run.is_calm)) {
        cluster_fail("block %u is not there for node %u: %s %.*s", actor->block,
                     actor->node->index, ds_status_name(header->status),
                     (int)min_u64(header->status == DS_OK ? 0 : body.len, 300),
                     (const char *)body.data);
    }
}

static void
on_answer(void *arg, const struct frame_header *header, struct ds_slice body,
          const uint8_t *payload)
{
    struct actor *actor = arg;
    struct block *block = &blocks[actor->block];
    trace("node %u: act %d of block %u ends %s", actor->node->index, (int)actor->act,
          actor->block,
          header == NULL ? "without an answer" : ds_status_name(header->status));
    if (header != NULL && actor->act == READ)
        check_read(actor, header, body, payload);
    else if (header != NULL && actor->act == DROP && header->status == DS_OK)
        block->is_gone = block->is_gone || (was_whole(actor) && !somebody_hands_over());
    actor->is_busy = false;
    run_note(virtual_now_ns() ^ actor->block);
    if (actor->looks)
        actor->block++;
    begin_later(actor);
}

static void
ask(struct actor *actor)
{
    static const enum message_type types[] = {[READ] = MESSAGE_FETCH,
                                              [ADOPT] = MESSAGE_BLOCK_ADOPT,
                                              [DROP] = MESSAGE_BLOCK_DELETE};
    const struct block *block = &blocks[actor->block];
    uint8_t bytes[BLOCK_KEY_BYTES];
    struct ds_slice key = key_of(block, bytes);
    struct lookup lookup = {.flags = LOOKUP_BLOCKS};
    AUTO_WRITER(body);
    if (actor->act == READ)
        encode_lookup(&body, &lookup, &key, 1);
    else
        encode_block_ids(&body, &block->id, 1);
    actor->is_busy = true;
    call_once(actor->node, types[actor->act], slice(body.data, body.len), on_answer,
              actor);
}

/* As a client does that shares the memory of its node. */
static void
make(struct actor *actor)
{
    struct node *node = actor->node;
    struct worker *worker = &node->worker;
    struct block *block = &blocks[block_count];
    uint8_t key[BLOCK_KEY_BYTES];
    struct ds_error err;
    struct object_view view;
    if (!node->is_up || node->is_muted || node->is_stalled || worker->stopping ||
        leaving_refuses(worker, MESSAGE_BLOCK_CREATE))
        return;
    struct node_entry entry = node_enter(node, &node->tally);
    const struct table_header *table = store_header(worker->store);
    struct block_birth birth = {table->node, table->incarnation, 0};
    *block = (struct block){.id = wire_block_id(birth, worker->block_counter++),
                            .value = value_new()};
    struct create_request request = {.key = key_of(block, key),
                                     .size = value_bytes(block->value),
                                     .flags = SLOT_FLAG_BLOCK};
    if (store_create(worker->store, &request, clock_boot_ds(), &view, &err) == DS_OK) {
        uint8_t *bytes = node->arena + view.offset;
        value_write(bytes, FIRST_KEY + block_count, block->value);
        struct objects_seal seal = {
            .ref = view.ref,
            .checksum = {chance_of(1, 2), checksum_of(bytes, view.size)}};
        block->may_be_lost =
            objects_seal(worker, &seal, &err) != DS_OK || node->is_muted;
        trace("node %u makes block %u", node->index, block_count);
        block_count++;
    }
    node_leave(entry);
}

/* ---- When ---- */

/* False: all are deleted. */
static bool
choose(struct actor *actor)
{
    for (uint32_t i = 0; i < 8 && block_count > 0; i++) {
        uint32_t recent = (uint32_t)min_u64(block_count, 32);
        actor->block = block_count - 1 - (uint32_t)chance_below(recent);
        if (!blocks[actor->block].is_deleted || chance_of(1, 8))
            return true;
    }
    return false;
}

static uint32_t
count_live(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < block_count; i++)
        count += !blocks[i].is_deleted && !blocks[i].may_be_lost;
    return count;
}

static void
begin(struct actor *actor)
{
    uint64_t chance = chance_below(100);
    uint32_t most = run.is_small ? LIVE_SMALL : LIVE_MAX;
    actor->begin_ns = virtual_now_ns();
    actor->began_well = actor->node->is_up && run_is_whole();
    if (actor->looks) {
        if (actor->block < block_count) {
            actor->act = READ;
            ask(actor);
        }
        return;
    }
    actor->act = chance < 25 ? MAKE : chance < 75 ? READ : chance < 85 ? ADOPT : DROP;
    if (actor->act == MAKE && block_count < BLOCKS_MAX && count_live() < most)
        make(actor);
    else if (actor->act != MAKE && choose(actor)) {
        blocks[actor->block].is_deleted |= actor->act == DROP;
        ask(actor);
    }
    if (!actor->is_busy)
        begin_later(actor);
}

void
blocks_reset(void)
{
    block_count = 0;
    memset(actors, 0, sizeof actors);
}

void
blocks_start(void)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        actors[i].node = &cluster.nodes[i];
        begin_later(&actors[i]);
    }
}

bool
blocks_are_idle(void)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        if (actors[i].is_busy || (actors[i].looks && actors[i].block < block_count))
            return false;
    }
    return true;
}

void
blocks_look_at_all(void)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        actors[i].looks = actors[i].node->is_up;
        actors[i].block = 0;
        if (actors[i].looks)
            begin_later(&actors[i]);
    }
    for (uint32_t i = 0; i < block_count; i++) {
        for (uint32_t j = 0; j < cluster.count && blocks[i].is_gone; j++) {
            if (is_kept_by(&blocks[i], &cluster.nodes[j]))
                cluster_fail("block %u was deleted, and node %u has it", i, j);
        }
    }
}
