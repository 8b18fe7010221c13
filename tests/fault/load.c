#include "load_internal.h"

#include "base/slice.h"
#include "base/status.h"
#include "os/fault.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    WAIT_MS = 3000,
    MISS_MS = 3,
    KEY_BYTES = 48,
};

/* The keys, by number. */
enum { KEY_PUT, KEY_BUFFER, KEY_LARGE, KEY_PEER, KEY_GONE, KEY_MISSING };

const size_t load_version_bytes[4] = {0, 100, 3000, 200000};

void
load_fail(struct load *load, const char *format, ...)
{
    if (load->report[0] != '\0')
        return; /* The first mistake explains the others. */
    va_list args;
    va_start(args, format);
    vsnprintf(load->report, sizeof load->report, format, args);
    va_end(args);
}

/* Whether the call succeeded. A failure says why, in time. */
bool
load_succeeded(struct load *load, const char *what, enum ds_status status,
               const struct ds_error *err)
{
    if (status == DS_OK)
        return true;
    if (load->is_calm)
        load_fail(load, "%s failed although nothing was made to fail: %s: %s", what,
                  ds_status_name(status), err->message);
    if (strlen(err->message) < 10)
        load_fail(load, "%s: the error says only \"%s\"", what, err->message);
    if (status == DS_TIMEOUT)
        load_fail(load, "%s was not answered: %s", what, err->message);
    return false;
}

/* ---- Values ---- */

static struct ds_slice
key_of(const struct load *load, int key, char out[KEY_BYTES])
{
    int len = snprintf(out, KEY_BYTES, "%s:%d", load->name, key);
    return slice(out, (size_t)len);
}

static uint8_t
byte_at(int key, int version, size_t at)
{
    return (uint8_t)(at * 7 + at / 251 + (size_t)(key * 31 + version * 101));
}

void
load_fill(uint8_t *data, int key, int version, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = byte_at(key, version, i);
}

static bool
is_value(const uint8_t *data, uint64_t size, int key, int version)
{
    if (size != load_version_bytes[version])
        return false;
    for (size_t i = 0; i < size; i++) {
        if (data[i] != byte_at(key, version, i))
            return false;
    }
    return true;
}

/* What the buffer holds: ABSENT, the bit of a version, or 0: nothing that was put. */
uint32_t
load_found(struct ds_buffer *buffer, int key)
{
    if (buffer == NULL)
        return ABSENT;
    for (int version = 1; version <= 3; version++) {
        if (is_value(ds_buffer_data(buffer), ds_buffer_size(buffer), key, version))
            return 1u << version;
    }
    return 0;
}

static void
check_found(struct load *load, const char *what, struct ds_buffer *buffer, int key)
{
    uint32_t found = load_found(buffer, key);
    if ((found & load->allowed[key]) == 0)
        load_fail(load, "%s: key %d has %#x, promised was one of %#x", what, key, found,
                  load->allowed[key]);
}

/* The outcome of a change to `becomes`. */
void
load_note(uint32_t *allowed, bool done, uint32_t becomes)
{
    *allowed = done ? becomes : *allowed | becomes;
}

/* ---- Clients ---- */

static struct ds_client *
open_client(struct load *load, bool no_shared_memory)
{
    struct ds_client_options options = {
        .struct_bytes = sizeof options,
        .host = "127.0.0.1",
        .port = load->port,
        .connect_timeout_ms = CALL_TIMEOUT_MS,
        .no_shared_memory = no_shared_memory,
    };
    struct ds_client *client = NULL;
    struct ds_error err = {0};
    enum ds_status status = ds_client_open(&options, &client, &err);
    return load_succeeded(load, "open a client", status, &err) ? client : NULL;
}

struct ds_client *
load_open_client(struct load *load)
{
    return open_client(load, false);
}

/* ---- The peer ---- */

/* In the peer: opens, reserves, reads; then puts when told; then waits for its end. */
static void
run_peer(struct load *load, int from, int to)
{
    char word = 'x', key[KEY_BYTES];
    uint8_t data[100];
    uint64_t size = 5000;
    struct ds_buffer *held = NULL;
    struct ds_error err = {0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct ds_slice name = key_of(load, LOAD_KEYS, key);
    struct ds_client *client = load_open_client(load);
    if (client != NULL &&
        ds_create(client, &name, &size, 1, NULL, &held, &err) == DS_OK)
        word = 'r';
    else
        fprintf(stderr, "the peer: %s%s\n", load->report, err.message);
    if (write(to, &word, 1) != 1 || read(from, &word, 1) != 1)
        _exit(1);
    usleep(1000);
    load_fill(data, KEY_PEER, 1, sizeof data);
    name = key_of(load, KEY_PEER, key);
    bool done = ds_put(client, name, slice(data, sizeof data), NULL, &err) == DS_OK;
    if (write(to, done ? "o" : "x", 1) == 1)
        pause();
    _exit(1);
}

static void
start_peer(struct load *load)
{
    int there[2], back[2];
    char word = 0;
    if (pipe(there) != 0 || pipe(back) != 0)
        abort();
    pid_t pid = fork();
    if (pid == 0)
        run_peer(load, there[0], back[1]);
    close(there[0]);
    close(back[1]);
    load->peer = (struct load_peer){pid, there[1], back[0]};
    if (read(back[0], &word, 1) != 1 || word != 'r')
        load_fail(load, "the peer cannot start");
}

static void
kill_peer(struct load *load)
{
    if (load->peer.pid <= 0)
        return;
    fault_mute(true);
    kill(load->peer.pid, SIGKILL);
    waitpid(load->peer.pid, NULL, 0);
    close(load->peer.to);
    close(load->peer.from);
    fault_mute(false);
    load->peer.pid = 0;
}

/* Says a word to the peer, or (NULL) waits for its answer. */
static char
talk(struct load *load, const char *word)
{
    char answer = 0;
    fault_mute(true);
    ssize_t done = word != NULL ? write(load->peer.to, word, 1)
                                : read(load->peer.from, &answer, 1);
    fault_mute(false);
    if (done != 1)
        load_fail(load, "the peer is gone");
    return answer;
}

/* A get that waits for what the peer puts. */
static void
get_from_peer(struct load *load)
{
    char key[KEY_BYTES];
    struct ds_slice name = key_of(load, KEY_PEER, key);
    struct ds_buffer *buffer = NULL;
    struct ds_error err = {0};
    load->allowed[KEY_PEER] = ABSENT | 2;
    (void)talk(load, "p");
    enum ds_status status = ds_get(load->client, &name, 1, WAIT_MS, &buffer, &err);
    bool got = load_succeeded(load, "wait for a key", status, &err);
    load_note(&load->allowed[KEY_PEER], talk(load, NULL) == 'o', 2);
    if (got)
        check_found(load, "wait for a key", buffer, KEY_PEER);
    ds_buffer_release(buffer);
}

/* ---- Objects ---- */

static void
put(struct load *load, int key, int version)
{
    static uint8_t data[200000];
    char text[KEY_BYTES];
    struct ds_error err = {0};
    load_fill(data, key, version, load_version_bytes[version]);
    enum ds_status status =
        ds_put(load->client, key_of(load, key, text),
               slice(data, load_version_bytes[version]), NULL, &err);
    load_note(&load->allowed[key], load_succeeded(load, "put", status, &err),
              1u << version);
}

/* Two buffers filled in place and sealed together. */
static void
publish(struct load *load, int version)
{
    char texts[2][KEY_BYTES];
    struct ds_slice keys[2] = {key_of(load, KEY_BUFFER, texts[0]),
                               key_of(load, KEY_LARGE, texts[1])};
    uint64_t sizes[2] = {load_version_bytes[version], load_version_bytes[3]};
    struct ds_buffer *buffers[2] = {NULL, NULL};
    struct ds_error err = {0};
    enum ds_status status =
        ds_create(load->client, keys, sizes, 2, NULL, buffers, &err);
    if (!load_succeeded(load, "create", status, &err))
        return;
    load_fill(ds_buffer_data(buffers[0]), KEY_BUFFER, version, sizes[0]);
    load_fill(ds_buffer_data(buffers[1]), KEY_LARGE, 3, sizes[1]);
    status = ds_seal(load->client, buffers, 2, &err);
    bool done = load_succeeded(load, "seal", status, &err);
    load_note(&load->allowed[KEY_BUFFER], done, 1u << version);
    load_note(&load->allowed[KEY_LARGE], done, 1u << 3);
    ds_buffer_release(buffers[0]);
    ds_buffer_release(buffers[1]);
}

/* All keys at once, as they are now. */
static void
get_all(struct load *load, struct ds_client *client, const char *what, uint32_t wait_ms)
{
    char texts[LOAD_KEYS][KEY_BYTES];
    struct ds_slice keys[LOAD_KEYS];
    struct ds_buffer *buffers[LOAD_KEYS] = {NULL};
    struct ds_error err = {0};
    for (int i = 0; i < LOAD_KEYS; i++)
        keys[i] = key_of(load, i, texts[i]);
    enum ds_status status = ds_get(client, keys, LOAD_KEYS, wait_ms, buffers, &err);
    if (!load_succeeded(load, what, status, &err))
        return;
    for (int i = 0; i < LOAD_KEYS; i++) {
        check_found(load, what, buffers[i], i);
        ds_buffer_release(buffers[i]);
    }
}

/* A view may be written to; nobody else sees that. */
static void
view(struct load *load)
{
    char text[KEY_BYTES];
    struct ds_slice name = key_of(load, KEY_LARGE, text);
    struct ds_buffer *buffer = NULL;
    struct ds_error err = {0};
    void *data = NULL;
    enum ds_status status = ds_get(load->client, &name, 1, 0, &buffer, &err);
    if (!load_succeeded(load, "get for a view", status, &err) || buffer == NULL)
        return;
    status = ds_view_map(buffer, &data, &err);
    if (load_succeeded(load, "map a view", status, &err)) {
        memset(data, 0, 100);
        ds_view_unmap(buffer, data);
    }
    check_found(load, "get after a view", buffer, KEY_LARGE);
    ds_buffer_release(buffer);
}

static void
get_part(struct load *load)
{
    char text[KEY_BYTES];
    struct ds_buffer *buffer = NULL;
    struct ds_error err = {0};
    enum ds_status status = ds_get_range(load->client, key_of(load, KEY_LARGE, text),
                                         1000, 50, 0, &buffer, &err);
    if (!load_succeeded(load, "get a range", status, &err))
        return;
    uint8_t expected[50];
    for (size_t i = 0; i < sizeof expected; i++)
        expected[i] = byte_at(KEY_LARGE, 3, 1000 + i);
    bool there = buffer != NULL && ds_buffer_size(buffer) == sizeof expected &&
                 memcmp(ds_buffer_data(buffer), expected, sizeof expected) == 0;
    if (!there && (buffer != NULL || (load->allowed[KEY_LARGE] & ABSENT) == 0))
        load_fail(load, "get a range: not the bytes that were put");
    ds_buffer_release(buffer);
}

static void
ask(struct load *load)
{
    char texts[2][KEY_BYTES];
    struct ds_slice keys[2] = {key_of(load, KEY_PUT, texts[0]),
                               key_of(load, KEY_MISSING, texts[1])};
    bool there[2] = {false, false};
    char *json = NULL;
    struct ds_error err = {0};
    enum ds_status status = ds_exist(load->client, keys, 2, there, &err);
    if (load_succeeded(load, "exist", status, &err) &&
        (there[1] || (!there[0] && (load->allowed[KEY_PUT] & ABSENT) == 0)))
        load_fail(load, "exist: wrong answer");
    status = ds_expire(load->client, keys, 2, 3600, there, &err);
    (void)load_succeeded(load, "expire", status, &err);
    status = ds_client_stats(load->client, &json, &err);
    if (load_succeeded(load, "stats", status, &err))
        free(json);
    status = ds_client_ping(load->client, 0, &err);
    (void)load_succeeded(load, "ping", status, &err);
}

static void
forget(struct load *load, int key)
{
    char text[KEY_BYTES];
    struct ds_slice name = key_of(load, key, text);
    struct ds_error err = {0};
    enum ds_status status = ds_delete(load->client, &name, 1, &err);
    load_note(&load->allowed[key], load_succeeded(load, "delete", status, &err),
              ABSENT);
}

/* ---- The whole ---- */

static void
promise_nothing(struct load *load)
{
    for (int i = 0; i < LOAD_KEYS; i++)
        load->allowed[i] = ABSENT;
    for (int i = 0; i < LOAD_ROWS; i++)
        load->rows[i] = ABSENT;
}

void
load_begin(struct load *load)
{
    promise_nothing(load);
    start_peer(load);
}

/* Comes, puts, gets and goes. */
static void
visit(struct load *load)
{
    struct ds_client *before = load->client;
    load->client = open_client(load, load->over_tcp);
    if (load->client != NULL) {
        put(load, KEY_PUT, 3);
        get_all(load, load->client, "get of a visitor", 0);
    }
    ds_client_close(load->client);
    load->client = before;
    ds_queue_close(load->queue);
    load->queue = NULL;
}

void
load_run(struct load *load)
{
    /* One call fails; who asks again is let in. */
    for (int tries = 0; tries < 2 && load->client == NULL; tries++)
        load->client = open_client(load, load->over_tcp);
    if (load->client == NULL)
        return;
    put(load, KEY_PUT, 1);
    put(load, KEY_PUT, 2);
    put(load, KEY_GONE, 3);
    publish(load, 2);
    get_all(load, load->client, "get", 0);
    get_part(load);
    if (!load->over_tcp)
        view(load);
    ask(load);
    get_from_peer(load);
    load_use_queue(load);
    forget(load, KEY_GONE);
    kill_peer(load);
    get_all(load, load->client, "get with a wait", MISS_MS);
    visit(load);
}

void
load_hold(struct load *load)
{
    char text[KEY_BYTES];
    struct ds_slice name = key_of(load, KEY_LARGE, text);
    struct ds_error err = {0};
    promise_nothing(load);
    load->client = open_client(load, load->over_tcp);
    if (load->client == NULL)
        return;
    put(load, KEY_PUT, 2);
    publish(load, 2);
    enum ds_status status = ds_get(load->client, &name, 1, 0, &load->held, &err);
    (void)load_succeeded(load, "get to hold", status, &err);
}

void
load_check_held(struct load *load)
{
    struct ds_client *holder = load->client;
    if (holder == NULL)
        return;
    load->client = load_open_client(load);
    if (load->client != NULL) {
        get_all(load, load->client, "get after the crash", 0);
        forget(load, KEY_LARGE);
        for (int i = 0; i < 3; i++)
            put(load, KEY_GONE, 3); /* Of the size of what is held. */
    }
    if (load_found(load->held, KEY_LARGE) != 1u << 3)
        load_fail(load, "what was held over the crash has changed");
    ds_buffer_release(load->held);
    load->held = NULL;
    ds_client_close(load->client);
    load->client = holder;
}

static void
delete_all(struct load *load, struct ds_client *client)
{
    char texts[LOAD_KEYS][KEY_BYTES];
    struct ds_slice keys[LOAD_KEYS];
    struct ds_error err = {0};
    for (int i = 0; i < LOAD_KEYS; i++)
        keys[i] = key_of(load, i, texts[i]);
    enum ds_status status = ds_delete(client, keys, LOAD_KEYS, &err);
    (void)load_succeeded(load, "delete all", status, &err);
    for (int i = 0; i < LOAD_ROWS && load->queue_address != NULL; i++)
        load_clear_row(load, i);
    if (load->block_is_known && load->block_may_be_ours)
        load_delete_block(load, client);
}

static void
close_all(struct load *load)
{
    ds_queue_close(load->queue);
    ds_client_close(load->client);
    load->queue = NULL;
    load->client = NULL;
}

void
load_end(struct load *load)
{
    kill_peer(load);
    load->is_calm = true;
    if (load->client != NULL)
        get_all(load, load->client, "get by the same client afterwards", 0);
    struct ds_client *fresh = load_open_client(load);
    if (fresh != NULL) {
        get_all(load, fresh, "get by a new client afterwards", 0);
        if (load->queue_address != NULL && load->block_is_known)
            load_check_rows(load, fresh, "kv_get afterwards");
        delete_all(load, fresh);
    }
    ds_client_close(fresh);
    close_all(load);
}
