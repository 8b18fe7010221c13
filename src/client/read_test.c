/* Reading without the worker: what it promises when the worker hangs, is killed, or is
 * another one; and that readers in other processes never see wrong or older bytes. */
#include "client/testing_each.h"

#include "base/check.h"
#include "os/clock.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    KEYS = 16,
    READERS = 8,
    WRITERS = 4,
    PROCESSES = READERS + WRITERS,
    VALUE_BYTES_MAX = 6000,
    STRESS_MS = 4000,
    KILLS = 4, /* Of the worker, and as many of processes. */
    VIEWS = 4000,
};

TEST(a_value_is_read_while_the_worker_hangs)
{
    struct ds_client *client = open_client(&worker, false);
    put_text(client, "key", "value");
    pid_t child = worker_child(&worker);
    CHECK(kill(child, SIGSTOP) == 0);
    check_value(client, "key", "value");
    CHECK(kill(child, SIGCONT) == 0);
    ds_client_close(client);
}

TEST(memory_of_a_worker_that_is_gone_is_not_read)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *buffer = NULL;
    put_text(client, "key", "value");
    check_value(client, "key", "value");
    worker_replace(&worker, 64);
    CHECK_STATUS(get_one(client, "key", 0, &buffer, NULL), DS_NOT_FOUND);
    ds_client_close(client);
}

/* The worker never heard a request of the reader's, only that its connection is gone:
 * the reader holds bytes all the same. Small values are put where others were freed. */
TEST(what_was_read_without_the_worker_outlives_its_client)
{
    struct ds_client *writer = open_client(&worker, false);
    put_text(writer, "held", "as it was");
    struct ds_client *reader = open_client(&worker, false);
    struct ds_buffer *buffer = NULL;
    CHECK_OK(get_one(reader, "held", 0, &buffer, NULL));
    ds_client_close(reader);
    for (int i = 0; i < 50; i++) {
        struct ds_slice key = slice_of_text("held");
        CHECK_OK(ds_delete(writer, &key, 1, NULL));
        usleep(10000); /* Some ticks, in which the dead are freed. */
        put_text(writer, "other", "something");
        CHECK(buffer_says(buffer, "as it was"));
    }
    ds_buffer_release(buffer);
    ds_client_close(writer);
}

/* ---- Many processes ---- */

/* A value is its key's number and a serial that grows, over and over. */
static void
fill_value(uint32_t *words, size_t count, uint32_t key, uint32_t serial)
{
    for (size_t i = 0; i < count; i++)
        words[i] = i % 2 == 0 ? key : serial;
}

static void
key_text(char out[16], uint32_t key)
{
    (void)snprintf(out, 16, "key_%u", key);
}

/* Each key has one writer. The next life of a writer that was killed has higher serials.
 */
static void
write_until(uint64_t end_ms, uint32_t number, uint32_t life)
{
    struct ds_client *client = open_client(&worker, false);
    uint64_t seed = number + 1;
    static uint32_t words[VALUE_BYTES_MAX / 4];
    for (uint32_t serial = (life << 24) + 1; clock_monotonic_ms() < end_ms; serial++) {
        uint64_t dice = test_random(&seed);
        uint32_t key = (uint32_t)(dice % (KEYS / WRITERS)) * WRITERS + number;
        size_t count = 2 + dice / KEYS % (VALUE_BYTES_MAX / 4 - 2);
        char text[16];
        key_text(text, key);
        struct ds_slice name = slice_of_text(text);
        fill_value(words, count, key, serial);
        CHECK_OK(ds_put(client, name, slice(words, count * 4), NULL, NULL));
        if (dice % 7 == 0)
            CHECK_OK(ds_delete(client, &name, 1, NULL));
    }
    ds_client_close(client);
}

/* The serial, after a look at every word. */
static uint32_t
check_words(struct ds_buffer *buffer, uint32_t key)
{
    const uint32_t *words = ds_buffer_data(buffer);
    size_t count = ds_buffer_size(buffer) / 4;
    CHECK(count >= 2);
    for (size_t i = 0; i < count; i++)
        CHECK_INT(words[i], i % 2 == 0 ? key : words[1]);
    return words[1];
}

/* Holds some buffers for a while, so that their bytes must outlive their keys. */
static void
read_until(uint64_t end_ms, uint32_t number, uint32_t life)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *held[8] = {0};
    uint32_t held_keys[8] = {0}, held_serials[8] = {0}, seen[KEYS] = {0};
    uint64_t seed = 1000 + number + 100 * life, hits = 0;
    for (uint32_t i = 0; clock_monotonic_ms() < end_ms; i++) {
        uint32_t key = (uint32_t)(test_random(&seed) % KEYS), at = i % 8;
        struct ds_buffer *buffer = NULL;
        char text[16];
        key_text(text, key);
        enum ds_status status = get_one(client, text, 0, &buffer, NULL);
        CHECK(status == DS_OK || status == DS_NOT_FOUND);
        if (buffer == NULL)
            continue;
        uint32_t serial = check_words(buffer, key);
        CHECK(serial >= seen[key]);
        seen[key] = serial;
        hits++;
        if (held[at] != NULL)
            CHECK_INT(check_words(held[at], held_keys[at]), held_serials[at]);
        ds_buffer_release(held[at]);
        held[at] = buffer;
        held_keys[at] = key;
        held_serials[at] = serial;
    }
    for (int i = 0; i < 8; i++)
        ds_buffer_release(held[i]);
    CHECK(life > 0 || hits > 100); /* Who comes late has little time. */
    ds_client_close(client);
}

/* Writers first, then readers. */
static pid_t
start_process(uint64_t end_ms, uint32_t number, uint32_t life)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        DS_ASSERT(setenv("CMOCKA_TEST_ABORT", "1", 1) == 0); /* If a check fails. */
        if (number < WRITERS)
            write_until(end_ms, number, life);
        else
            read_until(end_ms, number, life);
        _exit(0);
    }
    return pid;
}

static void
kill_and_start_again(pid_t *pid, uint64_t end_ms, uint32_t number, uint32_t life)
{
    int status = 0;
    CHECK(kill(*pid, SIGKILL) == 0);
    CHECK(waitpid(*pid, &status, 0) == *pid);
    CHECK(WIFSIGNALED(status));
    *pid = start_process(end_ms, number, life);
}

/* A number of the worker's statistics. */
static uint64_t
stat_of(struct ds_client *client, const char *name)
{
    char quoted[64];
    char *json = NULL;
    CHECK_OK(ds_client_stats(client, &json, NULL));
    snprintf(quoted, sizeof quoted, "\"%s\": ", name);
    const char *at = strstr(json, quoted);
    CHECK(at != NULL);
    uint64_t value = strtoull(at + strlen(quoted), NULL, 10);
    free(json);
    return value;
}

/* Once every key is deleted, and the dead are seen to be dead. */
static void
check_nothing_is_left(struct ds_client *client)
{
    uint64_t until_ms = clock_monotonic_ms() + 20000;
    uint64_t total = stat_of(client, "memory_total_bytes");
    while (stat_of(client, "memory_largest_free_bytes") != total) {
        CHECK(clock_monotonic_ms() < until_ms);
        usleep(20000);
    }
    CHECK_INT(stat_of(client, "objects"), 0);
    CHECK_INT(stat_of(client, "objects_unsealed"), 0);
    CHECK_INT(stat_of(client, "objects_deleted_but_held"), 0);
    CHECK_INT(stat_of(client, "pins"), 0);
}

static void
delete_all(struct ds_client *client, void (*name_of)(char out[16], uint32_t key),
           uint32_t count)
{
    for (uint32_t key = 0; key < count; key++) {
        char text[16];
        name_of(text, key);
        struct ds_slice name = slice_of_text(text);
        CHECK_OK(ds_delete(client, &name, 1, NULL));
    }
}

TEST(readers_see_whole_values_that_never_go_back_while_keys_change_and_workers_die)
{
    uint64_t end_ms = clock_monotonic_ms() + STRESS_MS;
    pid_t pids[PROCESSES];
    for (uint32_t i = 0; i < PROCESSES; i++)
        pids[i] = start_process(end_ms, i, 0);
    for (uint32_t i = 0; i < KILLS; i++) {
        usleep(STRESS_MS * 1000 / (2 * KILLS + 2));
        worker_kill_child(&worker);
        usleep(STRESS_MS * 1000 / (2 * KILLS + 2));
        uint32_t victim = i * (PROCESSES / KILLS) + i % 2; /* Writers and readers. */
        kill_and_start_again(&pids[victim], end_ms, victim, i + 1);
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status = 0;
        CHECK(waitpid(pids[i], &status, 0) == pids[i]);
        CHECK_INT(status, 0);
    }
    struct ds_client *client = open_client(&worker, false);
    delete_all(client, key_text, KEYS);
    check_nothing_is_left(client);
    ds_client_close(client);
}

/* ---- Many views ---- */

static void
view_key(char out[16], uint32_t i)
{
    (void)snprintf(out, 16, "view_%u", i);
}

/* A value of every key of a round; 8 to 2,000 bytes. */
static void
put_round(struct ds_client *client, uint32_t round)
{
    uint32_t words[500];
    for (uint32_t i = 0; i < VIEWS; i++) {
        size_t count = 2 + (i * 7 + round * 3) % 498;
        char text[16];
        view_key(text, i);
        fill_value(words, count, i, round);
        CHECK_OK(
            ds_put(client, slice_of_text(text), slice(words, count * 4), NULL, NULL));
    }
}

static void
view_round(struct ds_client *client, struct ds_buffer **out)
{
    for (uint32_t i = 0; i < VIEWS; i++) {
        char text[16];
        view_key(text, i);
        CHECK_OK(get_one(client, text, 0, &out[i], NULL));
    }
}

static void
check_round(struct ds_buffer *const *views, uint32_t round)
{
    for (uint32_t i = 0; i < VIEWS; i++)
        CHECK_INT(check_words(views[i], i), round);
}

TEST(thousands_of_views_stay_right_over_overwriting_deleting_and_a_killed_worker)
{
    static struct ds_buffer *views[3][VIEWS];
    struct ds_client *writer = open_client(&worker, false);
    struct ds_client *reader = open_client(&worker, false);
    for (uint32_t round = 0; round < 3; round++) {
        put_round(writer, round);
        view_round(reader, views[round]);
    }
    worker_kill_child(&worker);
    delete_all(writer, view_key, VIEWS);
    put_round(writer, 3); /* Into whatever is free. */
    for (uint32_t round = 0; round < 3; round++)
        check_round(views[round], round);
    for (uint32_t i = 0; i < 3 * VIEWS; i++)
        ds_buffer_release(views[i / VIEWS][i % VIEWS]);
    delete_all(writer, view_key, VIEWS);
    ds_client_close(reader);
    ds_client_close(writer); /* And what it was lent. */
    struct ds_client *client = open_client(&worker, false);
    check_nothing_is_left(client);
    ds_client_close(client);
}

TEST_MAIN(
    EACH(a_value_is_read_while_the_worker_hangs),
    EACH(memory_of_a_worker_that_is_gone_is_not_read),
    EACH(what_was_read_without_the_worker_outlives_its_client),
    EACH(readers_see_whole_values_that_never_go_back_while_keys_change_and_workers_die),
    EACH(thousands_of_views_stay_right_over_overwriting_deleting_and_a_killed_worker))
