/* A child process inherits what its parent shows it, and touches nothing of its
 * parent's. */
#include "base/check.h"
#include "client/testing_each.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the child a check that fails must not go on with the parent's tests. */
#define CHILD_CHECK(condition)                                             \
    do {                                                                   \
        if (!(condition)) {                                                \
            fprintf(stderr, "child, line %d: %s\n", __LINE__, #condition); \
            _exit(1);                                                      \
        }                                                                  \
    } while (0)

static void
join_child(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), 0);
}

TEST(a_child_uses_the_client_on_a_connection_of_its_own)
{
    struct ds_client *client = open_client(&worker, false);
    put_text(client, "parent", "p");
    pid_t child = fork();
    if (child == 0) {
        struct ds_buffer *buffer = NULL;
        CHILD_CHECK(get_one(client, "parent", 0, &buffer, NULL) == DS_OK);
        CHILD_CHECK(buffer_says(buffer, "p"));
        ds_buffer_release(buffer);
        CHILD_CHECK(ds_put(client, slice_of_text("child"), slice_of_text("c"), NULL,
                           NULL) == DS_OK);
        ds_client_close(client);
        _exit(0);
    }
    join_child(child);
    check_value(client, "child", "c");
    ds_client_close(client);
}

/* Fills the arena until it is full, so that whatever is free gets overwritten. */
static void
overwrite_all_free_memory(struct ds_client *client)
{
    size_t bytes = 1 << 20;
    char *value = malloc(bytes);
    char key[32];
    memset(value, '#', bytes);
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "filler-%d", i);
        struct ds_error err = {0};
        if (ds_put(client, slice_of_text(key), slice(value, bytes), NULL, &err) !=
            DS_OK) {
            CHECK_INT(err.status, DS_FULL);
            break;
        }
        CHECK(i < 199);
    }
    free(value);
}

static void
delete_fillers(struct ds_client *client)
{
    char key[32];
    struct ds_slice name;
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "filler-%d", i);
        name = slice_of_text(key);
        CHECK_OK(ds_delete(client, &name, 1, NULL));
    }
    usleep(300000); /* The worker's housekeeping comes by every 100 ms. */
}

TEST(a_release_in_the_child_leaves_the_parents_pin)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_slice key = slice_of_text("held");
    struct ds_buffer *held = NULL;
    put_text(client, "held", "by the parent");
    CHECK_OK(get_one(client, "held", 0, &held, NULL));
    struct ds_buffer *unsealed = create_one(client, "unsealed", 4);
    pid_t child = fork();
    if (child == 0) {
        CHILD_CHECK(buffer_says(held, "by the parent"));
        ds_buffer_release(held);
        ds_buffer_release(unsealed);
        CHILD_CHECK(ds_client_ping(client, 2000, NULL) == DS_OK);
        ds_client_close(client);
        _exit(0);
    }
    join_child(child);
    CHECK_OK(ds_delete(client, &key, 1, NULL));
    overwrite_all_free_memory(client);
    CHECK(buffer_says(held, "by the parent"));
    memcpy(ds_buffer_data(unsealed), "mine", 4);
    CHECK_OK(ds_seal(client, &unsealed, 1, NULL));
    check_value(client, "unsealed", "mine");
    ds_buffer_release(unsealed);
    ds_buffer_release(held);
    ds_client_close(client);
}

/* A child that does nothing but look at what it inherited, when it is told to. */
struct heir {
    pid_t pid;
    int go[2];
};

enum { LEGACY_BYTES = 1 << 20 };

static bool
all_bytes_are(struct ds_buffer *buffer, char byte)
{
    const char *data = ds_buffer_data(buffer);
    CHECK_INT(ds_buffer_size(buffer), LEGACY_BYTES);
    return data[0] == byte && memcmp(data, data + 1, LEGACY_BYTES - 1) == 0;
}

static struct ds_buffer *
put_and_hold(struct ds_client *client, const char *key, char byte)
{
    struct ds_buffer *held = NULL;
    char *value = malloc(LEGACY_BYTES);
    DS_ASSERT(value != NULL);
    memset(value, byte, LEGACY_BYTES);
    CHECK_OK(
        ds_put(client, slice_of_text(key), slice(value, LEGACY_BYTES), NULL, NULL));
    CHECK_OK(get_one(client, key, 0, &held, NULL));
    free(value);
    return held;
}

static struct heir
fork_heir(struct ds_buffer *held, char byte)
{
    struct heir heir;
    CHECK(pipe(heir.go) == 0);
    heir.pid = fork();
    CHECK(heir.pid >= 0);
    if (heir.pid == 0) {
        char mark;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* Should the test fail. */
        close(heir.go[1]);
        CHILD_CHECK(read(heir.go[0], &mark, 1) == 1);
        CHILD_CHECK(all_bytes_are(held, byte));
        _exit(0);
    }
    return heir;
}

static void
heir_looks_and_ends(struct heir *heir)
{
    CHECK(write(heir->go[1], "x", 1) == 1);
    join_child(heir->pid);
    close(heir->go[0]);
    close(heir->go[1]);
}

/* The parent lets go of it, so that only the claim keeps it from being overwritten. */
static void
let_go(struct ds_client *client, const char *key, struct ds_buffer *held)
{
    struct ds_slice name = slice_of_text(key);
    ds_buffer_release(held);
    CHECK_OK(ds_delete(client, &name, 1, NULL));
    usleep(300000); /* The worker's housekeeping comes by every 100 ms. */
}

static void
wait_until_all_is_free(struct ds_client *client)
{
    for (int i = 0; i < 100 && worker_stat(client, "objects_deleted_but_held") > 0; i++)
        usleep(20000);
    CHECK_INT(worker_stat(client, "objects_deleted_but_held"), 0);
    CHECK_INT(worker_stat(client, "clients"), 1);
    delete_fillers(client);
    CHECK_INT(worker_stat(client, "memory_used_bytes"), 0);
    CHECK_INT(worker_stat(client, "pins"), 0);
}

TEST(what_a_child_inherited_stays_right_after_the_parent_lets_go)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *held = put_and_hold(client, "legacy", 'L');
    struct heir heir = fork_heir(held, 'L');
    let_go(client, "legacy", held);
    overwrite_all_free_memory(client);
    heir_looks_and_ends(&heir);
    wait_until_all_is_free(client);
    ds_client_close(client);
}

static void
restart_worker(struct ds_client *client)
{
    worker_kill_child(&worker);
    CHECK_OK(ds_client_ping(client, 10000, NULL));
}

/* The heir never makes a call, so nobody tells the next worker about it. */
TEST(what_a_child_inherited_stays_right_over_restarts_of_the_worker)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *held = put_and_hold(client, "legacy", 'L');
    struct heir heir = fork_heir(held, 'L');
    let_go(client, "legacy", held);
    restart_worker(client);
    restart_worker(client);
    sleep(4); /* The least that --client_dead_timeout_s ever was. */
    CHECK_INT(worker_stat(client, "objects_deleted_but_held"), 1);
    overwrite_all_free_memory(client);
    heir_looks_and_ends(&heir);
    wait_until_all_is_free(client);
    ds_client_close(client);
}

TEST(what_an_heir_had_is_free_when_it_ended_while_the_worker_was_away)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *held = put_and_hold(client, "legacy", 'L');
    struct heir heir = fork_heir(held, 'L');
    let_go(client, "legacy", held);
    CHECK(kill(worker_child(&worker), SIGSTOP) == 0);
    heir_looks_and_ends(&heir);
    restart_worker(client);
    wait_until_all_is_free(client);
    ds_client_close(client);
}

/* The parent has said nothing to the new worker yet, not even what it holds. */
TEST(a_fork_right_after_a_restart_is_covered_too)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_client *other = NULL;
    struct ds_buffer *held = put_and_hold(client, "legacy", 'L');
    struct ds_buffer *unsealed = create_one(client, "unsealed", 4);
    pid_t before = worker_child(&worker);
    worker_kill_child(&worker);
    while (worker_child(&worker) == before)
        usleep(1000);
    struct heir heir = fork_heir(held, 'L');
    other = open_client(&worker, true);
    CHECK_INT(worker_stat(other, "objects_unsealed"), 1);
    CHECK_INT(worker_stat(other, "clients"), 2);
    let_go(client, "legacy", held);
    overwrite_all_free_memory(client);
    heir_looks_and_ends(&heir);
    memcpy(ds_buffer_data(unsealed), "mine", 4);
    CHECK_OK(ds_seal(client, &unsealed, 1, NULL));
    ds_buffer_release(unsealed);
    check_value(client, "unsealed", "mine");
    ds_client_close(other);
    ds_client_close(client);
}

/* Nothing that this process holds may be left in the child's way. */
TEST(a_fork_without_pins_asks_the_worker_nothing)
{
    struct ds_client *client = open_client(&worker, false);
    uint64_t before = worker_stat(client, "requests_total");
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    join_child(child);
    CHECK_INT(worker_stat(client, "requests_total"), before + 1);
    ds_client_close(client);
}

/* A worker that does not answer holds a fork up for a moment, not for ever. */
TEST(a_fork_goes_on_without_the_worker)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *held = NULL;
    put_text(client, "held", "x");
    CHECK_OK(get_one(client, "held", 0, &held, NULL));
    pid_t stopped = worker_child(&worker);
    CHECK(kill(stopped, SIGSTOP) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHILD_CHECK(buffer_says(held, "x"));
        _exit(0);
    }
    join_child(child);
    CHECK(kill(stopped, SIGCONT) == 0);
    ds_buffer_release(held);
    ds_client_close(client);
}

/* Over TCP, too, what the parent has reserved is none of the child's business. */
TEST(over_tcp_a_child_reserves_under_a_number_of_its_own)
{
    struct ds_client *client = open_client(&worker, true);
    struct ds_buffer *unsealed = create_one(client, "unsealed", 4);
    pid_t child = fork();
    if (child == 0) {
        const uint64_t size = 5000;
        struct ds_block_id id;
        struct ds_buffer *part = NULL;
        ds_buffer_release(unsealed);
        CHILD_CHECK(ds_block_create(client, &size, 1, &part, NULL) == DS_OK);
        memset(ds_buffer_data(part), 'c', size);
        CHILD_CHECK(ds_block_seal(client, &part, 1, &id, NULL) == DS_OK);
        ds_buffer_release(part);
        CHILD_CHECK(worker_stat(client, "clients") == 2);
        ds_client_close(client);
        _exit(0);
    }
    join_child(child);
    CHECK_INT(worker_stat(client, "clients"), 1);
    memcpy(ds_buffer_data(unsealed), "mine", 4);
    CHECK_OK(ds_seal(client, &unsealed, 1, NULL));
    check_value(client, "unsealed", "mine");
    ds_buffer_release(unsealed);
    ds_client_close(client);
}

TEST_MAIN(EACH(a_child_uses_the_client_on_a_connection_of_its_own),
          EACH(a_release_in_the_child_leaves_the_parents_pin),
          EACH(what_a_child_inherited_stays_right_after_the_parent_lets_go),
          EACH(what_a_child_inherited_stays_right_over_restarts_of_the_worker),
          EACH(what_an_heir_had_is_free_when_it_ended_while_the_worker_was_away),
          EACH(a_fork_right_after_a_restart_is_covered_too),
          EACH(a_fork_without_pins_asks_the_worker_nothing),
          EACH(a_fork_goes_on_without_the_worker),
          EACH(over_tcp_a_child_reserves_under_a_number_of_its_own))
