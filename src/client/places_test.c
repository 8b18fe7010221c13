/* The places for clients that a worker has (--max_client_num): who takes one, when it
 * is free again, and what who finds none is told. */
#include "client/testing_each.h"

#include "os/clock.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PLACES = 200, WAIT_MS = 10000 }; /* The flag's default. */

static void
open_many(struct ds_client **clients, int count)
{
    for (int i = 0; i < count; i++)
        clients[i] = open_client(&worker, false);
}

static void
close_many(struct ds_client **clients, int count)
{
    for (int i = 0; i < count; i++)
        ds_client_close(clients[i]);
}

static enum ds_status
try_open(struct ds_client **out, struct ds_error *err)
{
    struct ds_client_options options = {
        .struct_bytes = sizeof options, .host = "127.0.0.1", .port = worker.port};
    return ds_client_open(&options, out, err);
}

static void
check_full(struct ds_error *err)
{
    struct ds_client *client = NULL;
    CHECK_STATUS(try_open(&client, err), DS_FULL);
    CHECK(client == NULL);
}

/* Through TCP, which takes no place. */
static uint64_t
places_taken(void)
{
    struct ds_client *observer = open_client(&worker, true);
    uint64_t count = worker_stat(observer, "clients");
    ds_client_close(observer);
    return count;
}

static void
expect_places_taken(uint64_t expected)
{
    uint64_t deadline_ms = clock_monotonic_ms() + WAIT_MS;
    while (places_taken() != expected && clock_monotonic_ms() < deadline_ms)
        usleep(10000);
    CHECK_INT(places_taken(), expected);
}

/* ---- A process with clients of its own, until it is killed ---- */

/* Its answer, readable from *out_done: 'y' if it could open them all. */
static pid_t
start_process(int client_count, bool closes, int *out_done)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)prctl(PR_SET_NAME, "many_clients");
        char answer = 'y';
        for (int i = 0; i < client_count; i++) {
            struct ds_client *client = NULL;
            if (try_open(&client, NULL) != DS_OK)
                answer = 'n';
            if (closes)
                ds_client_close(client);
        }
        if (write(ends[1], &answer, 1) != 1)
            _exit(EXIT_FAILURE);
        for (;;)
            pause();
    }
    close(ends[1]);
    *out_done = ends[0];
    return pid;
}

static char
answer_of(int done)
{
    char answer = '?';
    CHECK_INT(read(done, &answer, 1), 1);
    close(done);
    return answer;
}

static void
kill_process(pid_t pid)
{
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK(waitpid(pid, NULL, 0) == pid);
}

/* ---- Closing ---- */

TEST(a_closed_clients_place_is_free_when_close_returns)
{
    struct ds_client *clients[PLACES];
    struct ds_error err = {0};
    open_many(clients, PLACES);
    for (int i = 0; i < 50; i++) {
        check_full(&err);
        ds_client_close(clients[i]);
        clients[i] = open_client(&worker, false);
    }
    close_many(clients, PLACES);
    CHECK_INT(places_taken(), 0);
}

/* A process that lives on after closing has no place left over. */
TEST(closed_clients_leave_their_places_to_other_processes)
{
    int done;
    pid_t pid = start_process(PLACES + 50, true, &done);
    CHECK_INT(answer_of(done), 'y');
    struct ds_client *clients[PLACES];
    open_many(clients, PLACES);
    close_many(clients, PLACES);
    kill_process(pid);
}

TEST(a_held_buffer_keeps_the_place_until_it_is_released)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *sealed = NULL;
    put_text(client, "kept", "still here");
    CHECK_OK(get_one(client, "kept", 0, &sealed, NULL));
    struct ds_buffer *unsealed = create_one(client, "unsealed", 100);
    ds_client_close(client);
    CHECK_INT(places_taken(), 1);
    ds_buffer_release(unsealed);
    CHECK_INT(places_taken(), 1);
    CHECK(buffer_says(sealed, "still here"));
    ds_buffer_release(sealed);
    expect_places_taken(0);
}

TEST(a_place_comes_back_with_what_was_reserved_in_it)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_client *other = open_client(&worker, false);
    ds_buffer_release(create_one(client, "unsealed", 1 << 20));
    CHECK_INT(worker_stat(other, "objects_unsealed"), 1);
    ds_client_close(client);
    CHECK_INT(worker_stat(other, "objects_unsealed"), 0);
    CHECK_INT(worker_stat(other, "clients_died_total"), 0);
    ds_client_close(other);
}

TEST(a_worker_that_hangs_holds_up_no_close_and_hears_of_it_later)
{
    struct ds_client *client = open_client(&worker, false);
    pid_t child = worker_child(&worker);
    CHECK(kill(child, SIGSTOP) == 0);
    uint64_t before_ms = clock_monotonic_ms();
    ds_client_close(client);
    CHECK(clock_monotonic_ms() - before_ms < 1000);
    CHECK(kill(child, SIGCONT) == 0);
    expect_places_taken(0);
}

TEST(a_close_while_the_worker_restarts_frees_the_place)
{
    struct ds_client *client = open_client(&worker, false);
    put_text(client, "k", "v");
    CHECK(kill(worker_child(&worker), SIGKILL) == 0);
    ds_client_close(client);
    expect_places_taken(0);
}

/* Over TCP only who reserves something takes a place. */
TEST(a_client_over_tcp_gives_its_place_back_whatever_is_held)
{
    struct ds_client *client = open_client(&worker, true);
    put_text(client, "k", "v");
    CHECK_INT(places_taken(), 0);
    uint64_t size = 100;
    struct ds_buffer *part = NULL;
    CHECK_OK(ds_block_create(client, &size, 1, &part, NULL));
    CHECK_INT(places_taken(), 1);
    ds_client_close(client);
    CHECK_INT(places_taken(), 0);
    memset(ds_buffer_data(part), 1, size);
    ds_buffer_release(part);
    client = open_client(&worker, true);
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    ds_client_close(client);
}

TEST(a_childs_close_leaves_the_parents_place)
{
    struct ds_client *client = open_client(&worker, false);
    pid_t child = fork();
    if (child == 0) {
        ds_client_close(client);
        _exit(EXIT_SUCCESS);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK_INT(places_taken(), 1);
    put_text(client, "k", "still a client");
    CHECK_INT(places_taken(), 1);
    ds_client_close(client);
}

/* ---- Not closing ---- */

TEST(who_finds_no_place_is_told_the_flag_and_the_process_that_has_most)
{
    enum { THEIRS = 120 };
    int done;
    char who[64], share[64];
    pid_t pid = start_process(THEIRS, false, &done);
    CHECK_INT(answer_of(done), 'y');
    struct ds_client *ours[PLACES - THEIRS];
    struct ds_error err = {0};
    open_many(ours, PLACES - THEIRS);
    check_full(&err);
    CHECK_CONTAINS(err.message, "Client number upper to the limit: all 200 places");
    CHECK_CONTAINS(err.message, "larger --max_client_num");
    snprintf(who, sizeof who, "by PID %d (many_clients)", pid);
    snprintf(share, sizeof share, "%d of them", THEIRS);
    CHECK_CONTAINS(err.message, who);
    CHECK_CONTAINS(err.message, share);
    kill_process(pid);
    expect_places_taken(PLACES - THEIRS);
    ds_client_close(open_client(&worker, false));
    close_many(ours, PLACES - THEIRS);
}

TEST(who_finds_no_place_can_still_go_through_tcp)
{
    struct ds_client *clients[PLACES];
    open_many(clients, PLACES);
    struct ds_client *over_tcp = open_client(&worker, true);
    put_text(over_tcp, "k", "v");
    check_value(over_tcp, "k", "v");
    ds_client_close(over_tcp);
    close_many(clients, PLACES);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(a_closed_clients_place_is_free_when_close_returns),
        EACH(closed_clients_leave_their_places_to_other_processes),
        EACH(a_held_buffer_keeps_the_place_until_it_is_released),
        EACH(a_place_comes_back_with_what_was_reserved_in_it),
        EACH(a_worker_that_hangs_holds_up_no_close_and_hears_of_it_later),
        EACH(a_close_while_the_worker_restarts_frees_the_place),
        EACH(a_client_over_tcp_gives_its_place_back_whatever_is_held),
        EACH(a_childs_close_leaves_the_parents_place),
        EACH(who_finds_no_place_is_told_the_flag_and_the_process_that_has_most),
        EACH(who_finds_no_place_can_still_go_through_tcp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
