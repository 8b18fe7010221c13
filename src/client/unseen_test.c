/* A worker in another pid namespace, as in a container, does not see its clients' pids.
 * What it promises them is the same. */
#include "client/testing.h"

#include "os/clock.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VALUE_BYTES = 1 << 20, ENOUGH_MS = 1000 };

static struct worker_process worker;

static int
before_each(void **state)
{
    test_before(state);
    worker_start_unseeing(&worker, 64);
    return 0;
}

static int
after_each(void **state)
{
    worker_stop(&worker);
    return test_after(state);
}

static void
restart_worker(struct ds_client *watcher)
{
    worker_kill_child(&worker);
    CHECK_OK(ds_client_ping(watcher, 10000, NULL));
}

static enum ds_status
put_bytes(struct ds_client *client, const char *key, char byte)
{
    static char value[VALUE_BYTES];
    memset(value, byte, sizeof value);
    return ds_put(client, slice_of_text(key), slice(value, sizeof value), NULL, NULL);
}

/* Fills the arena, so that whatever is free gets overwritten. */
static void
overwrite_all_free_memory(struct ds_client *client)
{
    char key[32];
    int count = 0;
    do {
        snprintf(key, sizeof key, "filler-%d", count++);
        CHECK(count < 100);
    } while (put_bytes(client, key, '#') == DS_OK);
}

/* ---- A process of its own that holds things, and lives until it is killed ---- */

struct holder {
    pid_t pid;
    int said; /* It writes a pid here once it holds. */
};

/* With an heir, it forks, and both live on; the heir's pid is what it tells. */
static void
hold(int tell, bool with_heir)
{
    struct ds_buffer *held = NULL;
    struct ds_client *client = open_client(&worker, false);
    (void)create_one(client, "unsealed", VALUE_BYTES);
    if (put_bytes(client, "held", 'H') != DS_OK ||
        get_one(client, "held", 0, &held, NULL) != DS_OK)
        _exit(1);
    pid_t pid = with_heir ? fork() : getpid();
    if (pid != 0 && write(tell, &pid, sizeof pid) != sizeof pid)
        _exit(1);
    (void)alarm(60); /* The heir has nobody who would end it, should the test fail. */
    for (;;)
        pause();
}

static struct holder
start_holder(bool with_heir, pid_t *out_said)
{
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    struct holder holder = {.pid = fork(), .said = ends[0]};
    CHECK(holder.pid >= 0);
    if (holder.pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* Should the test fail. */
        hold(ends[1], with_heir);
    }
    close(ends[1]);
    CHECK_INT(read(holder.said, out_said, sizeof *out_said), sizeof *out_said);
    close(holder.said);
    return holder;
}

static void
kill_holder(const struct holder *holder)
{
    CHECK(kill(holder->pid, SIGKILL) == 0);
    CHECK(waitpid(holder->pid, NULL, 0) == holder->pid);
}

static void
wait_for(struct ds_client *watcher, const char *name, uint64_t value)
{
    uint64_t begin_ms = clock_monotonic_ms();
    while (worker_stat(watcher, name) != value) {
        CHECK(clock_monotonic_ms() - begin_ms < ENOUGH_MS);
        usleep(10000);
    }
}

/* ---- Tests ---- */

/* It makes no call, so that only its mark says that it lives. */
TEST(what_a_silent_client_holds_stays_right_over_restarts)
{
    struct ds_client *watcher = open_client(&worker, true);
    struct ds_client *client = open_client(&worker, false);
    struct ds_slice key = slice_of_text("held");
    struct ds_buffer *held = NULL;
    CHECK_OK(put_bytes(client, "held", 'H'));
    CHECK_OK(get_one(client, "held", 0, &held, NULL));
    struct ds_buffer *unsealed = create_one(client, "unsealed", 4);
    restart_worker(watcher);
    restart_worker(watcher);
    sleep(4); /* The least that --client_dead_timeout_s ever was. */
    CHECK_OK(ds_delete(watcher, &key, 1, NULL));
    overwrite_all_free_memory(watcher);
    const char *data = ds_buffer_data(held);
    CHECK(data[0] == 'H' && memcmp(data, data + 1, VALUE_BYTES - 1) == 0);
    memcpy(ds_buffer_data(unsealed), "mine", 4);
    CHECK_OK(ds_seal(client, &unsealed, 1, NULL));
    check_value(client, "unsealed", "mine");
    ds_buffer_release(unsealed);
    ds_buffer_release(held);
    wait_for(watcher, "objects_deleted_but_held", 0);
    CHECK_INT(worker_stat(watcher, "clients"), 1);
    ds_client_close(client);
    ds_client_close(watcher);
}

TEST(what_a_killed_client_held_is_free_within_a_second)
{
    struct ds_client *watcher = open_client(&worker, true);
    pid_t said;
    struct holder holder = start_holder(false, &said);
    CHECK_INT(worker_stat(watcher, "objects_unsealed"), 1);
    CHECK(worker_stat(watcher, "pins") > 0);
    kill_holder(&holder);
    wait_for(watcher, "clients", 0);
    CHECK_INT(worker_stat(watcher, "objects_unsealed"), 0);
    CHECK_INT(worker_stat(watcher, "pins"), 0);
    ds_client_close(watcher);
}

TEST(what_a_client_held_that_was_killed_after_a_restart_is_free_within_a_second)
{
    struct ds_client *watcher = open_client(&worker, true);
    pid_t said;
    struct holder holder = start_holder(false, &said);
    restart_worker(watcher);
    CHECK_INT(worker_stat(watcher, "objects_unsealed"), 1);
    kill_holder(&holder);
    wait_for(watcher, "clients", 0);
    CHECK_INT(worker_stat(watcher, "memory_used_bytes"), VALUE_BYTES);
    ds_client_close(watcher);
}

/* The child has a claim for what it inherited, and is no part of its parent's life. */
TEST(a_child_does_not_keep_its_parent_alive)
{
    struct ds_client *watcher = open_client(&worker, true);
    pid_t heir;
    struct holder holder = start_holder(true, &heir);
    wait_for(watcher, "clients", 2);
    kill_holder(&holder);
    wait_for(watcher, "clients", 1);
    CHECK_INT(worker_stat(watcher, "objects_unsealed"), 0);
    CHECK(worker_stat(watcher, "pins") > 0);
    CHECK(kill(heir, SIGKILL) == 0);
    wait_for(watcher, "clients", 0);
    CHECK_INT(worker_stat(watcher, "pins"), 0);
    ds_client_close(watcher);
}

TEST(a_process_may_open_and_close_without_end)
{
    struct ds_client *watcher = open_client(&worker, true);
    for (int i = 0; i < 5; i++) {
        struct ds_client *client = open_client(&worker, false);
        put_text(client, "key", "value");
        check_value(client, "key", "value");
        ds_client_close(client);
    }
    wait_for(watcher, "clients", 0);
    ds_client_close(watcher);
}

#define EACH(name) cmocka_unit_test_setup_teardown(name, before_each, after_each)

TEST_MAIN(
    EACH(what_a_silent_client_holds_stays_right_over_restarts),
    EACH(what_a_killed_client_held_is_free_within_a_second),
    EACH(what_a_client_held_that_was_killed_after_a_restart_is_free_within_a_second),
    EACH(a_child_does_not_keep_its_parent_alive),
    EACH(a_process_may_open_and_close_without_end))
