/* A child process inherits what its parent shows it, and touches nothing of its
 * parent's. */
#include "client/testing.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct worker_process worker;

static int
before_each(void **state)
{
    test_before(state);
    worker_start(&worker, 64);
    return 0;
}

static int
after_each(void **state)
{
    worker_stop(&worker);
    return test_after(state);
}

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

/* The parent lets go, and the memory would be reused if the child had no claim. */
TEST(what_a_child_inherited_stays_right_after_the_parent_lets_go)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_slice key = slice_of_text("legacy");
    struct ds_buffer *held = NULL;
    int go[2];
    CHECK(pipe(go) == 0);
    size_t bytes = 1 << 20;
    char *value = malloc(bytes);
    memset(value, 'L', bytes);
    CHECK_OK(ds_put(client, key, slice(value, bytes), NULL, NULL));
    CHECK_OK(get_one(client, "legacy", 0, &held, NULL));
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(go[1]);
        CHILD_CHECK(read(go[0], &byte, 1) == 1);
        CHILD_CHECK(memcmp(ds_buffer_data(held), value, bytes) == 0);
        _exit(0);
    }
    ds_buffer_release(held);
    CHECK_OK(ds_delete(client, &key, 1, NULL));
    usleep(300000); /* The worker's housekeeping comes by every 100 ms. */
    overwrite_all_free_memory(client);
    CHECK(write(go[1], "x", 1) == 1);
    join_child(child);
    close(go[0]);
    close(go[1]);
    free(value);

    for (int i = 0; i < 100 && worker_stat(client, "objects_deleted_but_held") > 0; i++)
        usleep(20000);
    CHECK_INT(worker_stat(client, "objects_deleted_but_held"), 0);
    CHECK_INT(worker_stat(client, "clients"), 1);
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
        CHILD_CHECK(ds_block_create(client, &size, 1, &id, &part, NULL) == DS_OK);
        memset(ds_buffer_data(part), 'c', size);
        CHILD_CHECK(ds_block_seal(client, &part, 1, NULL) == DS_OK);
        ds_buffer_release(part);
        ds_client_close(client);
        _exit(0);
    }
    join_child(child);
    CHECK_INT(worker_stat(client, "clients"), 3); /* With that of worker_start(). */
    memcpy(ds_buffer_data(unsealed), "mine", 4);
    CHECK_OK(ds_seal(client, &unsealed, 1, NULL));
    check_value(client, "unsealed", "mine");
    ds_buffer_release(unsealed);
    ds_client_close(client);
}

#define EACH(name) cmocka_unit_test_setup_teardown(name, before_each, after_each)

TEST_MAIN(EACH(a_child_uses_the_client_on_a_connection_of_its_own),
          EACH(a_release_in_the_child_leaves_the_parents_pin),
          EACH(what_a_child_inherited_stays_right_after_the_parent_lets_go),
          EACH(a_fork_without_pins_asks_the_worker_nothing),
          EACH(a_fork_goes_on_without_the_worker),
          EACH(over_tcp_a_child_reserves_under_a_number_of_its_own))
