#include "worker/orphans.h"

#include "wire/journals.h"
#include "worker/fixture.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LATER_MS = 60000, MUCH_LATER_MS = 400000 }; /* Past the grace; past giving up. */

/* ---- Blocks of a client that dies ---- */

struct block {
    struct ds_block_id id;
    struct wire_ref ref;
};

/* In a child: makes two blocks, seals both, hands their ids over, and ends. */
static void
make_two_blocks(const struct fixture *fixture, uint16_t queue, int out)
{
    struct caller caller;
    struct block block = {0};
    caller_open_in_child(&caller, fixture);
    caller.queue = queue;
    say_hello(&caller);
    for (int i = 0; i < 2; i++) {
        if (call_block_create(&caller, 4096, &block.id, &block.ref) != DS_OK ||
            call_seal(&caller, block.ref) != DS_OK ||
            write(out, &block.id, sizeof block.id) != sizeof block.id)
            _exit(EXIT_FAILURE);
    }
    _exit(EXIT_SUCCESS);
}

static void
two_orphans_of(struct fixture *fixture, const char *queue, struct ds_block_id out[2])
{
    int ends[2];
    int status = 0;
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        make_two_blocks(fixture, wire_queue_tag(slice_of_text(queue)), ends[1]);
    RUN_UNTIL(fixture, waitpid(pid, &status, WNOHANG) == pid);
    CHECK_INT(status, 0);
    CHECK_INT(read(ends[0], out, 2 * sizeof *out), 2 * sizeof *out);
    close(ends[0]);
    close(ends[1]);
    RUN_UNTIL(fixture, stats_of(fixture).clients == 0);
}

static void
two_orphans(struct fixture *fixture, struct ds_block_id out[2])
{
    two_orphans_of(fixture, "", out);
}

/* ---- The controller ---- */

static void
controller_open(struct caller *controller, struct fixture *fixture)
{
    struct welcome nobody = {0};
    caller_open(controller, fixture);
    CHECK_OK(say_hello_again(controller, &nobody, NULL, 0, 0));
}
#define CONTROLLER(name, fixture)                              \
    __attribute__((cleanup(caller_close))) struct caller name; \
    controller_open(&name, fixture)

static void
ask_for_orphans(struct caller *controller, struct fixture *fixture)
{
    caller_send(controller, MESSAGE_ORPHANS, slice(NULL, 0));
    RUN_UNTIL(fixture, !list_is_empty(&fixture->worker.orphan_readers));
}

/* How many orphans the worker tells of, and whether `id` is among them. */
static size_t
hear_orphans(struct caller *controller, const struct ds_block_id *id, bool *out_heard)
{
    struct block_id_list list;
    struct ds_block_id next;
    size_t count = 0;
    *out_heard = false;
    CHECK(caller_receive(controller));
    CHECK_INT(controller->reply.type, MESSAGE_ORPHANS);
    CHECK(decode_block_ids(body_of(controller), &list));
    while (next_block_id(&list, &next)) {
        count++;
        *out_heard |= memcmp(&next, id, sizeof next) == 0;
    }
    return count;
}

/* The controller of a queue with a name, which waits for orphans. */
static void
queue_open(struct caller *controller, struct fixture *fixture, const char *name)
{
    AUTO_WRITER(body);
    struct queue_serve serve = {
        .place = {.name = slice_of_text(name),
                  .address = slice_of_text("unix:/run/1.sock")}};
    controller_open(controller, fixture);
    encode_queue_serve(&body, &serve);
    CHECK_OK(caller_call(controller, MESSAGE_QUEUE_SERVE, bytes_of(&body)));
    ask_for_orphans(controller, fixture);
}

static void
adopt_or_delete(struct caller *controller, enum message_type type,
                const struct ds_block_id *id)
{
    AUTO_WRITER(body);
    encode_block_ids(&body, id, 1);
    CHECK_OK(caller_call(controller, type, bytes_of(&body)));
}

/* The helper that works out checksums may hold what was deleted for a moment. */
static void
wait_for_used_bytes(struct fixture *fixture, uint64_t bytes)
{
    RUN_UNTIL(fixture, stats_of(fixture).arena.used_bytes == bytes);
}

TEST(blocks_of_a_dead_client_are_told_to_the_controller)
{
    FIXTURE(f, 64);
    CONTROLLER(controller, &f);
    struct ds_block_id ids[2];
    bool heard;
    ask_for_orphans(&controller, &f);
    two_orphans(&f, ids);
    CHECK(!caller_is_told(&controller)); /* An adoption may be on its way. */
    size_t count = hear_orphans(&controller, &ids[1], &heard);
    if (count == 1) { /* Each is due by itself: a tick came between the two. */
        bool is_second;
        ask_for_orphans(&controller, &f);
        count += hear_orphans(&controller, &ids[1], &is_second);
        heard |= is_second;
    }
    CHECK_INT(count, 2);
    CHECK(heard);
    CHECK_INT(stats_of(&f).objects,
              2); /* Nothing goes without the controller's word. */
}

/* Closed between seal and put, by a process that lives on: nobody else would ask. */
TEST(blocks_of_a_client_that_left_are_told_to_the_controller)
{
    FIXTURE(f, 64);
    CONTROLLER(controller, &f);
    CALLER(client, &f);
    CALLER(farewell, &f);
    struct block block = {0};
    bool heard;
    say_hello(&client);
    CHECK_OK(call_block_create(&client, 4096, &block.id, &block.ref));
    CHECK_OK(call_seal(&client, block.ref));
    CHECK_OK(call_leave(&farewell, &client.welcome, HELLO_SHARED_MEMORY));
    ask_for_orphans(&controller, &f);
    orphans_tick(&f.worker, clock_monotonic_ms() + LATER_MS);
    CHECK_INT(hear_orphans(&controller, &block.id, &heard), 1);
    CHECK(heard);
    CHECK_INT(stats_of(&f).objects, 1);
}

TEST(a_block_that_was_adopted_is_no_orphan)
{
    FIXTURE(f, 64);
    CONTROLLER(controller, &f);
    struct ds_block_id ids[2];
    bool heard;
    two_orphans(&f, ids);
    adopt_or_delete(&controller, MESSAGE_BLOCK_ADOPT, &ids[0]);
    ask_for_orphans(&controller, &f);
    orphans_tick(&f.worker, clock_monotonic_ms() + LATER_MS);
    CHECK_INT(hear_orphans(&controller, &ids[1], &heard), 1);
    CHECK(heard);
}

/* A controller may die between hearing of them and doing something. */
TEST(orphans_are_told_again_until_they_are_settled)
{
    FIXTURE(f, 64);
    struct ds_block_id ids[2];
    bool heard;
    two_orphans(&f, ids);
    struct caller first;
    controller_open(&first, &f);
    ask_for_orphans(&first, &f);
    orphans_tick(&f.worker, clock_monotonic_ms() + LATER_MS);
    CHECK_INT(hear_orphans(&first, &ids[0], &heard), 2);
    caller_close(&first);

    CONTROLLER(second, &f);
    ask_for_orphans(&second, &f);
    orphans_tick(&f.worker, clock_monotonic_ms() + 2 * LATER_MS);
    CHECK_INT(hear_orphans(&second, &ids[0], &heard), 2);
    adopt_or_delete(&second, MESSAGE_BLOCK_ADOPT, &ids[0]);
    adopt_or_delete(&second, MESSAGE_BLOCK_DELETE, &ids[1]);
    ask_for_orphans(&second, &f);
    orphans_tick(&f.worker, clock_monotonic_ms() + 4 * LATER_MS);
    CHECK(list_is_empty(&f.worker.orphans));
    CHECK(!caller_is_told(&second));
    CHECK_INT(stats_of(&f).objects, 1);
}

/* Over TCP nobody sees a process end: it is dead once all its connections are closed and
 * it stayed away for --client_dead_timeout_s. */
TEST(blocks_of_a_client_over_tcp_that_stays_away_are_told_to_the_controller)
{
    FIXTURE(f, 64);
    CONTROLLER(controller, &f);
    struct caller writer;
    struct block sealed, unsealed;
    bool heard;
    ask_for_orphans(&controller, &f);
    caller_open_tcp(&writer, &f, f.address);
    say_hello_as_member(&writer);
    CHECK_OK(call_block_create(&writer, 4096, &sealed.id, &sealed.ref));
    CHECK_OK(call_block_create(&writer, 4096, &unsealed.id, &unsealed.ref));
    CHECK_OK(call_seal(&writer, sealed.ref));
    caller_close(&writer);
    CHECK_INT(stats_of(&f).writing, 1);
    RUN_UNTIL(&f, stats_of(&f).clients == 0);
    CHECK_INT(stats_of(&f).writing, 0);
    CHECK_INT(hear_orphans(&controller, &sealed.id, &heard), 1);
    CHECK(heard);
    adopt_or_delete(&controller, MESSAGE_BLOCK_DELETE, &sealed.id);
    wait_for_used_bytes(&f, 0);
}

/* The worker restarts between the death and the telling. */
TEST(orphans_are_found_again_after_a_restart)
{
    FIXTURE(f, 64);
    CONTROLLER(before, &f);
    struct ds_block_id ids[2];
    bool heard;
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        make_two_blocks(&f, 0, ends[1]);
    RUN_UNTIL(&f, stats_of(&f).objects == 2);
    fixture_stop(&f);
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK_INT(read(ends[0], ids, sizeof ids), sizeof ids);
    close(ends[0]);
    close(ends[1]);
    fixture_start_again(&f);
    CONTROLLER(controller, &f);
    ask_for_orphans(&controller, &f);
    CHECK_INT(hear_orphans(&controller, &ids[0], &heard), 2);
    CHECK(heard);
}

/* The newcomer lives on, and must not be taken for the one that made the blocks. */
TEST(orphans_are_found_after_a_restart_though_their_region_is_anothers)
{
    FIXTURE(f, 64);
    struct ds_block_id ids[2];
    bool heard;
    two_orphans(&f, ids);
    CALLER(newcomer, &f);
    say_hello(&newcomer);
    CHECK_INT(newcomer.welcome.client, 1); /* As the dead one's was. */
    struct wire_ref ref;
    struct ds_block_id its_own;
    CHECK_OK(call_block_create(&newcomer, 4096, &its_own, &ref));
    CHECK_OK(call_seal(&newcomer, ref));
    fixture_stop(&f);
    fixture_start_again(&f);
    CHECK_INT(stats_of(&f).clients, 1);

    CONTROLLER(controller, &f);
    ask_for_orphans(&controller, &f);
    CHECK_INT(hear_orphans(&controller, &ids[0], &heard), 2);
    CHECK(heard);
    adopt_or_delete(&controller, MESSAGE_BLOCK_DELETE, &ids[0]);
    adopt_or_delete(&controller, MESSAGE_BLOCK_DELETE, &ids[1]);
    CHECK_INT(stats_of(&f).objects, 1);
    wait_for_used_bytes(&f, 4096);
}

/* What one does not know may be the other's, whose put is on its way. */
TEST(each_controller_is_told_of_its_own_queues_blocks_only)
{
    FIXTURE(f, 64);
    struct caller train, eval;
    struct ds_block_id ids[2], others[2];
    bool heard;
    queue_open(&eval, &f, "eval");
    queue_open(&train, &f, "train");
    two_orphans_of(&f, "train", ids);
    orphans_tick(&f.worker, clock_monotonic_ms() + LATER_MS);
    CHECK_INT(hear_orphans(&train, &ids[1], &heard), 2);
    CHECK(heard);
    CHECK(!caller_is_told(&eval));
    two_orphans_of(&f, "eval", others);
    orphans_tick(&f.worker, clock_monotonic_ms() + LATER_MS);
    CHECK_INT(hear_orphans(&eval, &others[0], &heard), 2);
    CHECK(heard);
    caller_close(&train);
    caller_close(&eval);
}

/* It may come back with its journal; but not for ever. */
TEST(blocks_of_a_queue_that_is_nowhere_are_kept_for_minutes)
{
    FIXTURE(f, 64);
    struct caller eval;
    struct ds_block_id ids[2];
    bool heard;
    queue_open(&eval, &f, "eval");
    two_orphans_of(&f, "train", ids);
    uint64_t now_ms = clock_monotonic_ms();
    orphans_tick(&f.worker, now_ms + LATER_MS);
    orphans_tick(&f.worker, now_ms + 3 * LATER_MS);
    CHECK(!caller_is_told(&eval));
    orphans_tick(&f.worker, now_ms + LATER_MS + MUCH_LATER_MS);
    CHECK_INT(hear_orphans(&eval, &ids[1], &heard), 2);
    CHECK(heard);
    caller_close(&eval);
}

static void
report(struct caller *other_worker, bool is_anybodys, const char *queue)
{
    struct block_birth birth = {7, 9, wire_queue_tag(slice_of_text(queue))};
    struct ds_block_id ids[2] = {wire_block_id(birth, 1), wire_block_id(birth, 2)};
    AUTO_WRITER(body);
    encode_orphans_found(&body, is_anybodys, ids, 2);
    CHECK_OK(caller_call(other_worker, MESSAGE_ORPHANS_FOUND, bytes_of(&body)));
}

TEST(orphans_of_another_node_are_told_to_their_controller_once)
{
    FIXTURE(f, 64);
    CONTROLLER(other_worker, &f);
    struct caller train, eval;
    struct block_birth birth = {7, 9, wire_queue_tag(slice_of_text("train"))};
    struct ds_block_id id = wire_block_id(birth, 2);
    bool heard;
    queue_open(&eval, &f, "eval");
    queue_open(&train, &f, "train");
    report(&other_worker, false, "train");
    CHECK_INT(hear_orphans(&train, &id, &heard), 2);
    CHECK(heard);
    ask_for_orphans(&train, &f);
    orphans_tick(&f.worker, clock_monotonic_ms() + LATER_MS);
    CHECK(!caller_is_told(&train));
    CHECK(!caller_is_told(&eval));
    CHECK_INT(f.worker.foreign_orphan_count, 0);
    caller_close(&train);
    caller_close(&eval);
}

/* Its controller has just gone: the other node tells again. */
TEST(orphans_of_another_node_whose_controller_is_not_here_are_forgotten)
{
    FIXTURE(f, 64);
    CONTROLLER(other_worker, &f);
    struct caller eval;
    bool heard;
    queue_open(&eval, &f, "eval");
    report(&other_worker, false, "train");
    CHECK_INT(f.worker.foreign_orphan_count, 2);
    orphans_tick(&f.worker, clock_monotonic_ms() + LATER_MS);
    CHECK(!caller_is_told(&eval));
    CHECK_INT(f.worker.foreign_orphan_count, 0);

    report(&other_worker, true, "train"); /* Given up there: anybody may judge. */
    struct block_birth birth = {7, 9, wire_queue_tag(slice_of_text("train"))};
    struct ds_block_id id = wire_block_id(birth, 1);
    CHECK_INT(hear_orphans(&eval, &id, &heard), 2);
    CHECK(heard);
    caller_close(&eval);
}

TEST(a_block_goes_with_all_its_parts)
{
    FIXTURE(f, 64);
    CALLER(writer, &f);
    struct created created;
    struct wire_extent extent;
    struct wire_filled parts[3] = {0};
    const uint64_t sizes[3] = {10, 5000, 70000};
    AUTO_WRITER(body);
    say_hello(&writer);
    encode_block_create(&body, 0, sizes, 3);
    CHECK_OK(caller_call(&writer, MESSAGE_BLOCK_CREATE, bytes_of(&body)));
    CHECK(decode_created(body_of(&writer), &created));
    struct ds_block_id id = created.block;
    for (int i = 0; next_extent(&created, &extent); i++)
        parts[i].ref = extent.ref;
    writer_clear(&body);
    encode_seal(&body, 0, false, parts, 3);
    CHECK_OK(caller_call(&writer, MESSAGE_SEAL, bytes_of(&body)));
    CHECK_INT(stats_of(&f).objects, 3);
    adopt_or_delete(&writer, MESSAGE_BLOCK_DELETE, &id);
    CHECK_INT(stats_of(&f).objects, 0);
    wait_for_used_bytes(&f, 0);
    adopt_or_delete(&writer, MESSAGE_BLOCK_ADOPT, &id); /* Nothing is there. */
    uint32_t count;
    const uint8_t *flags;
    CHECK(decode_flags(body_of(&writer), &count, &flags));
    CHECK_INT(count, 1);
    CHECK_INT(flags[0], 0);
}

TEST_MAIN(RUN(blocks_of_a_dead_client_are_told_to_the_controller),
          RUN(blocks_of_a_client_that_left_are_told_to_the_controller),
          RUN(a_block_that_was_adopted_is_no_orphan),
          RUN(orphans_are_told_again_until_they_are_settled),
          RUN(blocks_of_a_client_over_tcp_that_stays_away_are_told_to_the_controller),
          RUN(orphans_are_found_again_after_a_restart),
          RUN(orphans_are_found_after_a_restart_though_their_region_is_anothers),
          RUN(each_controller_is_told_of_its_own_queues_blocks_only),
          RUN(blocks_of_a_queue_that_is_nowhere_are_kept_for_minutes),
          RUN(orphans_of_another_node_are_told_to_their_controller_once),
          RUN(orphans_of_another_node_whose_controller_is_not_here_are_forgotten),
          RUN(a_block_goes_with_all_its_parts))
