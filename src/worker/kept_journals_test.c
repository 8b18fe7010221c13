/* A worker as the keeper of a journal, and as the one that has its copies made, beside
 * another worker, which is scripted. */
#include "worker/kept_journals.h"

#include "os/files.h"
#include "wire/journals.h"
#include "worker/owners.h"
#include "worker/peers_testing.h"
#include "worker/queues.h"

#include <sys/stat.h>
#include <time.h>

enum { ID = 77, OTHER_ID = 78 };

static const char records[] = "header, and records that nobody looks at here";

/* ---- The other worker, as a keeper ---- */

static _Atomic uint64_t kept_bytes;
static _Atomic uint64_t kept_sequence;
static atomic_int answers; /* enum ds_status */
static atomic_bool is_mute;

WELCOMING(keeps)
{
    struct journal_write piece;
    AUTO_WRITER(out);
    if (header->type == MESSAGE_JOURNAL_DROP) {
        atomic_store(&kept_bytes, 0);
        return fake_reply(fd, header, DS_OK, (struct ds_slice){0},
                          (struct ds_slice){0});
    }
    if (header->type != MESSAGE_JOURNAL_WRITE || !decode_journal_write(body, &piece))
        return false;
    while (atomic_load(&is_mute)) {
        struct timespec rest = {.tv_nsec = 5000000};
        nanosleep(&rest, NULL);
    }
    enum ds_status status = (enum ds_status)atomic_load(&answers);
    if (status != DS_OK)
        return fake_reply(fd, header, status, slice_of_text("no"),
                          (struct ds_slice){0});
    bool fits = piece.bytes.len <= sizeof records - piece.offset &&
                memcmp(records + piece.offset, piece.bytes.data, piece.bytes.len) == 0;
    if (piece.offset == 0)
        atomic_store(&kept_bytes, 0);
    if (!fits || piece.offset != atomic_load(&kept_bytes))
        return false;
    atomic_fetch_add(&kept_bytes, piece.bytes.len);
    if (piece.sequence > 0)
        atomic_store(&kept_sequence, piece.sequence);
    encode_journal_written(&out, atomic_load(&kept_bytes));
    return fake_reply(fd, header, DS_OK, slice(out.data, out.len),
                      (struct ds_slice){0});
}

/* ---- Writing to ours ---- */

static enum ds_status
write_piece(struct caller *caller, struct journal_write piece, uint64_t *out_bytes)
{
    AUTO_WRITER(body);
    piece.name = slice_of_text("train");
    encode_journal_write(&body, &piece);
    enum ds_status status = caller_call(caller, MESSAGE_JOURNAL_WRITE, bytes_of(&body));
    if (status == DS_OK)
        CHECK(decode_journal_written(body_of(caller), out_bytes));
    return status;
}

static struct journal_write
piece_of(uint64_t term, uint64_t id, uint64_t offset, size_t bytes, uint64_t sequence)
{
    return (struct journal_write){.term = term,
                                  .node = NODE,
                                  .incarnation = INCARNATION,
                                  .id = id,
                                  .offset = offset,
                                  .sequence = sequence,
                                  .bytes = slice(records + offset, bytes)};
}

static struct journal_known
ask(struct caller *caller, uint64_t term, enum ask_intent intent)
{
    AUTO_WRITER(body);
    struct journal_known known = {0};
    struct journal_ask message = {slice_of_text("train"), term, NODE, intent};
    encode_journal_ask(&body, &message);
    CHECK_OK(caller_call(caller, MESSAGE_JOURNAL_ASK, bytes_of(&body)));
    CHECK(decode_journal_known(body_of(caller), &known));
    return known;
}

static void
drop(struct caller *caller, uint64_t term, enum ask_intent intent)
{
    AUTO_WRITER(body);
    struct journal_ask message = {slice_of_text("train"), term, NODE, intent};
    encode_journal_ask(&body, &message);
    CHECK_OK(caller_call(caller, MESSAGE_JOURNAL_DROP, bytes_of(&body)));
}

struct pair {
    struct fake_peer other;
    struct caller member; /* Keeps the other one a member. */
    struct caller caller;
};

static void
pair_open(struct pair *pair, struct fixture *f)
{
    atomic_store(&kept_bytes, 0);
    atomic_store(&kept_sequence, 0);
    atomic_store(&answers, DS_OK);
    atomic_store(&is_mute, false);
    fake_peer_start_tcp(&pair->other, keeps);
    join_with(f, &pair->member, &pair->other, "another");
    caller_open(&pair->caller, f);
    say_hello_as_member(&pair->caller);
    struct caller as_other;
    caller_open_tcp(&as_other, f, f->address);
    say_hello_as_member(&as_other);
    report_of(f, &as_other, owners_epoch(f->worker.owners), NULL);
    caller_close(&as_other);
}

static void
pair_close(struct pair *pair)
{
    atomic_store(&is_mute, false);
    caller_close(&pair->caller);
    caller_close(&pair->member);
    fake_peer_stop(&pair->other);
}

static uint32_t
kept_count(const struct fixture *f)
{
    return kept_journals_count(&f->worker);
}

TEST(a_copy_is_whole_with_its_last_piece_and_grows)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    pair_open(&pair, &f);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 0), &bytes));
    CHECK_INT(bytes, 8);
    CHECK_INT(kept_count(&f), 0);
    CHECK(!ask(&pair.caller, 0, ASK_TO_KNOW).has_copy);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 8, 4, 3), &bytes));
    CHECK_INT(bytes, 12);
    CHECK_INT(kept_count(&f), 1);
    struct journal_known known = ask(&pair.caller, 0, ASK_TO_KNOW);
    CHECK(known.has_copy && known.heard == 1 && known.copy_term == 1 &&
          known.sequence == 3);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 12, 4, 4), &bytes));
    CHECK_INT(ask(&pair.caller, 0, ASK_TO_KNOW).sequence, 4);
    pair_close(&pair);
}

TEST(a_piece_that_does_not_follow_is_not_written)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    pair_open(&pair, &f);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 8, 4, 3), &bytes));
    CHECK_INT(bytes, 0);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 2), &bytes));
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 12, 4, 3), &bytes));
    CHECK_INT(bytes, 8);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, OTHER_ID, 8, 4, 3), &bytes));
    CHECK_INT(bytes, 0);
    CHECK_INT(ask(&pair.caller, 0, ASK_TO_KNOW).sequence, 2);
    pair_close(&pair);
}

/* A journal that is written anew is sent from its beginning. */
TEST(the_old_copy_stays_until_the_new_one_is_whole)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    pair_open(&pair, &f);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 5), &bytes));
    CHECK_OK(write_piece(&pair.caller, piece_of(1, OTHER_ID, 0, 4, 0), &bytes));
    CHECK_INT(ask(&pair.caller, 0, ASK_TO_KNOW).sequence, 5);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, OTHER_ID, 4, 4, 9), &bytes));
    CHECK_INT(ask(&pair.caller, 0, ASK_TO_KNOW).sequence, 9);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 8, 4, 6), &bytes));
    CHECK_INT(bytes, 0);
    pair_close(&pair);
}

TEST(who_was_promised_a_later_term_is_waited_for_until_it_withdraws)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    pair_open(&pair, &f);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 5), &bytes));
    CHECK_INT(ask(&pair.caller, 3, ASK_FOR_PROMISE).promised, 0);
    CHECK_STATUS(write_piece(&pair.caller, piece_of(1, ID, 8, 4, 6), &bytes),
                 DS_NOT_READY);
    CHECK_STATUS(write_piece(&pair.caller, piece_of(2, ID, 8, 4, 6), &bytes),
                 DS_NOT_READY);
    CHECK_INT(ask(&pair.caller, 2, ASK_FOR_PROMISE).heard, 3);
    CHECK_INT(ask(&pair.caller, 3, ASK_WITHDRAWN).heard, 3);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 8, 4, 6), &bytes));
    CHECK_INT(bytes, 12);
    /* Whoever had asked for it comes too late: the first one has gone on. */
    CHECK_STATUS(write_piece(&pair.caller, piece_of(3, ID, 0, 4, 6), &bytes),
                 DS_EXISTS);
    CHECK_OK(write_piece(&pair.caller, piece_of(4, ID, 0, 4, 6), &bytes));
    pair_close(&pair);
}

/* Also one that keeps nothing of it yet. */
TEST(a_promise_is_kept_without_a_copy)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    pair_open(&pair, &f);
    CHECK(!ask(&pair.caller, 2, ASK_FOR_PROMISE).has_copy);
    CHECK_STATUS(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 5), &bytes),
                 DS_NOT_READY);
    CHECK_OK(write_piece(&pair.caller, piece_of(2, ID, 0, 8, 5), &bytes));
    CHECK_STATUS(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 5), &bytes),
                 DS_EXISTS);
    pair_close(&pair);
}

/* Which of two copies goes on: a longer one may be of an earlier controller. */
TEST(a_copy_says_whose_it_is_until_another_is_whole)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    pair_open(&pair, &f);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 50), &bytes));
    CHECK_OK(write_piece(&pair.caller, piece_of(2, OTHER_ID, 0, 4, 0), &bytes));
    struct journal_known known = ask(&pair.caller, 0, ASK_TO_KNOW);
    CHECK(known.heard == 2 && known.copy_term == 1 && known.sequence == 50);
    CHECK_OK(write_piece(&pair.caller, piece_of(2, OTHER_ID, 4, 4, 9), &bytes));
    known = ask(&pair.caller, 0, ASK_TO_KNOW);
    CHECK(known.copy_term == 2 && known.sequence == 9);
    pair_close(&pair);
}

TEST(what_a_later_controller_wrote_is_not_for_an_earlier_one)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    pair_open(&pair, &f);
    CHECK_OK(write_piece(&pair.caller, piece_of(2, ID, 0, 8, 5), &bytes));
    CHECK_STATUS(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 5), &bytes),
                 DS_EXISTS);
    pair_close(&pair);
}

TEST(a_copy_that_is_dropped_leaves_no_file)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    char folder[PATH_MAX + 16];
    pair_open(&pair, &f);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 5), &bytes));
    snprintf(folder, sizeof folder, "%s/journals", f.resources.home);
    CHECK(files_exists(folder));
    drop(&pair.caller, 1, ASK_TO_KNOW);
    CHECK_INT(kept_count(&f), 0);
    pair_close(&pair);
    fixture_stop(&f);
    CHECK(!files_exists(folder));
    fixture_start_again(&f);
}

/* Its copy would win against that of the controller before it, which goes on. */
TEST(what_a_controller_wrote_that_came_to_nothing_goes)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    pair_open(&pair, &f);
    CHECK_OK(write_piece(&pair.caller, piece_of(2, ID, 0, 8, 5), &bytes));
    drop(&pair.caller, 3, ASK_WITHDRAWN);
    CHECK_INT(kept_count(&f), 1);
    drop(&pair.caller, 2, ASK_WITHDRAWN);
    CHECK_INT(kept_count(&f), 0);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 9), &bytes));
    CHECK_INT(kept_count(&f), 1);
    pair_close(&pair);
}

TEST(who_asks_hears_which_controllers_came_to_nothing)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    pair_open(&pair, &f);
    CHECK_INT(ask(&pair.caller, 5, ASK_FOR_PROMISE).dead, 0);
    (void)ask(&pair.caller, 5, ASK_WITHDRAWN);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 9), &bytes));
    struct journal_known known = ask(&pair.caller, 0, ASK_TO_KNOW);
    CHECK(known.dead == 5 && known.copy_term == 1);
    CHECK_STATUS(write_piece(&pair.caller, piece_of(5, ID, 0, 8, 9), &bytes),
                 DS_EXISTS);
    pair_close(&pair);
}

/* It does not know yet which controllers are here. */
TEST(a_worker_started_again_has_who_may_be_late_wait)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    struct journal_write piece = piece_of(1, ID, 0, 8, 9);
    pair_open(&pair, &f);
    f.worker.restarts = 1;
    f.worker.started_ms = clock_monotonic_ms() + 60000;
    piece.is_unsure = true;
    CHECK_STATUS(write_piece(&pair.caller, piece, &bytes), DS_NOT_READY);
    piece.is_unsure = false;
    CHECK_OK(write_piece(&pair.caller, piece, &bytes));
    f.worker.started_ms -= 120000;
    piece.is_unsure = true;
    CHECK_OK(write_piece(&pair.caller, piece, &bytes));
    f.worker.restarts = 0;
    pair_close(&pair);
}

/* ---- Copies of a queue that is served here ---- */

static void
write_file(const struct fixture *f, char *out_path, size_t path_bytes, size_t bytes)
{
    snprintf(out_path, path_bytes, "%s/controller.journal", f->folder);
    FILE *file = fopen(out_path, "w");
    CHECK(file != NULL && fwrite(records, 1, bytes, file) == bytes);
    CHECK_INT(fclose(file), 0);
}

static enum ds_status
try_to_serve(struct caller *controller, const char *path, uint64_t term,
             bool has_answered)
{
    struct queue_serve message = {
        .place = {.name = slice_of_text("train"),
                  .address = slice_of_text("unix:/run/nobody.sock"),
                  .tcp_address = slice_of_text("10.0.0.1:31600"),
                  .term = term},
        .copies_max = 2,
        .has_answered = has_answered,
        .journal_path = slice_of_text(path)};
    AUTO_WRITER(body);
    encode_queue_serve(&body, &message);
    return caller_call(controller, MESSAGE_QUEUE_SERVE, bytes_of(&body));
}

static void
serve(struct caller *controller, const char *path, uint64_t term)
{
    bool is_copied = false;
    CHECK_OK(try_to_serve(controller, path, term, term == QUEUE_TERM_FIRST));
    CHECK(decode_queue_served(body_of(controller), &is_copied) && is_copied);
}

static void
send_sync(struct caller *controller, const char *path, uint64_t number, uint64_t bytes)
{
    struct stat info;
    CHECK_INT(stat(path, &info), 0);
    struct journal_sync sync = {.number = number,
                                .id = ID,
                                .inode = info.st_ino,
                                .bytes = bytes,
                                .sequence = bytes};
    AUTO_WRITER(body);
    encode_journal_sync(&body, &sync);
    caller_send(controller, MESSAGE_JOURNAL_SYNC, bytes_of(&body));
}

/* Until when it may answer without asking again; 0: it has to ask. */
static uint64_t
check_synced(struct caller *controller, uint64_t number)
{
    struct journal_synced synced = {0};
    CHECK(caller_receive(controller));
    CHECK_OK(controller->reply.status);
    CHECK(decode_journal_synced(body_of(controller), &synced));
    CHECK_INT(synced.number, number);
    return synced.lease_until;
}

TEST(an_answer_waits_for_the_copy)
{
    FIXTURE(f, 64);
    struct pair pair;
    char path[PATH_MAX];
    pair_open(&pair, &f);
    write_file(&f, path, sizeof path, sizeof records);
    serve(&pair.caller, path, QUEUE_TERM_FIRST);
    send_sync(&pair.caller, path, 1, 10);
    (void)check_synced(&pair.caller, 1);
    CHECK_INT(atomic_load(&kept_bytes), 10);
    CHECK_INT(atomic_load(&kept_sequence), 10);
    send_sync(&pair.caller, path, 2, sizeof records);
    (void)check_synced(&pair.caller, 2);
    CHECK_INT(atomic_load(&kept_bytes), sizeof records);
    pair_close(&pair);
}

/* It is waited for no longer, but only while our lease lasts, and it catches up. */
TEST(a_keeper_that_says_nothing_is_late)
{
    FIXTURE(f, 64);
    struct pair pair;
    char path[PATH_MAX];
    pair_open(&pair, &f);
    write_file(&f, path, sizeof path, sizeof records);
    serve(&pair.caller, path, QUEUE_TERM_FIRST);
    atomic_store(&is_mute, true);
    uint64_t began_ms = clock_monotonic_ms();
    send_sync(&pair.caller, path, 1, 10);
    (void)check_synced(&pair.caller, 1);
    CHECK(clock_monotonic_ms() >= began_ms + 900);
    atomic_store(&is_mute, false);
    RUN_UNTIL(&f, atomic_load(&kept_sequence) == 10);
    pair_close(&pair);
}

TEST(a_controller_whose_successor_is_known_is_told)
{
    FIXTURE(f, 64);
    struct pair pair;
    char path[PATH_MAX];
    pair_open(&pair, &f);
    write_file(&f, path, sizeof path, sizeof records);
    serve(&pair.caller, path, QUEUE_TERM_FIRST);
    atomic_store(&answers, DS_EXISTS);
    send_sync(&pair.caller, path, 1, 10);
    CHECK(caller_receive(&pair.caller));
    CHECK_STATUS(pair.caller.reply.status, DS_EXISTS);
    pair_close(&pair);
}

/* Of what it wrote, if nobody has ever heard anything from it, nothing stays. */
TEST(a_controller_that_was_refused_takes_back_what_was_an_attempt_only)
{
    for (int has_answered = 0; has_answered <= 1; has_answered++) {
        FIXTURE(f, 64);
        struct pair pair;
        char path[PATH_MAX];
        pair_open(&pair, &f);
        write_file(&f, path, sizeof path, sizeof records);
        CHECK_OK(try_to_serve(&pair.caller, path, 2, has_answered == 1));
        atomic_store(&kept_bytes, 10);
        atomic_store(&answers, DS_EXISTS);
        send_sync(&pair.caller, path, 1, 10);
        CHECK(caller_receive(&pair.caller));
        CHECK_STATUS(pair.caller.reply.status, DS_EXISTS);
        uint64_t until_ms = clock_monotonic_ms() + 200;
        if (has_answered == 0)
            RUN_UNTIL(&f, atomic_load(&kept_bytes) == 0);
        else
            RUN_UNTIL(&f, clock_monotonic_ms() >= until_ms);
        CHECK_INT(atomic_load(&kept_bytes), has_answered == 0 ? 0 : 10);
        pair_close(&pair);
    }
}

/* Others than these keepers may have had its copies before. */
TEST(without_a_lease_nothing_is_answered_first)
{
    FIXTURE(f, 64);
    struct pair pair;
    char path[PATH_MAX];
    pair_open(&pair, &f);
    write_file(&f, path, sizeof path, sizeof records);
    serve(&pair.caller, path, QUEUE_TERM_FIRST);
    store_set_lease(f.worker.store, 0);
    RUN_UNTIL(&f, owners_is_current(&f.worker)); /* Just now: not again for a while. */
    store_set_lease(f.worker.store, 0);
    send_sync(&pair.caller, path, 1, 10);
    CHECK(check_synced(&pair.caller, 1) > 0); /* When it has one again. */
    pair_close(&pair);
}

TEST(a_controller_that_another_went_past_cannot_come_back)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t bytes = 0;
    char path[PATH_MAX];
    CALLER(controller, &f);
    pair_open(&pair, &f);
    (void)ask(&pair.caller, 5, ASK_FOR_PROMISE);
    (void)ask(&pair.caller, 5, ASK_WITHDRAWN);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 9), &bytes));
    struct kept_journal *kept = kept_journals_find(&f.worker, slice_of_text("train"));
    kept_journal_note_served(kept, 5); /* Somebody has listed it. */
    CHECK_INT(kept->term, 1);
    write_file(&f, path, sizeof path, sizeof records);
    say_hello_as_member(&controller);
    CHECK_STATUS(try_to_serve(&controller, path, 5, true), DS_EXISTS);
    CHECK_OK(write_piece(&pair.caller, piece_of(1, ID, 8, 4, 10), &bytes));
    kept_journal_note_served(kept, 6);
    CHECK_STATUS(write_piece(&pair.caller, piece_of(1, ID, 12, 4, 11), &bytes),
                 DS_EXISTS);
    pair_close(&pair);
}

/* Whoever had the queue before may not have heard of it. */
TEST(a_term_that_was_served_is_remembered_when_nobody_serves_it)
{
    FIXTURE(f, 64);
    struct pair pair;
    CALLER(controller, &f);
    struct ds_slice name = slice_of_text("train");
    char path[PATH_MAX];
    uint64_t bytes = 0;
    pair_open(&pair, &f);
    CHECK(!ask(&pair.caller, 2, ASK_FOR_PROMISE).has_copy);
    write_file(&f, path, sizeof path, sizeof records);
    say_hello_as_member(&controller);
    serve(&controller, path, 2);
    RUN_UNTIL(&f, kept_journals_find(&f.worker, name)->term == 2);
    caller_close(&controller);
    RUN_UNTIL(&f, queues_term(&f.worker, name) == 0);
    (void)ask(&pair.caller, 2, ASK_WITHDRAWN);
    CHECK_STATUS(write_piece(&pair.caller, piece_of(1, ID, 0, 8, 5), &bytes),
                 DS_EXISTS);
    pair_close(&pair);
}

TEST(the_copies_of_a_queue_that_has_ended_go)
{
    FIXTURE(f, 64);
    struct pair pair;
    char path[PATH_MAX];
    CALLER(client, &f);
    pair_open(&pair, &f);
    write_file(&f, path, sizeof path, sizeof records);
    serve(&pair.caller, path, QUEUE_TERM_FIRST);
    send_sync(&pair.caller, path, 1, 10);
    (void)check_synced(&pair.caller, 1);
    CHECK_OK(caller_call(&pair.caller, MESSAGE_JOURNAL_END, (struct ds_slice){0}));
    RUN_UNTIL(&f, atomic_load(&kept_bytes) == 0);
    say_hello(&client);
    AUTO_WRITER(body);
    encode_queue_place(&body, &(struct queue_place){.name = slice_of_text("train")});
    CHECK_STATUS(caller_call(&client, MESSAGE_QUEUE_FIND, bytes_of(&body)),
                 DS_NOT_FOUND); /* Not: perhaps somebody goes on with it. */
    pair_close(&pair);
}

TEST_MAIN(RUN(a_copy_is_whole_with_its_last_piece_and_grows),
          RUN(a_piece_that_does_not_follow_is_not_written),
          RUN(the_old_copy_stays_until_the_new_one_is_whole),
          RUN(who_was_promised_a_later_term_is_waited_for_until_it_withdraws),
          RUN(a_promise_is_kept_without_a_copy),
          RUN(a_copy_says_whose_it_is_until_another_is_whole),
          RUN(what_a_later_controller_wrote_is_not_for_an_earlier_one),
          RUN(a_copy_that_is_dropped_leaves_no_file),
          RUN(what_a_controller_wrote_that_came_to_nothing_goes),
          RUN(who_asks_hears_which_controllers_came_to_nothing),
          RUN(a_worker_started_again_has_who_may_be_late_wait),
          RUN(an_answer_waits_for_the_copy), RUN(a_keeper_that_says_nothing_is_late),
          RUN(a_controller_whose_successor_is_known_is_told),
          RUN(a_controller_that_was_refused_takes_back_what_was_an_attempt_only),
          RUN(without_a_lease_nothing_is_answered_first),
          RUN(a_controller_that_another_went_past_cannot_come_back),
          RUN(a_term_that_was_served_is_remembered_when_nobody_serves_it),
          RUN(the_copies_of_a_queue_that_has_ended_go))
