/* A queue, of which all that matters here is its journal: records are added to it and read
 * back, by whatever controllers there are, and what was said must stay true, however many
 * there are one after the other (controllers_told.c).
 *
 * A controller is played: it says to its worker what a real one says (worker_link.c), keeps
 * its answers until copied.h, which is the real one, lets it say them, and is killed, alone
 * or with its supervisor. That others go on with its queue is the workers' doing. */
#include "controllers.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "machine.h"
#include "net/conn.h"
#include "net/program.h"
#include "os/append_file.h"
#include "os/clock.h"
#include "wire/journals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PAUSE_MS = 600,     /* At most, between two requests; */
    HURRIES_MS = 20,    /* while something happens. */
    BACKOFF_MS = 50,    /* Until its worker is called again. */
    PATIENCE_MS = 5000, /* Of who asks. */
    UNSERVED_S = 100,   /* All being whole, somebody goes on with a queue by then. */
    PATH_BYTES = SOCKET_BYTES + 32,
};

struct player *players[CONTROLLERS_MAX];
uint32_t player_count;
char queue_name[32];
static uint32_t queue_number;
static uint64_t next_record;
static uint64_t next_journal_id;
static uint64_t unserved_since_ns;
static bool is_looking;
static uint32_t answers;

/* ---- The journal: its id, and records ---- */

static void
journal_path(const struct player *player, char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s.journal", player->socket);
}

static void
put(struct player *player, uint64_t at, uint64_t word)
{
    enum ds_status status = append_file_reserve(player->file, 8 * (at + 1), NULL);
    DS_ASSERT(status == DS_OK);
    status = append_file_write(player->file, 8 * at, slice(&word, sizeof word), NULL);
    DS_ASSERT(status == DS_OK);
}

static void
open_journal(struct player *player)
{
    char path[PATH_BYTES];
    uint64_t words[RECORDS_MAX + 1] = {0};
    journal_path(player, path);
    enum ds_status status = append_file_open(path, &player->file, NULL);
    DS_ASSERT(status == DS_OK);
    uint64_t bytes = min_u64(append_file_bytes(player->file), sizeof words);
    status = append_file_read(player->file, 0, words, bytes, NULL);
    DS_ASSERT(status == DS_OK);
    if (words[0] == 0) {
        words[0] = ++next_journal_id;
        put(player, 0, words[0]);
    }
    player->journal_id = words[0];
    player->count = 0;
    while (player->count < RECORDS_MAX && words[player->count + 1] != 0) {
        player->records[player->count] = words[player->count + 1];
        player->count++;
    }
}

/* As a real one does that has grown long: another file takes its place. */
static void
write_anew(struct player *player)
{
    char path[PATH_BYTES], fresh[PATH_BYTES + 8];
    journal_path(player, path);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    append_file_close(player->file);
    enum ds_status status = append_file_open(fresh, &player->file, NULL);
    DS_ASSERT(status == DS_OK);
    player->journal_id = ++next_journal_id;
    put(player, 0, player->journal_id);
    for (uint32_t i = 0; i < player->count; i++)
        put(player, i + 1, player->records[i]);
    status = append_file_rename(player->file, path, NULL);
    DS_ASSERT(status == DS_OK);
    copied_note_written(&player->copied);
}

/* ---- To its worker ---- */

static void connect_later(struct player *player, uint64_t ms);
static void end(struct player *player, bool with_supervisor);

static void
tell(struct player *player, enum message_type type, const struct writer *body)
{
    struct frame_header header = {.type = type, .sequence = 1};
    conn_send(player->conn, &header, slice(body->data, body->len), NULL, 0, NULL, 0);
}

static void
ask_for_copies(struct player *player)
{
    if (!player->is_served ||
        !copied_begin_request(&player->copied, player->journal_id))
        return;
    struct journal_sync message = {.number = player->copied.asked,
                                   .id = player->journal_id,
                                   .inode = append_file_inode(player->file),
                                   .bytes = 8 * ((uint64_t)player->count + 1),
                                   .sequence = (uint64_t)player->count + 1};
    AUTO_WRITER(body);
    encode_journal_sync(&body, &message);
    tell(player, MESSAGE_JOURNAL_SYNC, &body);
}

static void
answer_what_may_be(struct player *player)
{
    for (uint32_t i = 0; i < ASKED_MAX; i++) {
        struct asked *asked = &player->asked[i];
        if (!asked->is_open || !copied_covers(&player->copied, asked->ticket))
            continue;
        asked->is_open = false;
        if (virtual_now_ns() >= asked->until_ns)
            continue;
        told_answer(player, asked);
        answers++;
    }
    ask_for_copies(player);
}

static void
serve(struct player *player)
{
    char path[PATH_BYTES], address[PATH_BYTES];
    journal_path(player, path);
    snprintf(address, sizeof address, "unix:%s", player->socket);
    struct queue_serve message = {
        .place = {.name = slice_of_text(queue_name),
                  .address = slice_of_text(address),
                  .tcp_address = slice_of_text(player->node->address),
                  .term = player->term},
        .copies_max = JOURNAL_COPIES_MAX,
        .has_answered = player->has_answered,
        .journal_path = slice_of_text(path)};
    AUTO_WRITER(body);
    encode_queue_serve(&body, &message);
    tell(player, MESSAGE_QUEUE_SERVE, &body);
}

static void
on_frame(struct conn *conn, const struct frame_header *header, struct ds_slice body,
         const int *fds, size_t fd_count)
{
    struct player *player = conn_user(conn);
    bool is_copied;
    struct journal_synced synced;
    (void)fds;
    (void)fd_count;
    if (conn != player->conn || player->file == NULL)
        return;
    if (header->status == DS_EXISTS) {
        trace("node %u: its controller of term %ju hears of another",
              player->node->index, (uintmax_t)player->term);
        end(player, true);
    } else if (header->status != DS_OK) {
        conn_close(conn, "refused");
    } else if (header->type == MESSAGE_HELLO) {
        serve(player);
    } else if (header->type == MESSAGE_QUEUE_SERVE &&
               decode_queue_served(body, &is_copied)) {
        player->is_served = true;
        copied_set(&player->copied, is_copied);
        answer_what_may_be(player);
    } else if (header->type == MESSAGE_JOURNAL_SYNC &&
               decode_journal_synced(body, &synced)) {
        if (copied_end_request(&player->copied, synced.number, synced.lease_until)) {
            player->has_answered = true;
            answer_what_may_be(player);
        }
    }
}

static void
on_closed(struct conn *conn, const char *reason)
{
    struct player *player = conn_user(conn);
    (void)reason;
    if (run.is_over || conn != player->conn)
        return;
    player->conn = NULL;
    player->is_served = false;
    copied_lose_lease(&player->copied);
    connect_later(player, BACKOFF_MS);
}

static void
connect_now(void *arg)
{
    static const struct conn_ops ops = {.on_frame = on_frame, .on_closed = on_closed};
    struct player *player = arg;
    if (run.is_over || player->file == NULL || player->conn != NULL)
        return;
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION};
    AUTO_WRITER(body);
    encode_hello(&body, &hello, NULL, 0);
    player->conn = network_dial(player->node, PORT_UNIX, &ops, player);
    tell(player, MESSAGE_HELLO, &body);
}

static void
connect_later(struct player *player, uint64_t ms)
{
    virtual_at(virtual_now_ns() + ms * VIRTUAL_MS, connect_now, player);
}

/* ---- Life of a controller ---- */

static uint32_t
boot_of(const struct node *node)
{
    const struct table_header *table = (const struct table_header *)node->memory.table;
    return node->has_supervisor ? table->incarnation : 0;
}

static struct player *
player_new(struct node *node, uint64_t term, const char *socket)
{
    if (player_count == CONTROLLERS_MAX)
        cluster_fail("%s has more controllers than there should be", queue_name);
    struct player *player = calloc(1, sizeof *player);
    DS_ASSERT(player != NULL);
    player->node = node;
    player->term = term;
    player->boot = boot_of(node);
    player->has_answered = term == QUEUE_TERM_FIRST;
    snprintf(player->socket, sizeof player->socket, "%s", socket);
    players[player_count++] = player;
    return player;
}

static void
begin(struct player *player)
{
    open_journal(player);
    player->copied = (struct copied){.state = COPIED_UNKNOWN};
    memset(player->asked, 0, sizeof player->asked);
    player->is_served = false;
    trace("node %u: a controller of %s begins with %u records, term %ju",
          player->node->index, queue_name, player->count, (uintmax_t)player->term);
    told_begin(player);
    connect_now(player);
}

static void
begin_again(void *arg)
{
    struct player *player = arg;
    if (!run.is_over && !player->is_over && player->file == NULL)
        begin(player);
}

/* With its supervisor its files go: nobody starts it again. */
static void
end(struct player *player, bool with_supervisor)
{
    struct conn *conn = player->conn;
    player->conn = NULL;
    player->is_served = false;
    if (conn != NULL)
        conn_close(conn, NULL);
    if (player->file != NULL && with_supervisor && !player->is_launched)
        append_file_remove(player->file);
    append_file_close(player->file);
    player->file = NULL;
    if (!with_supervisor) {
        player->has_answered = true;
        virtual_at(virtual_now_ns() + chance_between(20, 900) * VIRTUAL_MS, begin_again,
                   player);
        return;
    }
    player->is_over = true;
    if (player->program != NULL)
        machine_program_end(player->program, 0, 0);
    player->program = NULL;
}

static void
on_start(struct program *program, struct node *node, const char *socket, uint64_t term)
{
    struct player *player = player_new(node, term, socket);
    player->is_launched = true;
    player->program = program;
    virtual_at(virtual_now_ns() + chance_between(5, 300) * VIRTUAL_MS, begin_again,
               player);
}

static void
on_kill(struct program *program)
{
    for (uint32_t i = 0; i < player_count; i++) {
        if (players[i]->program != program)
            continue;
        players[i]->program = NULL;
        end(players[i], true);
    }
}

static bool
listens(const char *socket)
{
    for (uint32_t i = 0; i < player_count; i++) {
        if (!players[i]->is_over && strcmp(players[i]->socket, socket) == 0)
            return true;
    }
    return false;
}

static struct player *
found_queue(struct node *node)
{
    char socket[SOCKET_BYTES];
    snprintf(queue_name, sizeof queue_name, "queue%u", ++queue_number);
    snprintf(socket, sizeof socket, "%.100s/first-%u", node->resources.home,
             queue_number);
    told_reset();
    unserved_since_ns = 0;
    struct player *player = player_new(node, QUEUE_TERM_FIRST, socket);
    begin(player);
    return player;
}

/* ---- Faults of its own ---- */

static struct player *
choose_running(void)
{
    uint32_t running = 0, chosen;
    for (uint32_t i = 0; i < player_count; i++)
        running += players[i]->file != NULL;
    if (running == 0)
        return NULL;
    chosen = (uint32_t)chance_below(running);
    for (uint32_t i = 0; i < player_count; i++) {
        if (players[i]->file != NULL && chosen-- == 0)
            return players[i];
    }
    return NULL;
}

bool
controllers_disturb(void)
{
    struct player *player = choose_running();
    bool with_supervisor = chance_of(1, 3);
    if (player == NULL)
        return false;
    trace("node %u: its controller of term %ju is killed%s", player->node->index,
          (uintmax_t)player->term, with_supervisor ? " with its supervisor" : "");
    if (with_supervisor)
        controllers_note_trouble(player->node);
    end(player, with_supervisor);
    return true;
}

/* ---- Who asks ---- */

static void
ask(struct player *player)
{
    struct asked *asked = NULL;
    for (uint32_t i = 0; i < ASKED_MAX && asked == NULL; i++) {
        if (!player->asked[i].is_open || virtual_now_ns() >= player->asked[i].until_ns)
            asked = &player->asked[i];
    }
    if (asked == NULL || !faults_let_run(player->node))
        return;
    struct node_entry entry = node_enter(player->node, &player->node->tally);
    uint64_t now_ds = clock_boot_ds();
    node_leave(entry);
    bool adds = chance_of(1, 2) && player->count < RECORDS_MAX - 1;
    if (adds) {
        player->records[player->count++] = ++next_record;
        put(player, player->count, next_record);
        copied_note_written(&player->copied);
    }
    if (chance_of(1, 40))
        write_anew(player);
    *asked = (struct asked){.is_open = true,
                            .count = player->count,
                            .known_before = told_count(),
                            .until_ns = virtual_now_ns() + PATIENCE_MS * VIRTUAL_MS};
    if (player->copied.state != COPIED_OFF && copied_must_wait(&player->copied, now_ds))
        asked->ticket = copied_take_ticket(&player->copied);
    answer_what_may_be(player);
}

static void
on_next(void *arg)
{
    uint64_t most_ms = virtual_now_ns() < run.hurry_until_ns ? HURRIES_MS : PAUSE_MS;
    if (run.is_over)
        return;
    struct player *player = choose_running();
    if (player != NULL && (!run.is_ending || is_looking))
        ask(player);
    virtual_at(virtual_now_ns() + (1 + chance_below(most_ms * 1000)) * VIRTUAL_US,
               on_next, arg);
}

/* ---- Time ---- */

static uint32_t
count_players(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < player_count; i++)
        count += !players[i]->is_over;
    return count;
}

/* Nobody has anything of it any more. */
static bool
is_lost(void)
{
    return count_players() == 0 && told_copies() == 0;
}

static bool
is_served(void)
{
    for (uint32_t i = 0; i < player_count; i++) {
        if (players[i]->file != NULL && players[i]->is_served)
            return true;
    }
    return false;
}

void
controllers_tick(void)
{
    if (player_count == 0)
        return; /* Not yet. */
    told_look();
    for (uint32_t i = 0; i < player_count; i++) {
        struct player *player = players[i];
        if (player->is_over)
            continue;
        if (boot_of(player->node) == player->boot)
            continue;
        if (player->is_launched || (player->boot != 0 && chance_of(1, 2)))
            end(player, true); /* With its worker, or with the machine. */
        player->boot = boot_of(player->node);
    }
    if (is_served() || run.whole_since_ns == 0)
        unserved_since_ns = 0;
    else if (unserved_since_ns == 0)
        unserved_since_ns = virtual_now_ns();
    if (unserved_since_ns == 0)
        return;
    if (is_lost()) {
        if (told_is_held())
            cluster_fail("%s is gone, though somebody had it", queue_name);
        trace("%s is lost", queue_name);
        found_queue(&cluster.nodes[chance_below(cluster.count)]);
    } else if (virtual_now_ns() > unserved_since_ns + UNSERVED_S * VIRTUAL_S) {
        cluster_fail("nobody goes on with %s: %u copies, %u controllers", queue_name,
                     told_copies(), count_players());
    }
}

/* Two records more, and one controller. */
bool
controllers_are_looked_at(void)
{
    return answers >= 2 && count_players() == 1;
}

void
controllers_look(void)
{
    is_looking = true;
    answers = 0;
}

void
controllers_end(void)
{
    for (uint32_t i = 0; i < player_count; i++) {
        if (players[i]->program != NULL)
            machine_program_end(players[i]->program, 0, 0);
    }
}

void
controllers_reset(void)
{
    for (uint32_t i = 0; i < player_count; i++) {
        append_file_close(players[i]->file);
        free(players[i]);
        players[i] = NULL;
    }
    player_count = 0;
    queue_number = 0;
    next_record = 0;
    next_journal_id = 0;
    is_looking = false;
    machine_programs = (struct machine_programs){on_start, on_kill, listens};
}

void
controllers_start(void)
{
    found_queue(&cluster.nodes[chance_below(cluster.count)]);
    on_next(NULL);
}
