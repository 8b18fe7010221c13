/* Random operations from a seed against a model: a plain table that has one entry for
 * each cell, which is what the queue never keeps. Now and then the queue is thrown away
 * and made again from its journal. */
#include "queue/queue.h"

#include "queue/test_journal.h"
#include "queue/test_text.h"

#include "wire/msgpack.h"

#include "base/slice.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PARTITIONS = 2,
    KEYS = 12,
    FIELDS = 6,
    TAGS = 3,
    STEPS = 6000,
    BLOCKS = 2 * STEPS
};

struct cell {
    uint32_t block; /* 0: nothing there. */
    uint32_t row;
};

struct model_row {
    uint32_t age; /* Of its insertion; 0: there is no such row. */
    uint32_t tags[TAGS];
    struct cell cells[FIELDS];
};

struct model {
    struct model_row rows[PARTITIONS][KEYS];
    bool has_partition[PARTITIONS];
    uint32_t age;
    uint32_t block; /* The last one put. */
    uint32_t live_cells[BLOCKS + 1];
    bool was_live[BLOCKS + 1];
    uint64_t seed;
    struct talk talk;
    struct writer text; /* The request being made. */
    struct test_journal journal;
};

static uint32_t
pick(struct model *model, uint32_t count)
{
    return (uint32_t)(test_random(&model->seed) % count);
}

static void
say(struct model *model, const char *text)
{
    write_bytes(&model->text, slice_of_text(text));
}

static void
say_number(struct model *model, const char *format, uint32_t number)
{
    char text[64];
    snprintf(text, sizeof text, format, number); /* NOLINT */
    say(model, text);
}

/* `count` different numbers below KEYS, in random order. */
static void
shuffle_keys(struct model *model, uint32_t keys[KEYS])
{
    for (uint32_t i = 0; i < KEYS; i++)
        keys[i] = i;
    for (uint32_t i = KEYS - 1; i > 0; i--) {
        uint32_t j = pick(model, i + 1);
        uint32_t other = keys[i];
        keys[i] = keys[j];
        keys[j] = other;
    }
}

/* Half of the time neighbours stay neighbours, as they do in real batches. */
static void
choose_keys(struct model *model, uint32_t keys[KEYS])
{
    shuffle_keys(model, keys);
    if (pick(model, 2) == 0)
        return;
    uint32_t first = pick(model, KEYS);
    for (uint32_t i = 0; i < KEYS; i++)
        keys[i] = (first + i) % KEYS;
}

static void
say_keys(struct model *model, const uint32_t *keys, uint32_t count)
{
    say(model, "[");
    for (uint32_t i = 0; i < count; i++)
        say_number(model, "'k%u',", keys[i]);
    say(model, "],");
}

/* Names the fields of the mask, in random order. */
static void
say_fields(struct model *model, uint32_t mask)
{
    uint32_t first = pick(model, FIELDS);
    say(model, "[");
    for (uint32_t i = 0; i < FIELDS; i++) {
        uint32_t field = (first + i) % FIELDS;
        if (mask >> field & 1)
            say_number(model, "'f%u',", field);
    }
    say(model, "]");
}

static void
say_column_bytes(struct model *model, uint32_t mask)
{
    for (uint32_t field = 0; field < FIELDS; field++) {
        if (mask >> field & 1)
            say_number(model, "%u,", 1000 + pick(model, 1000));
    }
}

/* One block for all rows, or now and then two; answers with the second's first row. */
static uint32_t
say_blocks(struct model *model, uint32_t mask, uint32_t count)
{
    uint32_t split = count > 1 && pick(model, 3) == 0 ? 1 + pick(model, count - 1) : 0;
    if (mask == 0) {
        say(model, "nil,");
        return 0;
    }
    say_number(model, "[[@%u,", ++model->block);
    if (split > 0)
        say_number(model, "@%u,", model->block + 1);
    say(model, "],'y',");
    say_fields(model, mask);
    say(model, ",[");
    say_column_bytes(model, mask);
    if (split > 0)
        say_column_bytes(model, mask);
    say(model, "],[");
    if (split > 0)
        say_number(model, "%u", split);
    say(model, "]],");
    return split;
}

static void
set_cell(struct model *model, struct cell *cell, struct cell value)
{
    if (cell->block != 0)
        model->live_cells[cell->block]--;
    if (value.block != 0)
        model->live_cells[value.block]++;
    *cell = value;
}

static void
put_row(struct model *model, struct model_row *row, uint32_t position, uint32_t mask)
{
    if (row->age == 0)
        row->age = ++model->age;
    for (uint32_t field = 0; field < FIELDS; field++) {
        if (mask >> field & 1)
            set_cell(model, &row->cells[field], (struct cell){model->block, position});
    }
    if (pick(model, 3) > 0) {
        say(model, "nil,");
        return;
    }
    uint32_t tag = pick(model, TAGS);
    row->tags[tag] = 1 + pick(model, 1000);
    say_number(model, "{'t%u':", tag);
    say_number(model, "%u},", row->tags[tag]);
}

static void
clear_row(struct model *model, struct model_row *row)
{
    for (uint32_t field = 0; field < FIELDS; field++)
        set_cell(model, &row->cells[field], (struct cell){0});
    *row = (struct model_row){0};
}

static void
begin(struct model *model, const char *operation, uint32_t partition)
{
    writer_clear(&model->text);
    say(model, operation);
    say_number(model, "'p%u',", partition);
}

static void
call(struct model *model, enum ds_status expected)
{
    write_u8(&model->text, 0);
    CHECK_STATUS(talk_call(&model->talk, (const char *)model->text.data), expected);
    /* ['kv_put', ['kv_clear', ['kv_move' */
    if (expected == DS_OK && strchr("pcm", model->text.data[5]) != NULL)
        test_journal_append(&model->journal, &model->talk);
}

static struct reader
reply_of(struct model *model)
{
    return reader_of(model->talk.reply.data, model->talk.reply.len);
}

/* Exactly the blocks that had live cells before and have none now. */
static void
check_dead(struct model *model, struct reader *reply)
{
    uint32_t reported = msgpack_read_array(reply);
    for (uint32_t i = 0; i < reported; i++) {
        struct ds_slice id = msgpack_read_bin(reply);
        CHECK_INT(id.len, 16);
        struct reader counter = reader_of((const uint8_t *)id.data + 8, 8);
        uint64_t block = read_u64(&counter);
        CHECK(block >= 1 && block <= model->block);
        CHECK(model->was_live[block]);
        CHECK_INT(model->live_cells[block], 0);
        model->was_live[block] = false;
    }
    CHECK(reader_done(reply));
    for (uint32_t block = 1; block <= model->block; block++) {
        CHECK(!model->was_live[block] || model->live_cells[block] > 0);
        model->was_live[block] = model->live_cells[block] > 0;
    }
}

static void
random_put(struct model *model)
{
    uint32_t partition = pick(model, PARTITIONS);
    uint32_t mask = pick(model, 5) == 0 ? 0 : pick(model, 1u << FIELDS);
    uint32_t count = 1 + pick(model, KEYS);
    uint32_t keys[KEYS];
    choose_keys(model, keys);
    begin(model, "['kv_put',", partition);
    say_keys(model, keys, count);
    uint32_t split = say_blocks(model, mask, count);
    say(model, "[");
    for (uint32_t i = 0; i < count; i++) {
        model->block += split > 0 && i == split;
        put_row(model, &model->rows[partition][keys[i]], i < split ? i : i - split,
                mask);
    }
    say(model, "]]");
    model->has_partition[partition] = true;
    call(model, DS_OK);
    struct reader reply = reply_of(model);
    CHECK_INT(msgpack_read_array(&reply), 3);
    msgpack_skip(&reply);
    msgpack_skip(&reply);
    check_dead(model, &reply);
}

static void
random_clear(struct model *model)
{
    uint32_t partition = pick(model, PARTITIONS);
    uint32_t count = pick(model, pick(model, 8) == 0 ? KEYS + 1 : 4);
    uint32_t keys[KEYS];
    choose_keys(model, keys);
    begin(model, "['kv_clear',", partition);
    say_keys(model, keys, count);
    say(model, "]");
    for (uint32_t i = 0; i < count; i++)
        clear_row(model, &model->rows[partition][keys[i]]);
    call(model, DS_OK);
    struct reader reply = reply_of(model);
    CHECK_INT(msgpack_read_array(&reply), 1);
    check_dead(model, &reply);
}

/* Mostly of a block that has something to move. */
static void
random_move(struct model *model)
{
    uint32_t partition = pick(model, PARTITIONS), mask = 1 + pick(model, 63);
    uint32_t count = 1 + pick(model, KEYS), moved = 0, keys[KEYS];
    choose_keys(model, keys);
    uint32_t from = model->rows[partition][keys[0]].cells[pick(model, FIELDS)].block;
    begin(model, "['kv_move',", partition);
    say_keys(model, keys, count);
    say_number(model, "[[@%u],'y',", ++model->block);
    say_fields(model, mask);
    say(model, ",[");
    say_column_bytes(model, mask);
    say_number(model, "],[]],@%u]", from);
    for (uint32_t i = 0; from > 0 && i < count * FIELDS; i++) {
        struct cell *cell = &model->rows[partition][keys[i / FIELDS]].cells[i % FIELDS];
        if (cell->block != from || !(mask >> i % FIELDS & 1))
            continue;
        set_cell(model, cell, (struct cell){model->block, i / FIELDS});
        moved++;
    }
    call(model, moved > 0 ? DS_OK : DS_NOT_FOUND);
    struct reader reply = reply_of(model);
    if (moved > 0 && msgpack_read_array(&reply) == 1)
        check_dead(model, &reply);
}

/* ---- kv_get ---- */

/* The rows and fields that a get must find, and the cells that its reply names. */
struct expected_get {
    uint32_t row_count;
    const struct model_row *rows[2 * KEYS];
    uint32_t positions[2 * KEYS];
    uint32_t mask;
    uint32_t fields[FIELDS]; /* Of the reply. */
    uint32_t field_count;
    uint32_t group_of[FIELDS]; /* 1 and up; 0: not seen yet. */
};

static uint32_t
mask_of_row(const struct model_row *row)
{
    uint32_t mask = 0;
    for (uint32_t field = 0; field < FIELDS; field++)
        mask |= (uint32_t)(row->cells[field].block != 0) << field;
    return mask;
}

static void
check_found(const struct expected_get *get, uint32_t asked, struct reader *reply)
{
    if (get->row_count == asked) {
        CHECK(msgpack_read_nil(reply));
        return;
    }
    CHECK_INT(msgpack_read_array(reply), get->row_count);
    for (uint32_t i = 0; i < get->row_count; i++)
        CHECK_INT(msgpack_read_uint(reply), get->positions[i]);
}

static void
check_fields(struct expected_get *get, struct reader *reply)
{
    get->field_count = msgpack_read_array(reply);
    uint32_t seen = 0;
    for (uint32_t i = 0; i < get->field_count; i++) {
        struct ds_slice name = msgpack_read_str(reply);
        CHECK_INT(name.len, 2);
        get->fields[i] = (uint32_t)(((const char *)name.data)[1] - '0');
        CHECK(i == 0 || get->fields[i - 1] < get->fields[i]);
        seen |= 1u << get->fields[i];
    }
    CHECK_INT(seen, get->mask);
}

/* Each run is as long as can be, and its cells are the model's. */
static void
check_runs(const struct expected_get *get, const uint32_t *fields, uint32_t field_count,
           const uint64_t *blocks, struct reader *reply)
{
    uint32_t runs = msgpack_read_array(reply) / 3;
    uint32_t at = 0;
    struct cell end = {0};
    for (uint32_t i = 0; i < runs; i++) {
        uint32_t block = (uint32_t)blocks[msgpack_read_uint(reply)];
        uint32_t first = (uint32_t)msgpack_read_uint(reply);
        uint32_t count = (uint32_t)msgpack_read_uint(reply);
        CHECK(count > 0 && at + count <= get->row_count);
        CHECK(block != end.block || first != end.row);
        end = (struct cell){block, first + count};
        for (uint32_t j = 0; j < count * field_count; j++) {
            const struct cell *cell =
                &get->rows[at + j / field_count]->cells[fields[j % field_count]];
            CHECK_INT(cell->block, block);
            CHECK_INT(cell->row, first + j / field_count);
        }
        at += count;
    }
    CHECK_INT(at, get->row_count);
}

static void
check_group(struct expected_get *get, uint32_t number, struct reader *reply)
{
    uint32_t fields[FIELDS];
    uint64_t blocks[2 * KEYS];
    CHECK_INT(msgpack_read_array(reply), 3);
    uint32_t field_count = msgpack_read_array(reply);
    for (uint32_t i = 0; i < field_count; i++) {
        uint64_t index = msgpack_read_uint(reply);
        CHECK(index < get->field_count);
        fields[i] = get->fields[index];
        CHECK_INT(get->group_of[fields[i]], 0);
        get->group_of[fields[i]] = number;
    }
    uint32_t block_count = msgpack_read_array(reply);
    CHECK(block_count >= 1 && block_count <= get->row_count);
    for (uint32_t i = 0; i < block_count; i++) {
        CHECK_INT(msgpack_read_array(reply), 2);
        struct ds_slice id = msgpack_read_bin(reply);
        struct reader counter = reader_of((const uint8_t *)id.data + 8, 8);
        blocks[i] = read_u64(&counter);
        CHECK(slice_equal(msgpack_read_str(reply), slice_of_text("y")));
    }
    check_runs(get, fields, field_count, blocks, reply);
}

static bool
lie_together(const struct expected_get *get, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < get->row_count; i++) {
        if (memcmp(&get->rows[i]->cells[a], &get->rows[i]->cells[b],
                   sizeof(struct cell)) != 0)
            return false;
    }
    return true;
}

/* Fields share a group exactly when their cells lie together in every row. */
static void
check_division(const struct expected_get *get)
{
    for (uint32_t i = 0; i < get->field_count * get->field_count; i++) {
        uint32_t a = get->fields[i / get->field_count];
        uint32_t b = get->fields[i % get->field_count];
        CHECK(get->group_of[a] != 0);
        CHECK_INT(get->group_of[a] == get->group_of[b], lie_together(get, a, b));
    }
}

static void
check_get(struct model *model, struct expected_get *get, uint32_t asked)
{
    struct reader reply = reply_of(model);
    CHECK_INT(msgpack_read_array(&reply), 3);
    check_found(get, asked, &reply);
    check_fields(get, &reply);
    uint32_t groups = msgpack_read_array(&reply);
    for (uint32_t i = 0; i < groups; i++)
        check_group(get, i + 1, &reply);
    CHECK(reader_done(&reply));
    check_division(get);
}

static void
random_get(struct model *model)
{
    struct expected_get get = {.mask = (1u << FIELDS) - 1};
    uint32_t partition = pick(model, PARTITIONS);
    uint32_t keys[2 * KEYS];
    uint32_t asked = 1 + pick(model, 2 * KEYS);
    choose_keys(model, keys);
    choose_keys(model, keys + KEYS);
    for (uint32_t i = 0; i < asked; i++) {
        const struct model_row *row = &model->rows[partition][keys[i]];
        if (row->age == 0)
            continue;
        get.positions[get.row_count] = i;
        get.rows[get.row_count++] = row;
        get.mask &= mask_of_row(row);
    }
    begin(model, "['kv_get',", partition);
    say_keys(model, keys, asked);
    enum ds_status expected = get.row_count == 0 ? DS_NOT_FOUND
                              : get.mask == 0    ? DS_NOT_READY
                                                 : DS_OK;
    if (pick(model, 2) == 0) {
        uint32_t select = pick(model, 1u << FIELDS);
        say_fields(model, select);
        get.mask &= select;
    } else {
        say(model, "nil");
    }
    say(model, "]");
    call(model, expected);
    if (expected == DS_OK)
        check_get(model, &get, asked);
}

/* ---- kv_list ---- */

static void
check_listed_row(const struct model_row *row, struct reader *reply)
{
    uint32_t tag_count = 0;
    for (uint32_t tag = 0; tag < TAGS; tag++)
        tag_count += row->tags[tag] != 0;
    CHECK_INT(msgpack_read_map(reply), tag_count);
    for (uint32_t i = 0; i < tag_count; i++) {
        struct ds_slice name = msgpack_read_str(reply);
        CHECK_INT(name.len, 2);
        uint32_t tag = (uint32_t)(((const char *)name.data)[1] - '0');
        CHECK(tag < TAGS);
        CHECK_INT(msgpack_read_uint(reply), row->tags[tag]);
    }
}

static void
check_list(struct model *model, uint32_t partition)
{
    begin(model, "['kv_list',", partition);
    say(model, "]");
    call(model, DS_OK);
    struct reader reply = reply_of(model);
    CHECK_INT(msgpack_read_map(&reply), model->has_partition[partition]);
    if (!model->has_partition[partition])
        return;
    msgpack_skip(&reply);
    uint32_t rows = 0;
    for (uint32_t key = 0; key < KEYS; key++)
        rows += model->rows[partition][key].age != 0;
    CHECK_INT(msgpack_read_map(&reply), rows);
    uint32_t age = 0;
    for (uint32_t i = 0; i < rows; i++) {
        struct ds_slice name = msgpack_read_str(&reply);
        uint32_t key = (uint32_t)strtoul((const char *)name.data + 1, NULL, 10);
        CHECK(key < KEYS);
        const struct model_row *row = &model->rows[partition][key];
        CHECK(row->age > age);
        age = row->age;
        check_listed_row(row, &reply);
    }
    CHECK(reader_done(&reply));
}

/* ---- Crash and replay ---- */

/* The queue is gone, and the next one reads what the journal has. The model goes on and
 * knows what to expect. */
static void
crash(struct model *model)
{
    struct talk fresh = talk_begin(NULL);
    test_journal_replay(&model->journal, fresh.queue, pick(model, 16));
    queue_check(fresh.queue);
    talk_end(&model->talk);
    model->talk = fresh;
}

static void
random_step(struct model *model)
{
    uint32_t choice = pick(model, 100);
    if (choice < 40)
        random_put(model);
    else if (choice < 80)
        random_get(model);
    else if (choice < 90)
        random_clear(model);
    else if (choice < 95)
        random_move(model);
    else
        check_list(model, pick(model, PARTITIONS));
    if (pick(model, 300) == 0)
        test_journal_compact(&model->journal, model->talk.queue);
    if (pick(model, 150) == 0)
        crash(model);
}

static void
run_seed(uint64_t seed)
{
    struct model *model = calloc(1, sizeof *model);
    CHECK(model != NULL);
    model->seed = seed;
    model->talk = talk_begin(NULL);
    model->journal = test_journal_begin();
    for (uint32_t step = 0; step < STEPS; step++)
        random_step(model);
    for (uint32_t partition = 0; partition < PARTITIONS; partition++)
        check_list(model, partition);
    talk_end(&model->talk);
    writer_fini(&model->text);
    test_journal_end(&model->journal);
    free(model);
}

TEST(the_queue_agrees_with_a_table_of_cells)
{
    run_seed(test_seed(1));
}

TEST(the_queue_agrees_with_a_table_of_cells_from_another_seed)
{
    run_seed(test_seed(20260101));
}

TEST_MAIN(RUN(the_queue_agrees_with_a_table_of_cells),
          RUN(the_queue_agrees_with_a_table_of_cells_from_another_seed))
