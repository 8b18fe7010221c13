#include "measure.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "lookup.h"
#include "machine.h"
#include "nodes.h"
#include "worker/kept_journals.h"
#include "worker/owners.h"

#include <stdio.h>
#include <string.h>

enum {
    START_MS = 100,    /* All nodes start within so long, */
    AGREE_MS = 300000, /* and know the members and their keys by then. */
    REST_MS = 1500,
    STEADY_S = 10,
    HEAD_AWAY_MS = 1000,
};

/* One event that is being measured. */
struct run {
    struct result *result;
    uint64_t began_ns;
    uint64_t epoch; /* Before it. */
};

/* ---- Counting ---- */

static struct run
begin(struct result *result, const char *name)
{
    *result = (struct result){.name = name};
    fprintf(stderr, "scale: %s\n", name);
    memset(&counts, 0, sizeof counts);
    for (uint32_t i = 0; i < cluster.count; i++) {
        cluster.nodes[i].tally = (struct tally){0};
        cluster.nodes[i].metastore = (struct tally){0};
    }
    uint64_t epoch = cluster.nodes[0].is_up ? cluster_epoch() : 0;
    return (struct run){result, virtual_now_ns(), epoch};
}

static void
add(struct tally *total, const struct tally *tally)
{
    total->messages += tally->messages;
    total->bytes += tally->bytes;
    total->cpu_ns += tally->cpu_ns;
    total->longest_ns = max_u64(total->longest_ns, tally->longest_ns);
}

static void
take_largest(struct tally *largest, const struct tally *tally)
{
    largest->messages = max_u64(largest->messages, tally->messages);
    largest->bytes = max_u64(largest->bytes, tally->bytes);
    largest->cpu_ns = max_u64(largest->cpu_ns, tally->cpu_ns);
    largest->longest_ns = max_u64(largest->longest_ns, tally->longest_ns);
}

static uint64_t
since(const struct run *run)
{
    return virtual_now_ns() - run->began_ns;
}

static void
finish(const struct run *run)
{
    struct result *result = run->result;
    result->duration_ns = since(run);
    result->members = cluster_running();
    result->metastore = cluster.nodes[0].metastore;
    for (uint32_t i = 0; i < cluster.count; i++) {
        add(&result->total, &cluster.nodes[i].tally);
        if (i > 0)
            take_largest(&result->busiest, &cluster.nodes[i].tally);
    }
    add(&result->total, &result->metastore);
    result->reports = counts.types[MESSAGE_KEY_REPORT].accepted;
    result->reports_refused = counts.types[MESSAGE_KEY_REPORT].refused;
    result->reports_bytes = counts.types[MESSAGE_KEY_REPORT].bytes;
    result->renewals = counts.types[MESSAGE_MEMBER_RENEW].requests;
    result->asked = counts.types[MESSAGE_JOURNAL_ASK].requests;
    result->connections = counts.connections;
    result->connections_late = counts.connections_late;
}

/* ---- Waiting ---- */

static void
run_ms(uint64_t ms)
{
    virtual_run_until(virtual_now_ns() + ms * VIRTUAL_MS);
}

static void
wait_for_members(const struct run *run, uint32_t count)
{
    for (int ms = 0; !cluster_knows(count, run->epoch); ms++) {
        if (ms == AGREE_MS)
            cluster_fail("%s: after %d s not all of %u know the members",
                         run->result->name, AGREE_MS / 1000, count);
        run_ms(1);
    }
    run->result->members_ns = since(run);
}

static void
wait_for_keys(const struct run *run)
{
    for (int ms = 0; !cluster_knows_keys(); ms++) {
        if (ms == AGREE_MS)
            cluster_fail("%s: after %d s not all know their keys", run->result->name,
                         AGREE_MS / 1000);
        run_ms(1);
    }
    run->result->keys_ns = since(run);
}

static void
wait_for_all(const struct run *run, uint32_t count)
{
    wait_for_members(run, count);
    wait_for_keys(run);
    finish(run);
    run_ms(REST_MS);
}

/* ---- Events ---- */

static void
start_one(void *arg)
{
    node_start(arg);
}

static void
all_join(struct result *result, uint32_t members)
{
    struct run run = begin(result, "all join");
    node_start(&cluster.nodes[0]);
    for (uint32_t i = 1; i < members; i++)
        virtual_at(virtual_now_ns() + chance_below(START_MS * VIRTUAL_MS), start_one,
                   &cluster.nodes[i]);
    run_ms(START_MS);
    wait_for_all(&run, members);
}

static void
steady(struct result *result)
{
    struct run run = begin(result, "quiet for 10 s");
    run_ms(STEADY_S * 1000);
    finish(&run);
}

/* Of a node's keys one that neither it nor the node `asks` owns. */
static struct ds_slice
key_of_another(const struct node *holder, const struct node *asks, uint32_t per_node,
               char *out, size_t out_bytes)
{
    for (uint32_t i = 0; i < per_node; i++) {
        struct ds_slice key = key_name(out, out_bytes, holder->index, i);
        uint32_t owner = owners_find(&asks->worker, key).node;
        if (owner != 0 && owner != node_id(holder) && owner != node_id(asks))
            return key;
    }
    cluster_fail("no key has an owner that is neither its holder nor who asks");
}

static void
lookup(struct result *result, uint32_t keys_per_node)
{
    char name[32];
    const struct node *holder = &cluster.nodes[1];
    struct node *asks = &cluster.nodes[2];
    struct ds_slice key =
        key_of_another(holder, asks, keys_per_node, name, sizeof name);
    struct run run = begin(result, "look-up");
    result->done_ns = lookup_key(asks, key);
    finish(&run);
    result->total = (struct tally){
        .messages = 0, .cpu_ns = result->total.cpu_ns}; /* Without the leases. */
    enum message_type types[] = {MESSAGE_KEY_ORDERS, MESSAGE_FETCH};
    for (size_t i = 0; i < 2; i++) {
        result->total.messages +=
            counts.types[types[i]].requests + counts.types[types[i]].accepted;
        result->total.bytes += counts.types[types[i]].bytes;
    }
}

static void
one_joins(struct result *result, struct node *node, uint32_t members)
{
    struct run run = begin(result, "one joins");
    node_start(node);
    wait_for_all(&run, members + 1);
}

static void
one_leaves(struct result *result, struct node *node, uint32_t members)
{
    struct run run = begin(result, "one leaves");
    node_stop(node);
    wait_for_all(&run, members - 1);
}

static void
one_is_killed(struct result *result, struct node *node, uint32_t members)
{
    struct run run = begin(result, "one is killed");
    node_kill(node);
    wait_for_all(&run, members - 1);
}

static void
one_falls_silent(struct result *result, struct node *node, uint32_t members)
{
    struct run run = begin(result, "one falls silent");
    node_silence(node);
    wait_for_all(&run, members - 1);
}

/* It has another arena when it is back, so it is another member. */
static void
head_is_killed(struct result *result, uint32_t members)
{
    struct run run = begin(result, "head is killed");
    node_kill(&cluster.nodes[0]);
    run_ms(HEAD_AWAY_MS);
    node_start(&cluster.nodes[0]);
    wait_for_all(&run, members);
}

static void
controller_is_lost(struct result *result, struct node *node, uint32_t members)
{
    uint32_t before = machine_programs_started;
    plant_journal(&cluster.nodes[1], node);
    plant_journal(&cluster.nodes[2], node);
    struct run run = begin(result, "controller is lost");
    node_kill(node);
    wait_for_members(&run, members - 1);
    for (int ms = 0; machine_programs_started == before; ms++) {
        if (ms == AGREE_MS)
            cluster_fail("nobody goes on with the queue");
        run_ms(1);
    }
    result->done_ns = since(&run);
    wait_for_keys(&run);
    finish(&run);
    run_ms(REST_MS);
    if (machine_programs_started != before + 1)
        cluster_fail("two nodes go on with the queue");
}

size_t
measure(uint32_t members, uint64_t seed, uint32_t keys_per_node, struct result *out)
{
    size_t count = 0;
    DS_ASSERT(members >= 8);
    chance_seed(seed);
    cluster_open(
        &(struct cluster_options){.name = "scale",
                                  .places = members + 1,
                                  .geometry = cluster_geometry(keys_per_node)});
    struct node *last = &cluster.nodes[members];
    all_join(&out[count++], members);
    cluster_add_keys(keys_per_node);
    steady(&out[count++]);
    lookup(&out[count++], keys_per_node);
    one_joins(&out[count++], last, members);
    one_leaves(&out[count++], last, members + 1);
    one_is_killed(&out[count++], last - 1, members);
    one_falls_silent(&out[count++], last - 2, members - 1);
    head_is_killed(&out[count++], members - 2);
    controller_is_lost(&out[count++], last - 3, members - 2);
    cluster_close();
    return count;
}
