#include "worker/takeover.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "meta/members.h"
#include "net/program.h"
#include "os/append_file.h"
#include "os/clock.h"
#include "os/files.h"
#include "os/process.h"
#include "os/secret_file.h"
#include "os/sockets.h"
#include "worker/kept_journals.h"
#include "worker/launch.h"
#include "worker/membership.h"
#include "worker/owners.h"
#include "worker/peers.h"
#include "worker/queues.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    UNSERVED_MS = 5000, /* A controller that was killed is back sooner. */
    UNHEARD_MS = 200,   /* Until who could not say is asked again. */
    ASKING_MS = 3000,   /* Then who has not answered could not say. */
    STARTED_MS =
        600000, /* For a program to serve its queue: a long journal takes a while. */
    REMEMBERED_MS = 600000, /* What terms there were, where no copy is. */
    RENEW_MS = 10000,       /* The promise to who starts one. */
    FAILED_MS = 30000, /* Until a program that could not be started is tried again. */
};

/* Owner: the journal; then the last question. */
struct candidacy {
    struct kept_journal *journal; /* NULL: it was cancelled. */
    struct worker *worker;
    uint64_t term; /* We would have. */
    uint64_t epoch;
    bool wants_promise; /* Nobody had more; and now it is to stay so. */
    uint64_t began_ms;
    uint32_t open_count; /* Members that have not answered. */
    bool is_lost;        /* Somebody has more, or serves it. */
    bool is_unheard;     /* Somebody could not say. */
};

/* Owner: the peers. */
struct question {
    struct peer_request request;
    struct candidacy *candidacy; /* NULL: it withdraws. */
    struct journal_ask message;  /* Its name is this: */
    char name[QUEUE_PLACE_NAME_MAX + 1];
};

/* Owner: worker->started, until the program ends. */
struct started {
    struct list link;
    struct program *program;
    struct worker *worker;
    uint64_t term;
    char name[QUEUE_PLACE_NAME_MAX + 1];
};

static uint32_t
own_node(const struct worker *worker)
{
    return store_header(worker->store)->node;
}

/* ---- The program ---- */

/* The journal is the program's from now on: where it looks for it by itself. */
static enum ds_status
hand_over(struct kept_journal *journal, const struct launch *launch,
          struct ds_error *err)
{
    char path[PATH_MAX];
    int used = snprintf(path, sizeof path, "%s.journal", launch->socket);
    if (used <= 0 || (size_t)used >= sizeof path)
        return ds_fail(err, DS_INVALID, "the path '%s' is too long", launch->socket);
    return append_file_rename(journal->whole.file, path, err);
}

static void
withdraw(struct worker *worker, struct kept_journal *journal, uint64_t term);

/* It did not go on with the queue: somebody else may, and we try again later. */
static void
take_back(struct worker *worker, struct kept_journal *journal)
{
    char path[PATH_MAX];
    withdraw(worker, journal, journal->started_term);
    journal->started_term = 0;
    journal->whole.id =
        0; /* The program may have written to it: nothing is added to it. */
    journal->failed_until_ms = clock_monotonic_ms() + FAILED_MS;
    if (journal->whole.file != NULL &&
        (!kept_journal_path(worker, journal, path, sizeof path) ||
         append_file_rename(journal->whole.file, path, NULL) != DS_OK)) {
        log_error("worker lost its copy of the journal of queue %s", journal->name);
        append_file_close(journal->whole.file);
        journal->whole = (struct kept_file){0};
    }
}

static void
on_program_end(int exit_code, int signal_number, void *arg)
{
    struct started *started = arg;
    struct kept_journal *journal =
        kept_journals_find(started->worker, slice_of_text(started->name));
    if (exit_code != 0 || signal_number != 0)
        log_warn("worker the controller of queue %s that it had started ended code=%d "
                 "signal=%d",
                 started->name, exit_code, signal_number);
    if (journal != NULL && journal->started_term == started->term)
        take_back(started->worker, journal);
    list_remove(&started->link);
    free(started);
}

static enum ds_status
start_program(struct worker *worker, const struct kept_journal *journal,
              struct launch *launch, int key_fd, struct ds_error *err)
{
    struct started *started = calloc(1, sizeof *started);
    if (started == NULL)
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory for a program");
    started->worker = worker;
    started->term = journal->started_term;
    memcpy(started->name, journal->name, sizeof started->name);
    enum ds_status status =
        program_start(&worker->loop, launch->arguments, key_fd, on_program_end, started,
                      &started->program, err);
    if (status == DS_OK)
        list_push_back(&worker->started, &started->link);
    else
        free(started);
    return status;
}

static enum ds_status
launch_program(struct worker *worker, struct kept_journal *journal, uint64_t term,
               struct ds_error *err)
{
    struct launch launch = {.count = 0};
    int key_fd = -1;
    enum ds_status status = launch_prepare(worker, journal->name, term, &launch, err);
    if (status == DS_OK && worker->resources->has_key)
        status = secret_hand_over(&worker->resources->secret, &key_fd, err);
    if (status == DS_OK)
        status = hand_over(journal, &launch, err);
    if (status == DS_OK)
        status = start_program(worker, journal, &launch, key_fd, err);
    socket_close(key_fd);
    return status;
}

/* Where it cannot be started the copy stays, and another node may have one. */
static void
take_over(struct worker *worker, struct kept_journal *journal, uint64_t term)
{
    struct ds_error err = {0};
    journal->started_term = term;
    journal->started_ms = journal->renewed_ms = clock_monotonic_ms();
    if (launch_program(worker, journal, term, &err) == DS_OK) {
        log_warn("worker goes on with queue %s, whose controller was at node %" PRIu32
                 " and is gone term=%" PRIu64,
                 journal->name, journal->node, term);
        return;
    }
    log_error("worker cannot go on with queue %s reason=\"%s\"", journal->name,
              err.message);
    take_back(worker, journal);
}

/* ---- Asking the others ---- */

static void
encode(const struct peer_request *request, struct writer *body)
{
    encode_journal_ask(body,
                       &CONTAINER_OF(request, const struct question, request)->message);
}

/* A later controller's goes before a longer one; of two with the same, the one that can start
 * a controller, and then the one with the lower node goes on. */
static bool
has_more(const struct candidacy *candidacy, uint32_t node,
         const struct journal_known *known)
{
    const struct kept_journal *journal = candidacy->journal;
    if (!known->has_copy || PLANTED(UNASKED_RIVAL))
        return false;
    if (kept_journal_is_dead(journal, known->copy_term))
        return false; /* What it has was an attempt that came to nothing. */
    if (known->copy_term != journal->whole.term)
        return known->copy_term > journal->whole.term;
    if (known->sequence != journal->sequence)
        return known->sequence > journal->sequence;
    return !known->has_failed && node < own_node(candidacy->worker);
}

/* Somebody with a copy of an earlier controller's knows that the one whose copy we have came
 * to nothing. */
static bool
is_of_attempt(const struct kept_journal *journal, const struct journal_known *known)
{
    return known->has_copy && journal->whole.term > known->copy_term &&
           journal->whole.term <= known->dead;
}

static void
take_answer(struct candidacy *candidacy, uint32_t node,
            const struct journal_known *known)
{
    struct kept_journal *journal = candidacy->journal;
    if (journal == NULL)
        return;
    candidacy->is_lost |= known->promised > 0 || known->heard >= candidacy->term ||
                          has_more(candidacy, node, known) ||
                          is_of_attempt(journal, known);
    journal->heard = max_u64(journal->heard, known->heard);
}

static void finish_if_answered(struct candidacy *candidacy);

static void
end(struct worker *worker, struct peer_request *request,
    const struct peer_answer *answer)
{
    struct question *question = CONTAINER_OF(request, struct question, request);
    struct candidacy *candidacy = question->candidacy;
    struct journal_known known = {0};
    (void)worker;
    if (candidacy != NULL &&
        answer->header != NULL) { /* Else it is no member any more. */
        bool is_heard = answer->header->status == DS_OK &&
                        decode_journal_known(answer->body, &known);
        candidacy->is_unheard |= !is_heard;
        if (is_heard)
            take_answer(candidacy, request->node, &known);
    }
    free(question);
    if (candidacy == NULL)
        return;
    candidacy->open_count--;
    finish_if_answered(candidacy);
}

static const struct peer_request_ops question_ops = {
    .type = MESSAGE_JOURNAL_ASK, .encode = encode, .end = end};

/* `candidacy` NULL: nobody waits for the answer. */
static bool
ask(struct worker *worker, struct candidacy *candidacy, const struct member *member,
    const struct journal_ask *message)
{
    struct question *question = calloc(1, sizeof *question);
    if (question == NULL)
        return false;
    question->request = (struct peer_request){
        .ops = &question_ops, .node = member->node, .incarnation = member->incarnation};
    memcpy(question->name, message->name.data, message->name.len);
    question->message = *message;
    question->message.name = slice_of_text(question->name);
    question->candidacy = candidacy;
    if (!peers_ask(worker->peers, &question->request)) {
        free(question);
        return false;
    }
    if (candidacy != NULL)
        candidacy->open_count++;
    return true;
}

/* False: some could not be asked. */
static bool
ask_all(struct worker *worker, struct candidacy *candidacy,
        const struct journal_ask *message)
{
    uint32_t own = own_node(worker);
    bool all = true;
    const struct member *member = NULL;
    while ((member = membership_next(worker->membership, own, member)) != NULL)
        all &= ask(worker, candidacy, member, message);
    return all;
}

static void
ask_as_candidate(struct candidacy *candidacy, enum ask_intent intent)
{
    struct worker *worker = candidacy->worker;
    struct journal_ask message = {.name = slice_of_text(candidacy->journal->name),
                                  .term = candidacy->term,
                                  .node = own_node(worker),
                                  .intent = intent};
    candidacy->open_count++; /* Until all are asked. */
    candidacy->is_unheard |= !ask_all(worker, candidacy, &message);
    candidacy->open_count--;
}

/* Nobody is bound to us any more; whoever does not hear of it is so for a while. */
static void
withdraw(struct worker *worker, struct kept_journal *journal, uint64_t term)
{
    struct journal_ask message = {.name = slice_of_text(journal->name),
                                  .term = term,
                                  .node = own_node(worker),
                                  .intent = ASK_WITHDRAWN};
    kept_journal_withdraw(journal, term);
    if (worker->membership != NULL)
        (void)ask_all(worker, NULL, &message);
}

static bool
may_take_over(const struct candidacy *candidacy, const struct kept_journal *journal)
{
    const struct worker *worker = candidacy->worker;
    return !candidacy->is_lost && !candidacy->is_unheard && owners_is_current(worker) &&
           journal->unserved_ms != 0 && journal->whole.file != NULL &&
           owners_epoch(worker->owners) == candidacy->epoch &&
           (!candidacy->wants_promise || journal->promise.term == candidacy->term);
}

/* The candidacy lets go of its journal. */
static void
decide(struct candidacy *candidacy)
{
    struct kept_journal *journal = candidacy->journal;
    struct worker *worker = candidacy->worker;
    uint32_t rest_ms = candidacy->is_lost ? UNSERVED_MS : UNHEARD_MS;
    journal->candidacy = NULL;
    journal->rests_until_ms = clock_monotonic_ms() + rest_ms;
    candidacy->journal = NULL;
    if (candidacy->wants_promise && may_take_over(candidacy, journal))
        take_over(worker, journal, candidacy->term);
    else if (candidacy->wants_promise)
        withdraw(worker, journal, candidacy->term);
}

/* Nobody has more: all are to see to it that it stays so. */
static bool
ask_for_promise(struct candidacy *candidacy)
{
    struct kept_journal *journal = candidacy->journal;
    struct worker *worker = candidacy->worker;
    const struct member *self = membership_find(worker->membership, own_node(worker));
    if (candidacy->wants_promise || self == NULL ||
        kept_journal_promise(worker, journal) > 0 || !may_take_over(candidacy, journal))
        return false;
    candidacy->wants_promise = true;
    candidacy->term = journal_term_after(
        max_u64(journal->heard, max_u64(journal->term, journal->promise.term)),
        self->node);
    kept_journal_promise_to(journal, self, candidacy->term);
    ask_as_candidate(candidacy, ASK_FOR_PROMISE);
    return true;
}

static void
finish_if_answered(struct candidacy *candidacy)
{
    while (candidacy->open_count == 0) {
        if (candidacy->journal != NULL && ask_for_promise(candidacy))
            continue;
        if (candidacy->journal != NULL)
            decide(candidacy);
        free(candidacy);
        return;
    }
}

static void
begin(struct worker *worker, struct kept_journal *journal)
{
    struct candidacy *candidacy = calloc(1, sizeof *candidacy);
    if (candidacy == NULL)
        return;
    *candidacy = (struct candidacy){.journal = journal,
                                    .worker = worker,
                                    .term = UINT64_MAX, /* None yet. */
                                    .epoch = owners_epoch(worker->owners),
                                    .began_ms = clock_monotonic_ms()};
    journal->candidacy = candidacy;
    ask_as_candidate(candidacy, ASK_TO_KNOW);
    finish_if_answered(candidacy);
}

void
takeover_note_writer(struct kept_journal *journal)
{
    if (journal->candidacy != NULL)
        journal->candidacy->is_lost = true;
}

void
takeover_cancel(struct kept_journal *journal)
{
    if (journal->candidacy != NULL)
        journal->candidacy->journal = NULL;
    journal->candidacy = NULL;
}

/* ---- Time ---- */

/* What terms there were is remembered for a while without a copy. */
static bool
is_of_use(const struct worker *worker, const struct kept_journal *journal)
{
    return journal->whole.file != NULL || journal->fresh.file != NULL ||
           journal->started_term != 0 || kept_journal_promise(worker, journal) > 0 ||
           clock_monotonic_ms() < journal->used_ms + REMEMBERED_MS;
}

/* False: the journal is gone. */
static bool
note_whether_served(struct worker *worker, struct kept_journal *journal)
{
    struct ds_slice name = slice_of_text(journal->name);
    struct queue_place place = {0};
    bool is_served = queues_find(worker, name, &place) && place.term >= journal->term;
    bool is_ours = is_served && queues_term(worker, name) == place.term;
    bool has_ended = is_served && place.term == QUEUE_TERM_ENDED;
    if (is_served && !has_ended)
        kept_journal_note_served(journal, place.term);
    if (has_ended || !is_of_use(worker, journal)) {
        kept_journal_drop(journal);
        return false;
    }
    if (is_ours)
        kept_journal_let_go(journal);
    if (is_served)
        journal->unserved_ms = 0;
    else if (journal->unserved_ms == 0)
        journal->unserved_ms = clock_monotonic_ms();
    return true;
}

static struct started *
find_started(const struct worker *worker, const struct kept_journal *journal)
{
    LIST_FOREACH (link, &worker->started) {
        struct started *started = CONTAINER_OF(link, struct started, link);
        if (started->term == journal->started_term &&
            strcmp(started->name, journal->name) == 0)
            return started;
    }
    return NULL;
}

/* Its file is taken back when it has ended. */
static void
end_program(struct worker *worker, const struct kept_journal *journal)
{
    struct started *started = find_started(worker, journal);
    if (started != NULL)
        program_kill(started->program);
}

void
takeover_end_programs(struct worker *worker)
{
    LIST_FOREACH (link, &worker->kept_journals)
        end_program(worker, CONTAINER_OF(link, struct kept_journal, link));
}

/* As long as its program reads the journal. */
static void
renew_promise(struct worker *worker, struct kept_journal *journal)
{
    uint32_t own = own_node(worker);
    const struct member *self = membership_find(worker->membership, own);
    struct journal_ask message = {.name = slice_of_text(journal->name),
                                  .term = journal->started_term,
                                  .node = own,
                                  .intent = ASK_FOR_PROMISE};
    journal->renewed_ms = clock_monotonic_ms();
    if (self != NULL)
        kept_journal_promise_to(journal, self, journal->started_term);
    (void)ask_all(worker, NULL, &message);
}

static void
note_time(struct worker *worker, struct kept_journal *journal)
{
    uint64_t now = clock_monotonic_ms();
    if (journal->started_term != 0 && now >= journal->started_ms + STARTED_MS)
        end_program(worker, journal);
    else if (journal->started_term != 0 && now >= journal->renewed_ms + RENEW_MS)
        renew_promise(worker, journal);
    struct candidacy *candidacy = journal->candidacy;
    if (now >= journal->failed_until_ms)
        journal->failed_until_ms = 0;
    if (candidacy == NULL || now < candidacy->began_ms + ASKING_MS)
        return;
    candidacy->is_unheard = true;
    decide(candidacy); /* It ends with the last answer. */
}

static bool
is_due(const struct worker *worker, const struct kept_journal *journal)
{
    uint64_t now = clock_monotonic_ms();
    if (journal->unserved_ms == 0 || journal->candidacy != NULL ||
        journal->started_term != 0 || journal->failed_until_ms != 0 ||
        kept_journal_promise(worker, journal) > 0 || journal->whole.file == NULL ||
        now < journal->rests_until_ms || !owners_is_current(worker) ||
        owners_may_be_served(worker))
        return false;
    return !peers_know(worker->peers, journal->node, journal->incarnation) ||
           now >= journal->unserved_ms + UNSERVED_MS;
}

void
takeover_tick(struct worker *worker)
{
    LIST_FOREACH (link, &worker->kept_journals) {
        struct kept_journal *journal = CONTAINER_OF(link, struct kept_journal, link);
        if (!note_whether_served(worker, journal))
            continue;
        note_time(worker, journal);
        if (is_due(worker, journal))
            begin(worker, journal);
    }
}

void
takeover_stop(struct worker *worker)
{
    LIST_FOREACH (link, &worker->kept_journals)
        takeover_cancel(CONTAINER_OF(link, struct kept_journal, link));
    LIST_FOREACH (other, &worker->started) {
        struct started *started = CONTAINER_OF(other, struct started, link);
        program_forget(started->program);
        list_remove(&started->link);
        free(started);
    }
}
