#include "worker/election.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "wire/etcd.h"
#include "worker/etcd.h"
#include "worker/membership.h"
#include "worker/metastore.h"
#include "worker/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEASE_S = 5,
    LEASE_DS = LEASE_S * 10,
    KEEP_DS = 10, /* Between two keepalives; */
    RETRY_DS = 3, /* and after a question without an answer. */
    RESIGN_DS = 5,
    NAME_BYTES = 256,
};

static_assert(MEMBER_ADDRESS_MAX + 16 <= ETCD_VALUE_BYTES_MAX, "address and node");

enum question {
    NONE,
    RANGE, /* Who has the metastore? */
    REMOVE,
    GRANT,
    CLAIM,
    KEEP,
    SAVE,
    REVOKE,
    QUESTION_COUNT,
};

/* Invariants: at most one question is under way, `asked`; `on_answer` is set while
 * somebody waits for an address; `is_elected` implies worker->metastore. */
struct election {
    struct worker *worker;
    struct etcd *etcd;
    char key[NAME_BYTES];
    char epoch_key[NAME_BYTES];

    enum question asked;
    uint64_t asked_ds; /* CLOCK_BOOTTIME, as all times here. */
    election_answer_fn on_answer;
    void *arg;

    int64_t lease;    /* 0: none. */
    int64_t revision; /* Of the key, when it is one that we left behind. */
    bool is_elected;
    uint64_t lease_until_ds;
    uint64_t keep_at_ds;
    uint64_t retry_at_ds;      /* 0: the latest question was answered. */
    bool is_checked;           /* The key was ours after the latest keepalive. */
    struct members_past saved; /* In etcd; */
    struct members_past sent;  /* on the way there; */
    struct members_past past;  /* and what should be. */

    /* NULL: it does not resign. Called from the tick, as the election may be closed there. */
    void (*on_resigned)(struct worker *worker);
    uint64_t resign_until_ds;
};

static void ask(struct election *election, enum question question);

static uint32_t
own_node(const struct election *election)
{
    return store_header(election->worker->store)->node;
}

/* ---- Outcomes ---- */

static void
answer(struct election *election, const char *address, const char *reason)
{
    election_answer_fn on_answer = election->on_answer;
    election->on_answer = NULL;
    if (on_answer != NULL)
        on_answer(election->arg, address, reason);
}

static void
finish_resigning(struct election *election)
{
    void (*on_resigned)(struct worker * worker) = election->on_resigned;
    election->on_resigned = NULL;
    on_resigned(election->worker);
}

static void
step_down(struct election *election, const char *reason)
{
    struct worker *worker = election->worker;
    log_warn("worker has the metastore no more reason=\"%s\"", reason);
    election->is_elected = false;
    election->lease = 0;
    metastore_close(worker->metastore);
    worker->metastore = NULL;
}

static bool
is_same(struct members_past a, struct members_past b)
{
    return a.epoch == b.epoch && a.count == b.count;
}

/* What whoever has the metastore, or had it, has to tell etcd now. */
static void
go_on(struct election *election)
{
    uint64_t now_ds = clock_boot_ds();
    if (election->on_answer != NULL && election_holds(election))
        answer(election, election->worker->flags->worker_address, NULL);
    if (election->asked != NONE ||
        (election->is_elected && now_ds < election->retry_at_ds))
        return;
    bool is_unsaved =
        !is_same(election->past, election->saved) || !election->is_checked;
    bool resigns = election->on_resigned != NULL && now_ds < election->resign_until_ds;
    if (election->is_elected && now_ds >= election->keep_at_ds)
        ask(election, KEEP);
    else if ((election->is_elected || resigns) && is_unsaved)
        ask(election, SAVE);
    else if (resigns)
        ask(election, REVOKE);
    else if (!election->is_elected && election->on_answer != NULL)
        ask(election, RANGE);
}

static void
fail(struct election *election, const char *reason)
{
    if (election->on_resigned != NULL) {
        election->resign_until_ds = 0; /* The lease will end. */
    } else if (election->is_elected) {
        if (election->retry_at_ds == 0) /* Once until it is answered again. */
            log_warn("worker cannot keep the metastore yet reason=\"%s\"", reason);
        election->retry_at_ds = clock_boot_ds() + RETRY_DS;
    } else {
        answer(election, NULL, reason);
    }
}

/* ---- Answers ---- */

static void
be_elected(struct election *election, const struct etcd_value *epoch)
{
    struct worker *worker = election->worker;
    struct metastore_past kept = {0};
    struct members_past past = membership_past(worker->membership);
    struct ds_error err = {0};
    if (epoch->found && sscanf(epoch->text, "%" SCNu64 " %" SCNu32 " %" SCNu32,
                               &kept.past.epoch, &kept.past.count, &kept.holder) != 3)
        log_warn("worker cannot read the epoch in etcd text=\"%s\"", epoch->text);
    election->saved = kept.past;
    if (kept.past.epoch < past.epoch)
        kept.past = past;
    past = kept.past;
    election->past = past;
    election->is_checked = false;
    if (metastore_open(worker, &kept, &worker->metastore, &err) != DS_OK) {
        fail(election, err.message); /* The lease will end. */
        return;
    }
    election->is_elected = true;
    election->keep_at_ds = clock_boot_ds() + KEEP_DS;
    log_info("worker has the metastore epoch=%" PRIu64 " members=%" PRIu32, past.epoch,
             past.count);
    if (metastore_is_settling(worker->metastore))
        membership_be_ready(worker->membership);
    answer(election, worker->flags->worker_address, NULL);
}

/* Somebody has the metastore. If that is this worker, an earlier process of it was meant,
 * which is dead; another worker at our address was before us, and its lease will end. */
static void
take_holder(struct election *election, const struct etcd_value *value)
{
    char address[MEMBER_ADDRESS_MAX + 1];
    uint32_t node;
    if (sscanf(value->text, "%280s %" SCNu32, address, &node) != 2) {
        fail(election, "who has the metastore is not to be read there");
    } else if (strcmp(address, election->worker->flags->worker_address) != 0) {
        answer(election, address, NULL);
    } else if (node == own_node(election)) {
        election->revision = value->revision;
        ask(election, REMOVE);
    } else {
        answer(election, NULL,
               "an earlier worker at this address had the metastore, for up to 5 s");
    }
}

static void
take_lease(struct election *election, int64_t lease, int64_t ttl_s)
{
    uint64_t ttl_ds = ttl_s > LEASE_S ? LEASE_DS : (uint64_t)ttl_s * 10;
    election->lease = lease;
    election->lease_until_ds = election->asked_ds + ttl_ds;
    election->keep_at_ds = clock_boot_ds() + KEEP_DS;
}

static bool
take_range(struct election *election, struct ds_slice body)
{
    struct etcd_value value;
    if (!etcd_decode_range(body, &value))
        return false;
    if (value.found)
        take_holder(election, &value);
    else
        ask(election, GRANT);
    return true;
}

static bool
take_removed(struct election *election, struct ds_slice body)
{
    struct etcd_value nothing;
    bool held;
    if (!etcd_decode_txn(body, &held, &nothing))
        return false;
    ask(election, GRANT); /* Where it was changed meanwhile, the claim says by whom. */
    return true;
}

static bool
take_grant(struct election *election, struct ds_slice body)
{
    int64_t lease, ttl_s;
    if (!etcd_decode_lease(body, &lease, &ttl_s) || lease == 0 || ttl_s <= 0)
        return false;
    take_lease(election, lease, ttl_s);
    ask(election, CLAIM);
    return true;
}

static bool
take_claim(struct election *election, struct ds_slice body)
{
    struct etcd_value value;
    bool held;
    if (!etcd_decode_txn(body, &held, &value) || (!held && !value.found))
        return false;
    if (held)
        be_elected(election, &value);
    else
        take_holder(election, &value);
    return true;
}

static bool
take_kept(struct election *election, struct ds_slice body)
{
    int64_t lease, ttl_s;
    if (!etcd_decode_lease(body, &lease, &ttl_s) || lease != election->lease)
        return false;
    if (ttl_s <= 0)
        step_down(election, "its lease at etcd has ended");
    else
        take_lease(election, lease, ttl_s);
    election->is_checked = false; /* The lease can live without the key. */
    return true;
}

static bool
take_saved(struct election *election, struct ds_slice body)
{
    struct etcd_value nothing;
    bool held;
    if (!etcd_decode_txn(body, &held, &nothing))
        return false;
    election->saved = election->sent;
    election->is_checked = true;
    if (!held && election->is_elected)
        step_down(election, "etcd says that it is another worker's");
    return true;
}

static bool
take_revoked(struct election *election, struct ds_slice body)
{
    (void)body;
    election->resign_until_ds = 0;
    return true;
}

/* ---- Questions ---- */

static void
encode_range(const struct election *election, struct writer *body)
{
    etcd_encode_range(body, election->key);
}

static void
encode_remove(const struct election *election, struct writer *body)
{
    etcd_encode_remove(body, election->key, election->revision);
}

static void
encode_grant(const struct election *election, struct writer *body)
{
    (void)election;
    etcd_encode_grant(body, LEASE_S);
}

static void
encode_claim(const struct election *election, struct writer *body)
{
    char value[ETCD_VALUE_BYTES_MAX];
    snprintf(value, sizeof value, "%s %" PRIu32,
             election->worker->flags->worker_address, own_node(election));
    etcd_encode_claim(body, election->key, value, election->lease, election->epoch_key);
}

static void
encode_lease(const struct election *election, struct writer *body)
{
    etcd_encode_lease(body, election->lease);
}

static void
encode_save(const struct election *election, struct writer *body)
{
    char value[64];
    snprintf(value, sizeof value, "%" PRIu64 " %" PRIu32 " %" PRIu32,
             election->sent.epoch, election->sent.count, own_node(election));
    etcd_encode_put_as_owner(body, election->key, election->lease, election->epoch_key,
                             value);
}

/* take: false, when that is no such answer. */
static const struct {
    const char *path;
    void (*encode)(const struct election *election, struct writer *body);
    bool (*take)(struct election *election, struct ds_slice body);
} questions[QUESTION_COUNT] = {
    [RANGE] = {ETCD_RANGE_PATH, encode_range, take_range},
    [REMOVE] = {ETCD_TXN_PATH, encode_remove, take_removed},
    [GRANT] = {ETCD_GRANT_PATH, encode_grant, take_grant},
    [CLAIM] = {ETCD_TXN_PATH, encode_claim, take_claim},
    [KEEP] = {ETCD_KEEP_PATH, encode_lease, take_kept},
    [SAVE] = {ETCD_TXN_PATH, encode_save, take_saved},
    [REVOKE] = {ETCD_REVOKE_PATH, encode_lease, take_revoked},
};

/* Who has stepped down meanwhile has nothing to keep. */
static bool
is_outdated(const struct election *election, enum question question)
{
    bool is_holders = question == KEEP || question == SAVE;
    return is_holders && !election->is_elected && election->on_resigned == NULL;
}

static void
on_etcd_answer(void *arg, struct ds_slice body, const char *reason)
{
    struct election *election = arg;
    enum question asked = election->asked;
    char text[ETCD_REASON_BYTES];
    election->asked = NONE;
    if (is_outdated(election, asked)) {
        go_on(election);
        return;
    }
    if (reason == NULL && !questions[asked].take(election, body)) {
        etcd_reject(election->etcd,
                    "its answer is malformed; is it an etcd of 3.4 or later?", text);
        reason = text;
    }
    if (reason != NULL)
        fail(election, reason);
    else
        election->retry_at_ds = 0;
    go_on(election);
}

static void
ask(struct election *election, enum question question)
{
    AUTO_WRITER(body);
    DS_ASSERT(election->asked == NONE);
    election->sent = election->past;
    questions[question].encode(election, &body);
    if (body.failed) {
        fail(election, "out of memory for a question to etcd");
        return;
    }
    election->asked = question;
    election->asked_ds = clock_boot_ds();
    etcd_ask(election->etcd, questions[question].path, &body, on_etcd_answer, election);
}

/* ---- What others call ---- */

void
election_ask(struct election *election, election_answer_fn on_answer, void *arg)
{
    DS_ASSERT(election->on_answer == NULL);
    election->on_answer = on_answer;
    election->arg = arg;
    if (election_holds(election))
        answer(election, election->worker->flags->worker_address, NULL);
    else
        go_on(election);
}

bool
election_holds(const struct election *election)
{
    return election != NULL && election->is_elected &&
           clock_boot_ds() < election->lease_until_ds;
}

void
election_save(struct election *election, struct members_past past)
{
    election->past = past;
    go_on(election);
}

void
election_resign(struct election *election, void (*on_done)(struct worker *worker))
{
    if (!election_holds(election)) {
        on_done(election->worker);
        return;
    }
    struct metastore *metastore = election->worker->metastore;
    metastore_tick(metastore, clock_monotonic_ms()); /* All hear that we have left. */
    metastore_close(metastore);
    election->worker->metastore = NULL;
    election->is_elected = false;
    election->on_resigned = on_done;
    election->resign_until_ds = clock_boot_ds() + RESIGN_DS;
    go_on(election);
}

void
election_tick(struct election *election)
{
    if (election == NULL)
        return;
    if (election->is_elected && !election_holds(election))
        step_down(election, "its lease at etcd could not be kept");
    if (election->on_resigned != NULL && clock_boot_ds() >= election->resign_until_ds)
        finish_resigning(election);
    else
        go_on(election);
}

/* ---- Life ---- */

static enum ds_status
name_keys(struct election *election, struct ds_error *err)
{
    const char *name = election->worker->flags->cluster_name;
    const char *separator = name[0] == '\0' ? "" : "/";
    int used = snprintf(election->epoch_key, NAME_BYTES, "/datasystem/%s%sepoch", name,
                        separator);
    int longer = snprintf(election->key, NAME_BYTES, "/datasystem/%s%smetastore", name,
                          separator);
    if (used < 0 || longer < 0 || longer >= NAME_BYTES)
        return ds_fail(err, DS_INVALID, "--cluster_name is too long for a key in etcd");
    return DS_OK;
}

enum ds_status
election_open(struct worker *worker, struct election **out, struct ds_error *err)
{
    struct election *election = calloc(1, sizeof *election);
    if (election == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for an election");
    election->worker = worker;
    enum ds_status status = name_keys(election, err);
    if (status == DS_OK)
        status = etcd_open(&worker->loop, worker->flags, &election->etcd, err);
    if (status != DS_OK) {
        free(election);
        return status;
    }
    *out = election;
    return DS_OK;
}

void
election_close(struct election *election)
{
    if (election == NULL)
        return;
    etcd_close(election->etcd);
    free(election);
}
