#include "worker/client.h"

#include "worker/fixture.h"
#include "worker/objects.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ENOUGH_MS = 1000 }; /* What died is cleared away within a second. */

/* ---- A process of its own, that says it is done and then lives until it is killed ----
 */

struct other_process {
    pid_t pid;
    int done; /* Readable once it has done its part. */
};

typedef void (*part_fn)(struct caller *caller);

static void
play_part(struct fixture *fixture, part_fn part, int done)
{
    struct caller caller;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* Should the test fail. */
    caller_open_in_child(&caller, fixture);
    say_hello(&caller);
    part(&caller);
    if (write(done, "!", 1) != 1)
        _exit(EXIT_FAILURE);
    for (;;)
        pause();
}

static struct other_process
start_process(struct fixture *fixture, part_fn part)
{
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    struct other_process process = {.done = ends[0], .pid = fork()};
    CHECK(process.pid >= 0);
    if (process.pid == 0)
        play_part(fixture, part, ends[1]);
    close(ends[1]);
    char mark = 0;
    RUN_UNTIL(fixture, read(process.done, &mark, 1) >= 0);
    CHECK_INT(mark, '!'); /* Else it ended in the middle. */
    return process;
}

static void
kill_process(struct other_process *process)
{
    CHECK(kill(process->pid, SIGKILL) == 0);
    CHECK(waitpid(process->pid, NULL, 0) == process->pid);
    close(process->done);
}

/* ---- Death ---- */

static void
create_two_and_seal_one(struct caller *caller)
{
    struct wire_extent extent;
    if (call_create(caller, "unsealed", 1 << 20, &extent) != DS_OK)
        _exit(EXIT_FAILURE);
    (void)put(caller, "sealed", 1 << 20);
}

TEST(what_a_killed_process_had_not_sealed_is_free_within_a_second)
{
    FIXTURE(f, 64);
    struct other_process process = start_process(&f, create_two_and_seal_one);
    CHECK_INT(stats_of(&f).writing, 1);
    kill_process(&process);
    uint64_t begin_ms = clock_monotonic_ms();
    RUN_UNTIL(&f, stats_of(&f).clients == 0);
    CHECK(clock_monotonic_ms() - begin_ms < ENOUGH_MS);
    CHECK_INT(stats_of(&f).writing, 0);
    CHECK_INT(stats_of(&f).objects, 1); /* What was sealed is everybody's. */
    CHECK_INT(stats_of(&f).arena.used_bytes, 1 << 20);
    CHECK_INT(f.worker.counters.clients_died, 1);
}

TEST(what_a_killed_process_had_pinned_is_free_within_a_second)
{
    FIXTURE(f, 64);
    CALLER(writer, &f);
    say_hello(&writer);
    struct wire_extent extent = put(&writer, "a", 1 << 20);
    struct other_process process = start_process(&f, create_two_and_seal_one);
    struct welcome its = {.pins_offset =
                              writer.welcome.pins_offset + writer.welcome.pins_bytes};
    pin(&f, &its, 5, extent); /* As the process would, in its region: the next. */
    CHECK_OK(call_delete(&writer, "a"));
    (void)store_tick(f.worker.store, 0);
    CHECK_INT(stats_of(&f).dead, 1);
    kill_process(&process);
    RUN_UNTIL(&f, stats_of(&f).clients == 1);
    CHECK_INT(stats_of(&f).pins, 0);
    RUN_UNTIL(&f, stats_of(&f).dead == 0); /* Its checksum may still be computed. */
}

static void
create_too_much(struct caller *caller)
{
    send_create(caller, "a", 120 << 20); /* No reply yet: it waits for memory. */
}

TEST(a_create_that_waits_dies_with_its_process)
{
    FIXTURE(f, 160);
    struct other_process process = start_process(&f, create_too_much);
    RUN_UNTIL(&f, !list_is_empty(&f.worker.parked_creates));
    kill_process(&process);
    RUN_UNTIL(&f, stats_of(&f).clients == 0);
    CHECK(list_is_empty(&f.worker.parked_creates));
    RUN_UNTIL(&f, store_header(f.worker.store)->populated == 160 << 20);
    CHECK_INT(stats_of(&f).writing, 0);
}

TEST(losing_every_connection_is_not_death)
{
    FIXTURE(f, 64);
    struct caller before;
    struct wire_extent extent;
    caller_open(&before, &f);
    say_hello(&before);
    struct welcome welcome = before.welcome;
    CHECK_OK(call_create(&before, "a", 100, &extent));
    caller_close(&before);
    RUN_UNTIL(&f, f.worker.session_count == 0);
    for (int i = 0; i < 50; i++)
        turn(&f);
    CHECK_INT(stats_of(&f).writing, 1);

    CALLER(after, &f);
    CHECK_OK(say_hello_again(&after, &welcome, NULL, 0, HELLO_SHARED_MEMORY));
    CHECK_INT(after.welcome.client, welcome.client);
    CHECK_OK(call_seal(&after, extent.ref));
    CHECK_INT(stats_of(&f).clients, 1);
}

TEST(a_client_is_only_who_knows_its_token)
{
    FIXTURE(f, 64);
    CALLER(owner, &f);
    CALLER(thief, &f);
    say_hello(&owner);
    struct welcome guess = owner.welcome;
    guess.token ^= 1;
    CHECK_STATUS(say_hello_again(&thief, &guess, NULL, 0, HELLO_SHARED_MEMORY),
                 DS_NOT_FOUND);
    CHECK_CONTAINS((const char *)thief.body, "does not know client 1");
}

/* ---- Leaving ---- */

static void
send_claim(struct caller *caller, uint32_t client, uint64_t token)
{
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION,
                          .client = client,
                          .token = token};
    AUTO_WRITER(body);
    encode_hello(&body, &hello, NULL, 0);
    caller_send(caller, MESSAGE_FORK_CLAIM, bytes_of(&body));
}

/* Claims what the client has pinned; the answer is the mark that the child would keep
 * open. */
static int
claim(struct fixture *fixture, const struct welcome *parent)
{
    CALLER(caller, fixture);
    send_claim(&caller, parent->client, parent->token);
    CHECK(caller_receive(&caller));
    CHECK_STATUS(caller.reply.status, DS_OK);
    CHECK_INT(caller.fd_count, 1);
    caller.fd_count = 0;
    return caller.fds[0];
}

TEST(who_leaves_gives_back_its_place_and_all_that_it_had)
{
    FIXTURE(f, 64);
    CALLER(client, &f);
    CALLER(farewell, &f);
    struct wire_extent extent;
    say_hello(&client);
    struct welcome welcome = client.welcome;
    pin(&f, &welcome, 0, put(&client, "sealed", 1 << 20));
    CHECK_OK(call_create(&client, "unsealed", 1 << 20, &extent));
    CHECK_OK(call_leave(&farewell, &welcome, HELLO_SHARED_MEMORY));
    CHECK_INT(stats_of(&f).clients, 0);
    CHECK_INT(stats_of(&f).writing, 0);
    CHECK_INT(stats_of(&f).pins, 0);
    CHECK_INT(stats_of(&f).objects, 1);
    CHECK_INT(f.worker.counters.clients_died, 0);
    CHECK(!caller_receive(&client)); /* What it had not closed itself. */
    CHECK_INT(f.closed_lines, 0);
    CHECK_STATUS(call_leave(&farewell, &welcome, HELLO_SHARED_MEMORY), DS_NOT_FOUND);

    CALLER(next, &f);
    say_hello(&next);
    CHECK_INT(next.welcome.client, welcome.client);
}

TEST(nobody_makes_another_client_leave)
{
    FIXTURE(f, 64);
    CALLER(owner, &f);
    CALLER(thief, &f);
    say_hello(&owner);
    struct welcome guess = owner.welcome;
    guess.token ^= 1;
    CHECK_STATUS(call_leave(&thief, &guess, HELLO_SHARED_MEMORY), DS_NOT_FOUND);
    guess = owner.welcome;
    guess.incarnation ^= 1;
    CHECK_STATUS(call_leave(&thief, &guess, HELLO_SHARED_MEMORY), DS_NOT_FOUND);
    guess.client = 0;
    CHECK_STATUS(call_leave(&thief, &guess, HELLO_SHARED_MEMORY), DS_NOT_FOUND);
    struct caller tcp;
    caller_open_tcp(&tcp, &f, f.address);
    CHECK_STATUS(call_leave(&tcp, &owner.welcome, HELLO_SHARED_MEMORY), DS_UNSUPPORTED);
    caller_close(&tcp);
    CHECK_OK(caller_call(&owner, MESSAGE_PING, slice(NULL, 0)));
    CHECK_INT(stats_of(&f).clients, 1);
}

TEST(who_reserves_over_tcp_leaves_like_everybody)
{
    FIXTURE(f, 64);
    struct caller member, farewell;
    struct wire_extent extent;
    struct welcome nobody = {0};
    caller_open_tcp(&member, &f, f.address);
    caller_open_tcp(&farewell, &f, f.address);
    CHECK_OK(say_hello_again(&member, &nobody, NULL, 0, HELLO_MEMBER));
    CHECK_OK(call_create(&member, "unsealed", 1 << 20, &extent));
    CHECK_INT(stats_of(&f).clients, 1);
    CHECK_OK(call_leave(&farewell, &member.welcome, HELLO_MEMBER));
    CHECK_INT(stats_of(&f).clients, 0);
    CHECK_INT(stats_of(&f).writing, 0);
    caller_close(&member);
    caller_close(&farewell);
}

/* Its open timed out, say: it never heard that it had a place, and nobody would give it
 * back. */
TEST(who_goes_before_it_asked_for_anything_keeps_no_place)
{
    FIXTURE(f, 64);
    struct caller caller;
    caller_open(&caller, &f);
    say_hello(&caller);
    struct welcome welcome = caller.welcome;
    CHECK_INT(stats_of(&f).clients, 1);
    caller_close(&caller);
    RUN_UNTIL(&f, stats_of(&f).clients == 0);
    CALLER(again, &f);
    CHECK_STATUS(say_hello_again(&again, &welcome, NULL, 0, HELLO_SHARED_MEMORY),
                 DS_NOT_FOUND);
}

/* It reads without a word to the worker, and may hold what it read. */
TEST(who_has_mapped_its_pins_keeps_its_place_without_asking_for_anything)
{
    FIXTURE(f, 64);
    struct caller caller;
    caller_open(&caller, &f);
    say_hello(&caller);
    struct wire_extent nothing_yet = {0};
    pin(&f, &caller.welcome, 0, nothing_yet);
    unpin(&f, &caller.welcome, 0);
    caller_close(&caller);
    RUN_UNTIL(&f, f.worker.session_count == 0);
    CHECK_INT(stats_of(&f).clients, 1);
}

TEST(who_joined_twice_knows_of_its_place_and_keeps_it)
{
    FIXTURE(f, 64);
    struct caller first, second;
    caller_open(&first, &f);
    caller_open(&second, &f);
    say_hello(&first);
    CHECK_OK(say_hello_again(&second, &first.welcome, NULL, 0, HELLO_SHARED_MEMORY));
    caller_close(&first);
    caller_close(&second);
    RUN_UNTIL(&f, f.worker.session_count == 0);
    CHECK_INT(stats_of(&f).clients, 1);
}

/* Children of a fork, here. */
TEST(places_of_processes_that_cannot_be_seen_are_told_as_such)
{
    enum { PLACES = 200 };
    FIXTURE(f, 64);
    CALLER(parent, &f);
    CALLER(late, &f);
    int claims[PLACES];
    struct welcome nobody = {0};
    say_hello(&parent);
    for (int i = 0; i < PLACES - 1; i++)
        claims[i] = claim(&f, &parent.welcome);
    CHECK_STATUS(say_hello_again(&late, &nobody, NULL, 0, HELLO_SHARED_MEMORY),
                 DS_FULL);
    CHECK_CONTAINS((const char *)late.body, "Client number upper to the limit");
    CHECK_CONTAINS((const char *)late.body, "199 of them by processes that the worker");
    CHECK_CONTAINS((const char *)late.body, "--max_client_num");
    for (int i = 0; i < PLACES - 1; i++)
        close(claims[i]);
    RUN_UNTIL(&f, stats_of(&f).clients == 1);
    say_hello(&late);
}

/* ---- Restart ---- */

TEST(after_a_restart_a_client_keeps_what_it_says_it_holds)
{
    FIXTURE(f, 64);
    struct caller before;
    struct wire_extent kept;
    struct wire_extent dropped;
    caller_open(&before, &f);
    say_hello(&before);
    struct welcome welcome = before.welcome;
    (void)put(&before, "sealed", 100);
    CHECK_OK(call_create(&before, "kept", 100, &kept));
    CHECK_OK(call_create(&before, "dropped", 100, &dropped));
    fixture_stop(&f);
    caller_close(&before);
    fixture_start_again(&f);
    CHECK_INT(stats_of(&f).writing, 2);

    CALLER(after, &f);
    CHECK_STATUS(say_hello_again(&after, &welcome, NULL, 0, HELLO_SHARED_MEMORY),
                 DS_NOT_READY);
    CHECK_CONTAINS((const char *)after.body, "say first what client 1 still holds");
    CHECK_INT(stats_of(&f).writing, 2);
    CHECK_OK(say_hello_again(&after, &welcome, &kept.ref, 1,
                             HELLO_SHARED_MEMORY | HELLO_RESUME));
    CHECK_INT(stats_of(&f).writing, 1);
    CHECK_OK(call_seal(&after, kept.ref));
    CHECK_STATUS(call_seal(&after, dropped.ref), DS_INVALID);
    CHECK_INT(stats_of(&f).objects, 2);

    CALLER(second, &f); /* The client has said it; its other connections need not. */
    CHECK_OK(say_hello_again(&second, &welcome, NULL, 0, HELLO_SHARED_MEMORY));
}

TEST(after_a_restart_nothing_of_a_living_client_is_given_up)
{
    FIXTURE(f, 64);
    CALLER(writer, &f);
    say_hello(&writer);
    struct wire_extent pinned = put(&writer, "a", 1 << 20);
    pin(&f, &writer.welcome, 0, pinned);
    CHECK_OK(call_delete(&writer, "a"));
    fixture_stop(&f);
    fixture_start_again(&f);
    (void)store_tick(f.worker.store, 0);
    CHECK_INT(stats_of(&f).dead, 1);
    CHECK_INT(stats_of(&f).pins, 1);
}

TEST(who_died_while_the_worker_was_away_is_buried_at_once)
{
    FIXTURE(f, 64);
    struct other_process process = start_process(&f, create_two_and_seal_one);
    fixture_stop(&f);
    kill_process(&process);
    fixture_start_again(&f);
    CHECK_INT(stats_of(&f).clients, 0);
    CHECK_INT(stats_of(&f).writing, 0);
    CHECK_INT(stats_of(&f).objects, 1);
}

/* ---- Fork ---- */

TEST(a_fork_claim_keeps_pins_until_its_mark_goes)
{
    FIXTURE(f, 64);
    CALLER(parent, &f);
    say_hello(&parent);
    struct wire_extent extent = put(&parent, "a", 1 << 20);
    pin(&f, &parent.welcome, 0, extent);
    int kept = claim(&f, &parent.welcome);
    CHECK_INT(stats_of(&f).pins, 2);

    CHECK_OK(call_delete(&parent, "a"));
    unpin(&f, &parent.welcome, 0);
    (void)store_tick(f.worker.store, 0);
    CHECK_INT(stats_of(&f).dead, 1);
    for (int i = 0; i < 50; i++)
        turn(&f);
    CHECK_INT(stats_of(&f).dead, 1);

    close(kept); /* The last process that held it has ended. */
    RUN_UNTIL(&f, stats_of(&f).clients == 1);
    CHECK_INT(stats_of(&f).pins, 0);
    RUN_UNTIL(&f, stats_of(&f).dead == 0); /* Its checksum may still be computed. */
}

TEST(a_fork_claim_outlives_the_parents_connections)
{
    FIXTURE(f, 64);
    struct caller parent;
    caller_open(&parent, &f);
    say_hello(&parent);
    struct wire_extent extent = put(&parent, "a", 1 << 20);
    pin(&f, &parent.welcome, 0, extent);
    int kept = claim(&f, &parent.welcome);
    caller_close(&parent);
    RUN_UNTIL(&f, f.worker.session_count == 0);
    CHECK_INT(stats_of(&f).clients, 2);
    close(kept);
    RUN_UNTIL(&f, stats_of(&f).clients == 1);
}

/* The kernel keeps the mark, so the claim is as good for the next worker. */
TEST(a_fork_claim_outlives_the_worker)
{
    FIXTURE(f, 64);
    CALLER(parent, &f);
    say_hello(&parent);
    struct wire_extent extent = put(&parent, "a", 1 << 20);
    pin(&f, &parent.welcome, 0, extent);
    int kept = claim(&f, &parent.welcome);
    unpin(&f, &parent.welcome, 0);
    CHECK_OK(call_delete(&parent, "a"));
    fixture_stop(&f);
    fixture_start_again(&f);
    uint64_t begin_ms = clock_monotonic_ms();
    RUN_UNTIL(&f, clock_monotonic_ms() - begin_ms > 3 * WORKER_TICK_MS);
    CHECK_INT(stats_of(&f).clients, 2);
    CHECK_INT(stats_of(&f).dead, 1);
    close(kept);
    RUN_UNTIL(&f, stats_of(&f).clients == 1);
    CHECK_INT(stats_of(&f).dead, 0);
}

TEST(a_fork_claim_that_ended_while_the_worker_was_away_is_gone)
{
    FIXTURE(f, 64);
    CALLER(parent, &f);
    say_hello(&parent);
    struct wire_extent extent = put(&parent, "a", 1 << 20);
    pin(&f, &parent.welcome, 0, extent);
    int kept = claim(&f, &parent.welcome);
    fixture_stop(&f);
    close(kept);
    fixture_start_again(&f);
    CHECK_INT(stats_of(&f).clients, 1);
    CHECK_INT(stats_of(&f).pins, 1);
}

/* The worker asks for some of the marks at each tick, and yet for every one. */
TEST(of_many_fork_claims_those_that_ended_go)
{
    enum { CLAIMS = 150 };
    int kept[CLAIMS];
    FIXTURE(f, 64);
    CALLER(parent, &f);
    say_hello(&parent);
    int before = test_open_fds();
    for (int i = 0; i < CLAIMS; i++)
        kept[i] = claim(&f, &parent.welcome);
    CHECK_INT(stats_of(&f).clients, CLAIMS + 1);
    for (int i = 0; i < 50; i++)
        turn(&f);
    CHECK_INT(test_open_fds(), before + CLAIMS); /* The worker itself keeps none. */
    for (int i = 0; i < CLAIMS; i += 2)
        close(kept[i]);
    RUN_UNTIL(&f, stats_of(&f).clients == CLAIMS / 2 + 1);
    clients_tick(&f.worker, clock_monotonic_ms());
    CHECK_INT(stats_of(&f).clients, CLAIMS / 2 + 1);
    for (int i = 1; i < CLAIMS; i += 2)
        close(kept[i]);
    RUN_UNTIL(&f, stats_of(&f).clients == 1);
}

/* The reply, with the mark in it, goes to nobody. */
TEST(a_fork_claim_that_nobody_waits_for_ends_by_itself)
{
    FIXTURE(f, 64);
    CALLER(parent, &f);
    struct caller caller;
    say_hello(&parent);
    caller_open(&caller, &f);
    send_claim(&caller, parent.welcome.client, parent.welcome.token);
    caller_close(&caller);
    RUN_UNTIL(&f, f.worker.counters.clients_died == 1);
    CHECK_INT(stats_of(&f).clients, 1);
}

TEST(a_fork_claim_needs_the_token_of_a_client)
{
    FIXTURE(f, 64);
    CALLER(parent, &f);
    CALLER(thief, &f);
    say_hello(&parent);
    send_claim(&thief, parent.welcome.client, parent.welcome.token ^ 1);
    CHECK(caller_receive(&thief));
    CHECK_STATUS(thief.reply.status, DS_NOT_FOUND);
    CHECK_CONTAINS((const char *)thief.body, "does not know client 1");
    send_claim(&thief, 0, 0);
    CHECK(caller_receive(&thief));
    CHECK_STATUS(thief.reply.status, DS_NOT_FOUND);
    CHECK_INT(stats_of(&f).clients, 1);
}

TEST(a_malformed_fork_claim_is_refused)
{
    FIXTURE(f, 64);
    CALLER(empty, &f);
    CALLER(stranger, &f);
    struct caller far_away;
    int end = dup(0);
    say_hello(&empty);
    caller_send(&empty, MESSAGE_FORK_CLAIM, slice(NULL, 0));
    check_closed(&empty);
    caller_send_fds(&stranger, MESSAGE_FORK_CLAIM, &end, 1);
    check_closed(&stranger);
    caller_open_tcp(&far_away, &f, f.address);
    send_claim(&far_away, 1, 1); /* No descriptor gets there. */
    check_closed(&far_away);
    CHECK_INT(f.worker.counters.protocol_errors, 3);
    caller_close(&far_away);
    close(end);
}

/* Two threads find out at once that a worker was started again. The one that took stock
 * first says so last, after the other has reserved something. */
TEST(what_a_late_resume_does_not_know_of_stays_reserved)
{
    FIXTURE(f, 64);
    CALLER(before, &f);
    say_hello(&before);
    struct welcome welcome = before.welcome;
    uint32_t flags = HELLO_SHARED_MEMORY | HELLO_RESUME;
    struct wire_extent extent;
    CALLER(first, &f);
    first.epoch = 2;
    CHECK_OK(say_hello_again(&first, &welcome, NULL, 0, flags));
    CHECK_OK(call_create(&first, "a", 100, &extent));
    CALLER(late, &f);
    late.epoch = 1;
    CHECK_OK(say_hello_again(&late, &welcome, NULL, 0, flags));
    CHECK_INT(stats_of(&f).writing, 1);
    CHECK_OK(call_seal(&late, extent.ref));
    CALLER(next, &f);
    next.epoch = 3;
    CHECK_OK(call_create(&first, "b", 100, &extent));
    CHECK_OK(say_hello_again(&next, &welcome, NULL, 0, flags));
    CHECK_INT(stats_of(&f).writing, 0);
}

TEST_MAIN(RUN(what_a_late_resume_does_not_know_of_stays_reserved),
          RUN(what_a_killed_process_had_not_sealed_is_free_within_a_second),
          RUN(what_a_killed_process_had_pinned_is_free_within_a_second),
          RUN(a_create_that_waits_dies_with_its_process),
          RUN(losing_every_connection_is_not_death),
          RUN(a_client_is_only_who_knows_its_token),
          RUN(who_leaves_gives_back_its_place_and_all_that_it_had),
          RUN(nobody_makes_another_client_leave),
          RUN(who_reserves_over_tcp_leaves_like_everybody),
          RUN(who_goes_before_it_asked_for_anything_keeps_no_place),
          RUN(who_has_mapped_its_pins_keeps_its_place_without_asking_for_anything),
          RUN(who_joined_twice_knows_of_its_place_and_keeps_it),
          RUN(places_of_processes_that_cannot_be_seen_are_told_as_such),
          RUN(after_a_restart_a_client_keeps_what_it_says_it_holds),
          RUN(after_a_restart_nothing_of_a_living_client_is_given_up),
          RUN(who_died_while_the_worker_was_away_is_buried_at_once),
          RUN(a_fork_claim_keeps_pins_until_its_mark_goes),
          RUN(a_fork_claim_outlives_the_parents_connections),
          RUN(a_fork_claim_outlives_the_worker),
          RUN(a_fork_claim_that_ended_while_the_worker_was_away_is_gone),
          RUN(of_many_fork_claims_those_that_ended_go),
          RUN(a_fork_claim_that_nobody_waits_for_ends_by_itself),
          RUN(a_fork_claim_needs_the_token_of_a_client),
          RUN(a_malformed_fork_claim_is_refused))
