/* scale_rows: what rows cost the controller.
 *
 *   scale_rows [ROWS [ROWS_OF_A_PUT [FIELDS]]]
 *
 * Puts rows (1,000,000; 1,024 at a time with 10 fields) into the real queue of src/queue and
 * gets the last ones: memory for each row, processor time of each call, and bytes of the
 * journal. */
#include "base/slice.h"
#include "queue/record.h"
#include "queue/test_text.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct sizes {
    uint32_t rows;
    uint32_t rows_of_a_put;
    uint32_t fields;
};

static struct queue *queue;

static uint64_t
thread_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void
write_text(struct writer *out, const char *text)
{
    write_bytes(out, slice_of_text(text));
}

static void
write_keys(struct writer *out, uint32_t first, uint32_t count)
{
    char text[32];
    write_text(out, "[");
    for (uint32_t i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%s'sample-%09" PRIu32 "'", i == 0 ? "" : ",",
                 first + i);
        write_text(out, text);
    }
    write_text(out, "]");
}

static void
write_blocks(struct writer *out, uint32_t block, uint32_t fields)
{
    char text[32];
    snprintf(text, sizeof text, "[[@%" PRIu32 "],'y',[", block);
    write_text(out, text);
    for (uint32_t i = 0; i < fields; i++) {
        snprintf(text, sizeof text, "%s'field_%" PRIu32 "'", i == 0 ? "" : ",", i);
        write_text(out, text);
    }
    write_text(out, "],[");
    for (uint32_t i = 0; i < fields; i++)
        write_text(out, i == 0 ? "131072" : ",131072");
    write_text(out, "],[]]");
}

/* Returns the processor's time; *out_bytes are those of the request. */
static uint64_t
call(struct writer *text, size_t *out_bytes)
{
    AUTO_WRITER(bytes);
    AUTO_WRITER(reply);
    AUTO_QUEUE_REQUEST(request);
    struct ds_error err = {0};
    write_u8(text, 0);
    text_to_msgpack((const char *)text->data, &bytes);
    uint64_t began = thread_ns();
    enum ds_status status =
        queue_request_decode(slice(bytes.data, bytes.len), &request, &err);
    if (status == DS_OK)
        status = queue_apply(queue, &request, &reply, &err);
    uint64_t took = thread_ns() - began;
    if (status != DS_OK) {
        fprintf(stderr, "scale_rows: %s\n", err.message);
        exit(EXIT_FAILURE);
    }
    *out_bytes = bytes.len;
    return took;
}

static uint64_t
put(const struct sizes *sizes, uint32_t first, size_t *out_bytes)
{
    AUTO_WRITER(text);
    write_text(&text, "['kv_put','p',");
    write_keys(&text, first, sizes->rows_of_a_put);
    write_text(&text, ",");
    write_blocks(&text, first, sizes->fields);
    write_text(&text, ",nil]");
    return call(&text, out_bytes);
}

static uint64_t
get(const struct sizes *sizes, uint32_t first)
{
    AUTO_WRITER(text);
    size_t bytes;
    write_text(&text, "['kv_get','p',");
    write_keys(&text, first, sizes->rows_of_a_put);
    write_text(&text, ",nil]");
    return call(&text, &bytes);
}

static uint32_t
argument(int argc, char **argv, int at, uint32_t otherwise)
{
    unsigned long value = argc > at ? strtoul(argv[at], NULL, 10) : otherwise;
    return value == 0 || value > 100000000 ? otherwise : (uint32_t)value;
}

int
main(int argc, char **argv)
{
    struct sizes sizes = {argument(argc, argv, 1, 1000000),
                          argument(argc, argv, 2, 1024), argument(argc, argv, 3, 10)};
    struct queue_options options = {.limits = queue_limits_default()};
    uint64_t put_ns = 0, get_ns = 0, journal_bytes = 0;
    uint32_t puts = sizes.rows / sizes.rows_of_a_put;
    uint32_t gets = puts / 10;
    if (queue_create(&options, &queue, NULL) != DS_OK)
        return EXIT_FAILURE;
    struct mallinfo2 before = mallinfo2();
    for (uint32_t i = 0; i < puts; i++) {
        size_t bytes;
        put_ns += put(&sizes, i * sizes.rows_of_a_put, &bytes);
        journal_bytes += RECORD_HEADER_BYTES + bytes;
    }
    struct mallinfo2 after = mallinfo2();
    uint64_t heap = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
    for (uint32_t i = puts - gets; i < puts; i++)
        get_ns += get(&sizes, i * sizes.rows_of_a_put);
    double rows = (double)puts * sizes.rows_of_a_put;
    printf("%.0f rows in puts of %" PRIu32 " rows x %" PRIu32 " fields: "
           "%.0f B a row, %.1f B of journal a row, %.1f us a put, %.1f us a get\n",
           rows, sizes.rows_of_a_put, sizes.fields, (double)heap / rows,
           (double)journal_bytes / rows, (double)put_ns / 1e3 / puts,
           (double)get_ns / 1e3 / gets);
    queue_destroy(queue);
    return EXIT_SUCCESS;
}
