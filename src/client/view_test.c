/* Private views: what they show, how many there may be, and that dropping them gives
 * everything back, without the caller waiting for it. */
#include "client/testing_each.h"
#include "client/view.h"

#include "base/check.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VIEW_BYTES = 1 << 20, LARGE_BYTES = 40 << 20, THREADS = 8, ROUNDS = 300 };

/* A value of `bytes` times `byte`, got. */
static struct ds_buffer *
put_and_get(struct ds_client *client, const char *key, char byte, size_t bytes)
{
    struct ds_buffer *buffer = NULL;
    struct ds_error err = {0};
    char *value = malloc(bytes);
    DS_ASSERT(value != NULL);
    memset(value, byte, bytes);
    enum ds_status status =
        ds_put(client, slice_of_text(key), slice(value, bytes), NULL, &err);
    CHECK_TEXT(err.message, "");
    CHECK_OK(status);
    CHECK_OK(get_one(client, key, 0, &buffer, NULL));
    free(value);
    return buffer;
}

static char *
view_of(struct ds_buffer *buffer)
{
    void *view = NULL;
    CHECK_OK(ds_view_map(buffer, &view, NULL));
    return view;
}

static bool
all_are(const char *data, char byte, size_t bytes)
{
    return data[0] == byte && memcmp(data, data + 1, bytes - 1) == 0;
}

static void
delete_key(struct ds_client *client, const char *key)
{
    struct ds_slice name = slice_of_text(key);
    CHECK_OK(ds_delete(client, &name, 1, NULL));
}

static void
wait_for_pins(struct ds_client *client, uint64_t pins)
{
    for (int i = 0; i < 500 && worker_stat(client, "pins") != pins; i++)
        usleep(10000);
    CHECK_INT(worker_stat(client, "pins"), pins);
}

static int
thread_count(void)
{
    DIR *folder = opendir("/proc/self/task");
    DS_ASSERT(folder != NULL);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

/* One that was joined is listed a moment longer; a sanitizer has threads of its own. */
static void
check_thread_count(int expected)
{
    for (int i = 0; i < 500 && thread_count() != expected; i++)
        usleep(10000);
    CHECK_INT(thread_count(), expected);
}

/* ---- Privacy ---- */

TEST(two_views_of_the_same_bytes_are_independent)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *buffer = put_and_get(client, "key", 'a', VIEW_BYTES);
    char *first = view_of(buffer), *second = view_of(buffer);
    memset(first, 'b', VIEW_BYTES / 2);
    CHECK(all_are(second, 'a', VIEW_BYTES));
    memset(second, 'c', VIEW_BYTES);
    CHECK(all_are(first, 'b', VIEW_BYTES / 2));
    CHECK(all_are(first + VIEW_BYTES / 2, 'a', VIEW_BYTES / 2));
    CHECK(all_are(ds_buffer_data(buffer), 'a', VIEW_BYTES));
    ds_view_unmap(buffer, first);
    CHECK(all_are(second, 'c', VIEW_BYTES));
    ds_view_unmap(buffer, second);
    ds_buffer_release(buffer);
    ds_client_close(client);
}

TEST(a_view_stays_right_when_its_object_is_gone_and_the_arena_refilled)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *buffer = put_and_get(client, "key", 'a', VIEW_BYTES);
    char *view = view_of(buffer);
    ds_buffer_release(buffer);
    delete_key(client, "key");
    for (int round = 0; round < 200; round++)
        ds_buffer_release(put_and_get(client, "filler", '#', VIEW_BYTES));
    CHECK(all_are(view, 'a', VIEW_BYTES));
    ds_view_unmap(buffer, view);
    ds_client_close(client);
}

/* ---- Giving back ---- */

TEST(the_pin_of_a_dropped_view_goes_without_another_call)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_client *watcher = open_client(&worker, true);
    struct ds_buffer *buffer = put_and_get(client, "key", 'a', VIEW_BYTES);
    char *view = view_of(buffer);
    ds_buffer_release(buffer);
    CHECK_INT(worker_stat(watcher, "pins"), 1);
    ds_view_unmap(buffer, view);
    wait_for_pins(watcher, 0);
    ds_client_close(watcher);
    ds_client_close(client);
}

TEST(after_settling_every_pin_is_gone)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *buffer = put_and_get(client, "key", 'a', VIEW_BYTES);
    for (int round = 0; round < ROUNDS; round++) {
        char *view = view_of(buffer);
        memset(view, 'b', VIEW_BYTES);
        ds_view_unmap(buffer, view);
    }
    ds_buffer_release(buffer);
    ds_view_settle();
    CHECK_INT(worker_stat(client, "pins"), 0);
    ds_client_close(client);
}

/* A changed view of most of the arena, which takes some milliseconds to unmap, and then
 * its room is wanted. */
TEST(what_was_dropped_is_room_for_the_next_put)
{
    struct ds_client *client = open_client(&worker, false);
    uint64_t size = LARGE_BYTES;
    struct ds_slice key = slice_of_text("next");
    for (int round = 0; round < 10; round++) {
        struct ds_buffer *buffer = put_and_get(client, "key", 'a', LARGE_BYTES);
        struct ds_buffer *next = NULL;
        char *view = view_of(buffer);
        ds_buffer_release(buffer);
        delete_key(client, "key");
        memset(view, 'b', LARGE_BYTES);
        ds_view_unmap(buffer, view);
        CHECK_OK(ds_create(client, &key, &size, 1, NULL, &next, NULL));
        ds_buffer_release(next);
    }
    ds_client_close(client);
}

/* A consumer drops and deletes, then says so: the producer must find room at once. */
TEST(what_was_dropped_before_a_delete_is_room_for_another_client)
{
    enum { VIEWS = 5 }; /* To unmap them takes longer than a round trip. */
    struct ds_client *client = open_client(&worker, false);
    struct ds_client *producer = open_client(&worker, true);
    uint64_t size = LARGE_BYTES;
    struct ds_slice key = slice_of_text("next");
    for (int round = 0; round < 3; round++) {
        struct ds_buffer *buffer = put_and_get(client, "key", 'a', LARGE_BYTES);
        struct ds_buffer *next = NULL;
        char *views[VIEWS];
        for (int i = 0; i < VIEWS; i++) {
            views[i] = view_of(buffer);
            memset(views[i], 'b', LARGE_BYTES);
        }
        ds_buffer_release(buffer);
        for (int i = 0; i < VIEWS; i++)
            ds_view_unmap(buffer, views[i]);
        delete_key(client, "key");
        CHECK_OK(ds_create(producer, &key, &size, 1, NULL, &next, NULL));
        ds_buffer_release(next);
        CHECK_OK(ds_client_ping(producer, 5000, NULL)); /* Gives it up. */
    }
    ds_client_close(producer);
    ds_client_close(client);
}

TEST(a_view_outlives_its_client)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_client *watcher = open_client(&worker, true);
    struct ds_buffer *buffer = put_and_get(client, "key", 'a', VIEW_BYTES);
    char *view = view_of(buffer);
    ds_buffer_release(buffer);
    ds_client_close(client);
    CHECK(all_are(view, 'a', VIEW_BYTES));
    CHECK_INT(worker_stat(watcher, "clients"), 1);
    ds_view_unmap(buffer, view);
    for (int i = 0; i < 500 && worker_stat(watcher, "clients") != 0; i++)
        usleep(10000);
    CHECK_INT(worker_stat(watcher, "clients"), 0);
    ds_client_close(watcher);
}

/* ---- The thread ---- */

TEST(the_thread_ends_with_the_last_client)
{
    int before = thread_count();
    struct ds_client *client = open_client(&worker, false);
    struct ds_client *other = open_client(&worker, false);
    struct ds_buffer *buffer = put_and_get(client, "key", 'a', VIEW_BYTES);
    char *early = view_of(buffer), *late = view_of(buffer);
    check_thread_count(before);
    ds_view_unmap(buffer, early);
    check_thread_count(before + 1);
    ds_client_close(client);
    check_thread_count(before + 1);
    ds_client_close(other);
    check_thread_count(before);
    ds_view_unmap(buffer, late);
    check_thread_count(before);
    ds_buffer_release(buffer);
}

TEST(the_thread_takes_no_signals)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *buffer = put_and_get(client, "key", 'a', VIEW_BYTES);
    ds_view_unmap(buffer, view_of(buffer));
    sigset_t one, pending;
    int got;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    CHECK(pthread_sigmask(SIG_BLOCK, &one, NULL) == 0);
    CHECK(kill(getpid(), SIGUSR1) == 0); /* Its default would end the process. */
    usleep(20000);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
    CHECK(sigwait(&one, &got) == 0 && got == SIGUSR1);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &one, NULL) == 0);
    ds_buffer_release(buffer);
    ds_client_close(client);
}

struct user {
    pthread_t thread;
    struct ds_buffer *buffer;
    char byte;
    bool is_right;
};

static void *
use_views(void *arg)
{
    struct user *user = arg;
    user->is_right = true;
    for (int round = 0; round < ROUNDS; round++) {
        void *view;
        if (ds_view_map(user->buffer, &view, NULL) != DS_OK)
            user->is_right = false;
        else {
            memset(view, user->byte, VIEW_BYTES / 2);
            user->is_right =
                user->is_right && all_are(view, user->byte, VIEW_BYTES / 2) &&
                all_are((char *)view + VIEW_BYTES / 2, 'a', VIEW_BYTES / 2);
            ds_view_unmap(user->buffer, view);
        }
        if (round % 50 == 0)
            ds_view_settle();
    }
    return NULL;
}

TEST(threads_use_views_of_the_same_bytes)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *buffer = put_and_get(client, "key", 'a', VIEW_BYTES);
    struct user users[THREADS];
    for (int i = 0; i < THREADS; i++) {
        users[i] = (struct user){.buffer = buffer, .byte = (char)('A' + i)};
        CHECK(pthread_create(&users[i].thread, NULL, use_views, &users[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(users[i].thread, NULL) == 0);
        CHECK(users[i].is_right);
    }
    CHECK(all_are(ds_buffer_data(buffer), 'a', VIEW_BYTES));
    ds_buffer_release(buffer);
    ds_view_settle();
    CHECK_INT(worker_stat(client, "pins"), 0);
    ds_client_close(client);
}

/* ---- The budget ---- */

TEST(views_beyond_the_budget_are_refused_until_some_are_gone)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *buffer = put_and_get(client, "key", 'a', 5000);
    uint32_t most = views_max();
    CHECK(most > 1000 && most <= VIEWS_MAX);
    char **views = calloc(most, sizeof *views);
    struct ds_error err = {0};
    void *extra = NULL;
    DS_ASSERT(views != NULL);
    for (uint32_t i = 0; i < most; i++)
        views[i] = view_of(buffer);
    CHECK_STATUS(ds_view_map(buffer, &extra, &err), DS_NO_MEMORY);
    CHECK_CONTAINS(err.message, "private views; copy the bytes instead");
    CHECK(extra == NULL);
    ds_view_unmap(buffer, views[0]);
    ds_view_settle();
    views[0] = view_of(buffer);
    for (uint32_t i = 0; i < most; i++)
        ds_view_unmap(buffer, views[i]);
    ds_buffer_release(buffer);
    ds_view_settle();
    CHECK_INT(worker_stat(client, "pins"), 0);
    free(views);
    ds_client_close(client);
}

TEST(a_view_without_address_space_is_refused)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *buffer = put_and_get(client, "key", 'a', VIEW_BYTES);
    struct rlimit before, none;
    void *view = NULL;
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    CHECK(setrlimit(RLIMIT_AS, &none) == 0);
    enum ds_status status = ds_view_map(buffer, &view, NULL);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK_STATUS(status, DS_NO_MEMORY);
    CHECK(view == NULL);
    ds_view_unmap(buffer, view_of(buffer));
    ds_buffer_release(buffer);
    ds_client_close(client);
}

/* ---- fork ---- */

static bool
join(pid_t child)
{
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

TEST(a_child_and_its_parent_change_and_drop_a_view_each_for_itself)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *buffer = put_and_get(client, "key", 'a', VIEW_BYTES);
    char *view = view_of(buffer), *other = view_of(buffer);
    pid_t child = fork();
    if (child == 0) {
        bool is_right = all_are(view, 'a', VIEW_BYTES);
        memset(view, 'c', VIEW_BYTES);
        ds_view_unmap(buffer, view);
        ds_view_settle();
        _exit(is_right && all_are(other, 'a', VIEW_BYTES) ? 0 : 1);
    }
    CHECK(join(child));
    CHECK(all_are(view, 'a', VIEW_BYTES));
    wait_for_pins(client, 1); /* The child's claim ends a moment after it. */
    ds_view_unmap(buffer, view);
    ds_view_unmap(buffer, other);
    ds_buffer_release(buffer);
    ds_client_close(client);
}

TEST_MAIN(EACH(two_views_of_the_same_bytes_are_independent),
          EACH(a_view_stays_right_when_its_object_is_gone_and_the_arena_refilled),
          EACH(the_pin_of_a_dropped_view_goes_without_another_call),
          EACH(after_settling_every_pin_is_gone),
          EACH(what_was_dropped_is_room_for_the_next_put),
          EACH(what_was_dropped_before_a_delete_is_room_for_another_client),
          EACH(a_view_outlives_its_client), EACH(the_thread_ends_with_the_last_client),
          EACH(the_thread_takes_no_signals), EACH(threads_use_views_of_the_same_bytes),
          EACH(views_beyond_the_budget_are_refused_until_some_are_gone),
          EACH(a_view_without_address_space_is_refused),
          EACH(a_child_and_its_parent_change_and_drop_a_view_each_for_itself))
