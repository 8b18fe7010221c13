#include "worker/stats.h"

#include "base/log.h"
#include "base/slice.h"
#include "os/clock.h"
#include "os/files.h"
#include "os/process.h"
#include "worker/directory.h"
#include "worker/kept_journals.h"
#include "worker/leaving.h"
#include "worker/queues.h"
#include "worker/session.h"

#include <stdio.h>
#include <unistd.h>

enum {
    JSON_BYTES_MAX = 16384,
    HOLDERS_MAX = 32, /* A text of 450 bytes each at most. */
};

/* Text as it may stand between quotes in JSON. */
static void
escape(const char *text, char *out, size_t out_bytes)
{
    size_t used = 0;
    for (; *text != '\0' && used + 7 < out_bytes; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            used += (size_t)snprintf(out + used, out_bytes - used, "\\%c", c);
        else if (c < 0x20)
            used += (size_t)snprintf(out + used, out_bytes - used, "\\u%04x", c);
        else
            out[used++] = (char)c;
    }
    out[used] = '\0';
}

struct json {
    char text[JSON_BYTES_MAX];
    size_t used;
};

/* Between what was added before and what comes. */
static const char *
separator(const struct json *json)
{
    if (json->used == 0)
        return "";
    char last = json->text[json->used - 1];
    return last == '{' || last == '[' ? "" : ", ";
}

/* An object or an array begins, in an array or at the top. */
static void
json_open(struct json *json, char bracket)
{
    int more = snprintf(json->text + json->used, sizeof json->text - json->used, "%s%c",
                        separator(json), bracket);
    json->used += (size_t)more;
}

static void
json_close(struct json *json, char bracket)
{
    json->text[json->used++] = bracket;
}

static void
add_text(struct json *json, const char *name, const char *value)
{
    char escaped[2048];
    escape(value, escaped, sizeof escaped);
    int more = snprintf(json->text + json->used, sizeof json->text - json->used,
                        "%s\"%s\": \"%s\"", separator(json), name, escaped);
    json->used += (size_t)more;
}

static void
add_number(struct json *json, const char *name, uint64_t value)
{
    int more = snprintf(json->text + json->used, sizeof json->text - json->used,
                        "%s\"%s\": %ju", separator(json), name, (uintmax_t)value);
    json->used += (size_t)more;
}

static void
add_identity(struct json *json, struct worker *worker)
{
    add_text(json, "worker_address", worker->flags->worker_address);
    add_text(json, "version", DS_VERSION);
    add_text(json, "state",
             worker->stopping || leaving_is_active(worker) ? "DRAINING" : "HEALTHY");
    add_text(json, "owner", worker->flags->owner);
    add_text(json, "home", worker->resources->home);
    add_text(json, "cluster_name", worker->flags->cluster_name);
    add_number(json, "pid", (uint64_t)getppid());
    add_number(json, "child_pid", (uint64_t)getpid());
    add_number(json, "uid", geteuid());
    add_number(json, "restarts", (uint64_t)worker->restarts);
    add_number(json, "uptime_ms", clock_monotonic_ms() - worker->started_ms);
    add_number(json, "metastore", worker->flags->start_metastore_service);
}

static void
add_store(struct json *json, struct worker *worker)
{
    struct store_stats stats;
    store_stats(worker->store, &stats);
    add_number(json, "incarnation", store_header(worker->store)->incarnation);
    add_number(json, "memory_total_bytes", stats.arena.total_bytes);
    add_number(json, "memory_populated_bytes", stats.arena.populated_bytes);
    add_number(json, "memory_used_bytes", stats.arena.used_bytes);
    add_number(json, "memory_largest_free_bytes", stats.arena.largest_free);
    add_number(json, "memory_deleted_but_held_bytes", stats.dead_bytes);
    add_number(json, "objects", stats.objects);
    add_number(json, "objects_without_checksum", stats.objects_without_checksum);
    add_number(json, "objects_evictable", stats.evictable);
    add_number(json, "objects_copied", stats.copies);
    add_number(json, "keys_elsewhere", directory_count(worker->directory));
    add_number(json, "journal_copies", queues_copies(worker));
    add_number(json, "journals_kept", kept_journals_count(worker));
    add_number(json, "objects_unsealed", stats.writing);
    add_number(json, "objects_lent", stats.lent);
    add_number(json, "objects_deleted_but_held", stats.dead);
    add_number(json, "object_slots", stats.slots_total);
    add_number(json, "clients", stats.clients);
    add_number(json, "pins", stats.pins);
}

static void
add_counters(struct json *json, const struct worker *worker)
{
    const struct worker_counters *counters = &worker->counters;
    add_number(json, "connections", worker->session_count);
    add_number(json, "requests_total", counters->requests);
    add_number(json, "creates_total", counters->creates);
    add_number(json, "seals_total", counters->seals);
    add_number(json, "lookups_total", counters->lookups);
    add_number(json, "hits_total", counters->hits);
    add_number(json, "misses_total", counters->misses);
    add_number(json, "deletes_total", counters->deletes);
    add_number(json, "bytes_sealed_total", counters->bytes_sealed);
    add_number(json, "bytes_fetched_total", counters->bytes_fetched);
    add_number(json, "damaged_total", counters->damaged);
    add_number(json, "out_of_memory_total", counters->out_of_memory);
    add_number(json, "clients_died_total", counters->clients_died);
    add_number(json, "protocol_errors_total", counters->protocol_errors);
}

void
handle_stats(struct session *session, const struct frame_header *header,
             struct ds_slice body)
{
    if (body.len != 0) {
        session_reject(session, "malformed STATS");
        return;
    }
    struct json json = {.used = 0};
    json_open(&json, '{');
    add_identity(&json, session->worker);
    add_store(&json, session->worker);
    add_counters(&json, session->worker);
    json_close(&json, '}');
    conn_reply(session->conn, header, slice(json.text, json.used));
}

static void
add_holder(struct json *json, const struct store_holder *holder)
{
    uint32_t pid = holder->identity.pid;
    char process[PROCESS_TEXT_BYTES] = "a process that is not visible here";
    if (pid != 0)
        process_describe((pid_t)pid, process, sizeof process);
    json_open(json, '{');
    add_text(json, "process", process);
    add_number(json, "pid", pid);
    add_number(json, "pid_start_time", holder->identity.pid_start_time);
    add_number(json, "pinned", holder->pinned);
    add_number(json, "pinned_bytes", holder->pinned_bytes);
    add_number(json, "deleted", holder->dead);
    add_number(json, "deleted_bytes", holder->dead_bytes);
    add_number(json, "unsealed", holder->unsealed);
    add_number(json, "unsealed_bytes", holder->unsealed_bytes);
    json_close(json, '}');
}

void
handle_holders(struct session *session, const struct frame_header *header,
               struct ds_slice body)
{
    if (body.len != 0) {
        session_reject(session, "malformed HOLDERS");
        return;
    }
    struct store_holder holders[HOLDERS_MAX];
    size_t count = store_holders(session->worker->store, false, holders, HOLDERS_MAX);
    struct json json = {.used = 0};
    json_open(&json, '[');
    for (size_t i = 0; i < count; i++)
        add_holder(&json, &holders[i]);
    json_close(&json, ']');
    conn_reply(session->conn, header, slice(json.text, json.used));
}

void
stats_report_ready(struct worker *worker)
{
    struct ds_error err = {0};
    char text[64];
    snprintf(text, sizeof text, "%d\n", (int)getppid());
    bool failed_before = worker->is_unreported;
    worker->is_unreported =
        files_write(worker->resources->health_path, text, 0600, &err) != DS_OK ||
        files_write(worker->resources->ready_path, text, 0600, &err) != DS_OK;
    if (worker->is_unreported && !failed_before)
        log_error("worker ready file, will try again reason=\"%s\"", err.message);
}

void
stats_report_stopping(struct worker *worker)
{
    files_remove(worker->resources->ready_path);
    files_remove(worker->resources->health_path);
}
