/* Out of memory at every allocation in turn. The program is linked so that malloc,
 * calloc and realloc come here. */
#include "queue/queue.h"

#include "queue/test_text.h"

#include "base/slice.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

/* Allocations that still succeed; negative: no limit. */
static long allocations_left = -1;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);

static bool
may_allocate(void)
{
    if (allocations_left > 0)
        allocations_left--;
    return allocations_left != 0;
}

void *
__wrap_malloc(size_t size)
{
    return may_allocate() ? __real_malloc(size) : NULL;
}

void *
__wrap_calloc(size_t count, size_t size)
{
    return may_allocate() ? __real_calloc(count, size) : NULL;
}

void *
__wrap_realloc(void *memory, size_t size)
{
    return may_allocate() ? __real_realloc(memory, size) : NULL;
}

/* What a user can see of the queue, as text; the caller frees it. */
static char *
picture(struct talk *talk)
{
    AUTO_WRITER(text);
    const char *requests[] = {
        "['kv_list',nil]",
        "['kv_get','p',['a','b','c','d'],nil]",
        "['kv_get','p',['a','b'],nil]",
        "['kv_get','p',['c'],nil]",
        "['kv_get','q',['z'],nil]",
    };
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        bool ok = talk_call(talk, requests[i]) == DS_OK;
        write_bytes(&text, slice_of_text(ok ? (const char *)talk->text.data
                                            : talk->err.message));
    }
    write_u8(&text, 0);
    return strdup((const char *)text.data);
}

static enum ds_status
apply_with_allocations(struct talk *talk, const char *text, long allocations)
{
    AUTO_QUEUE_REQUEST(request);
    AUTO_WRITER(bytes);
    AUTO_WRITER(reply);
    text_to_msgpack(text, &bytes);
    allocations_left = allocations + 1;
    enum ds_status status =
        queue_request_decode(slice(bytes.data, bytes.len), &request, &talk->err);
    if (status == DS_OK)
        status = queue_apply(talk->queue, &request, &reply, &talk->err);
    allocations_left = -1;
    return status;
}

static void
check_failure_changes_nothing(const char *request)
{
    TALK(talk);
    CHECK_OK(talk_call(&talk,
                       "['kv_put','p',['a','b','c'],[[@1],'y',['x','z'],[9,9],[]],"
                       "[{'t':1},nil,nil]]"));
    CHECK_OK(talk_call(&talk, "['kv_put','p',['b'],[[@2],'y',['x'],[9],[]],nil]"));
    CHECK_OK(talk_call(&talk, "['kv_put','p',['b'],[[@3],'y',['w'],[9],[]],nil]"));
    char *before = picture(&talk);
    long allocations = 0;
    while (apply_with_allocations(&talk, request, allocations) != DS_OK) {
        CHECK_INT(talk.err.status, DS_NO_MEMORY);
        queue_check(talk.queue);
        char *after = picture(&talk);
        CHECK_TEXT(after, before);
        free(after);
        allocations++;
        CHECK(allocations < 1000);
    }
    CHECK(allocations > 0);
    queue_check(talk.queue);
    free(before);
}

TEST(a_put_that_runs_out_of_memory_changes_nothing)
{
    check_failure_changes_nothing("['kv_put','p',['a','b','d','e'],"
                                  "[[@9],'y',['x','u','v'],[1,2,3],[]],"
                                  "[{'t':2,'s':3},{'t':4},{'t':5},nil]]");
}

TEST(a_put_of_several_blocks_that_runs_out_of_memory_changes_nothing)
{
    check_failure_changes_nothing("['kv_put','p',['a','b','d','e'],"
                                  "[[@7,@8,@9],'y',['x','u'],[1,2,3,4,5,6],[1,3]],"
                                  "nil]");
}

TEST(a_put_into_a_new_partition_that_runs_out_of_memory_changes_nothing)
{
    check_failure_changes_nothing(
        "['kv_put','q',['z'],[[@9],'y',['x','u'],[1,2],[]],[{'t':2}]]");
}

TEST(a_get_that_runs_out_of_memory_changes_nothing)
{
    check_failure_changes_nothing("['kv_get','p',['a','b','c'],['z','x']]");
}

TEST(a_clear_that_runs_out_of_memory_changes_nothing)
{
    check_failure_changes_nothing("['kv_clear','p',['a','b','c']]");
}

TEST(a_move_that_runs_out_of_memory_changes_nothing)
{
    check_failure_changes_nothing(
        "['kv_move','p',['a','b','c'],[[@9],'y',['x'],[9],[]],@1]");
}

TEST(a_list_of_sparse_blocks_that_runs_out_of_memory_changes_nothing)
{
    check_failure_changes_nothing("['sparse_blocks',100,'y']");
}

TEST(a_purge_that_runs_out_of_memory_changes_nothing)
{
    check_failure_changes_nothing("['purge']");
}

TEST(a_queue_that_cannot_be_made_leaves_nothing)
{
    struct queue_options options = {.limits = queue_limits_default()};
    struct queue *queue = NULL;
    struct ds_error err = {0};
    long allocations = 0;
    enum ds_status status = DS_NO_MEMORY;
    while (status != DS_OK) {
        allocations_left = ++allocations;
        status = queue_create(&options, &queue, &err);
        allocations_left = -1;
        CHECK(status == DS_OK || queue == NULL);
    }
    CHECK(allocations > 3);
    queue_destroy(queue);
}

TEST_MAIN(RUN(a_put_that_runs_out_of_memory_changes_nothing),
          RUN(a_put_of_several_blocks_that_runs_out_of_memory_changes_nothing),
          RUN(a_put_into_a_new_partition_that_runs_out_of_memory_changes_nothing),
          RUN(a_get_that_runs_out_of_memory_changes_nothing),
          RUN(a_clear_that_runs_out_of_memory_changes_nothing),
          RUN(a_move_that_runs_out_of_memory_changes_nothing),
          RUN(a_list_of_sparse_blocks_that_runs_out_of_memory_changes_nothing),
          RUN(a_purge_that_runs_out_of_memory_changes_nothing),
          RUN(a_queue_that_cannot_be_made_leaves_nothing))
