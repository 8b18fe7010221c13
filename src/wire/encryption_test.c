/* Both ends of an encrypted stream, and somebody in between. */
#include "wire/encryption.h"

#include "base/slice.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONG_BYTES = 300000, WIRE_BYTES_MAX = LONG_BYTES + 4096 };

static struct encryption *connected, *accepted;

static struct encryption *
end_of(enum auth_end us, uint8_t nonce)
{
    struct auth_key key;
    struct auth_opening opening = {
        .encryption =
            {[AUTH_CONNECTED] = AUTH_EITHER, [AUTH_ACCEPTED] = AUTH_ENCRYPTED},
    };
    auth_key_derive(slice_of_text("the secret that all of us have here"), &key);
    memset(opening.nonce[AUTH_CONNECTED], nonce, AUTH_NONCE_BYTES);
    memset(opening.nonce[AUTH_ACCEPTED], 2, AUTH_NONCE_BYTES);
    struct encryption *encryption = encryption_create(&key, &opening, us);
    CHECK(encryption != NULL);
    return encryption;
}

static void
begin(void)
{
    connected = end_of(AUTH_CONNECTED, 1);
    accepted = end_of(AUTH_ACCEPTED, 1);
}

static void
end(void)
{
    encryption_destroy(connected);
    encryption_destroy(accepted);
}

/* ---- What passes ---- */

/* Bytes on the way. */
struct wire {
    size_t len;
    uint8_t bytes[WIRE_BYTES_MAX];
};

/* Everything of the parts, as records. */
static void
send_parts(struct encryptor *encryptor, const struct ds_slice *parts, size_t count,
           struct wire *wire)
{
    uint64_t done = 0;
    for (size_t step; (step = encryptor_fill(encryptor, parts, count, done)) > 0;) {
        struct ds_slice unsent = encryptor_unsent(encryptor);
        CHECK_INT(unsent.len, step + RECORD_OVERHEAD_BYTES);
        CHECK(wire->len + unsent.len <= sizeof wire->bytes);
        memcpy(wire->bytes + wire->len, unsent.data, unsent.len);
        encryptor_sent(encryptor, unsent.len);
        wire->len += unsent.len;
        done += step;
    }
    CHECK_INT(encryptor_unsent(encryptor).len, 0);
}

static void
send_text(struct encryptor *encryptor, const char *text, struct wire *wire)
{
    struct ds_slice part = slice_of_text(text);
    send_parts(encryptor, &part, 1, wire);
}

/* Reads what there is, as much as has room. False: something is wrong. */
static bool
read_all(struct decryptor *decryptor, uint8_t *out, size_t bytes_max, size_t *out_len)
{
    while (bytes_max > *out_len) {
        size_t got;
        if (!decryptor_read(decryptor, out + *out_len, bytes_max - *out_len, &got))
            return false;
        if (got == 0)
            return true;
        *out_len += got;
    }
    return true;
}

/* Gives the bytes to the decryptor, and appends what it hands out. */
static bool
receive(struct decryptor *decryptor, const uint8_t *bytes, size_t count, uint8_t *out,
        size_t bytes_max, size_t *out_len)
{
    while (count > 0) {
        size_t room;
        void *at = decryptor_room(decryptor, &room);
        size_t step = room < count ? room : count;
        memcpy(at, bytes, step);
        decryptor_received(decryptor, step);
        bytes += step;
        count -= step;
        if (!read_all(decryptor, out, bytes_max, out_len))
            return false;
    }
    return true;
}

static void
check_hex(const struct wire *wire, const char *expected)
{
    char hex[256] = "";
    for (size_t i = 0; i < wire->len; i++)
        snprintf(hex + 2 * i, 3, "%02x", wire->bytes[i]);
    CHECK_TEXT(hex, expected);
}

/* The records "first" and "second", made by a program after RFC 8439 that gives its test
 * vector of section 2.8.2; key: auth_stream_key(). */
TEST(records_are_those_of_another_implementation_of_the_cipher)
{
    static struct wire wire;
    begin();
    wire.len = 0;
    send_text(&connected->out, "first", &wire);
    check_hex(&wire, "05000000877b878cdfd9a8de8a6235f419541a8d137e31885b");
    wire.len = 0;
    send_text(&connected->out, "second", &wire);
    check_hex(&wire, "06000000ec628ffc784576f18ce8606318dab1d5d3c6afd41060");
    end();
}

TEST(both_directions_pass_and_neither_shows_what)
{
    static struct wire there, back;
    uint8_t got[64] = {0};
    size_t len = 0;
    begin();
    there.len = back.len = 0;
    send_text(&connected->out, "a question", &there);
    send_text(&accepted->out, "a question", &back); /* Under another key. */
    CHECK(memmem(there.bytes, there.len, "question", 8) == NULL);
    CHECK(memcmp(there.bytes, back.bytes, RECORD_LENGTH_BYTES) == 0);
    CHECK(memcmp(there.bytes + RECORD_LENGTH_BYTES, back.bytes + RECORD_LENGTH_BYTES,
                 there.len - RECORD_LENGTH_BYTES) != 0);
    CHECK(receive(&accepted->in, there.bytes, there.len, got, sizeof got, &len));
    CHECK_INT(len, 10);
    CHECK(memcmp(got, "a question", 10) == 0);
    CHECK(decryptor_is_empty(&accepted->in));
    CHECK(receive(&connected->in, back.bytes, back.len, got, sizeof got, &len));
    CHECK_INT(len, 20);
    end();
}

/* Parts of all sizes, around that of a record too, arrive in pieces of all sizes, and are
 * read in pieces of all sizes. */
TEST(whatever_the_sizes_the_bytes_are_the_same)
{
    static struct wire wire;
    static uint8_t sent[LONG_BYTES], got[LONG_BYTES];
    uint64_t seed = test_seed(5);
    begin();
    for (size_t i = 0; i < LONG_BYTES; i++)
        sent[i] = (uint8_t)test_random(&seed);
    for (int round = 0; round < 50; round++) {
        struct ds_slice parts[40];
        size_t count = 0, bytes = 0, len = 0, at = 0;
        while (bytes < LONG_BYTES && count < 40) {
            size_t size =
                (size_t)(test_random(&seed) % (round % 3 == 0 ? 100 : 140000));
            size = size < LONG_BYTES - bytes ? size : LONG_BYTES - bytes;
            parts[count++] = slice(sent + bytes, size);
            bytes += size;
        }
        wire.len = 0;
        send_parts(&connected->out, parts, count, &wire);
        memset(got, 0, sizeof got);
        while (len < bytes || at < wire.len) {
            size_t piece = 1 + (size_t)(test_random(&seed) % 90000), before = len;
            if (decryptor_has_record(&accepted->in)) {
                piece = piece < bytes - len ? piece : bytes - len;
                CHECK(read_all(&accepted->in, got, len + piece, &len));
                CHECK(len > before);
                continue;
            }
            size_t room;
            void *to = decryptor_room(&accepted->in, &room);
            piece = piece < room ? piece : room;
            piece = piece < wire.len - at ? piece : wire.len - at;
            memcpy(to, wire.bytes + at, piece);
            decryptor_received(&accepted->in, piece);
            at += piece;
        }
        CHECK(decryptor_is_empty(&accepted->in));
        CHECK(memcmp(got, sent, bytes) == 0);
    }
    end();
}

/* ---- Somebody in between ---- */

static const uint8_t nothing[RECORD_BYTES_MAX];

/* A wrong length may ask for more first: it gets it. */
static void
check_refused(const uint8_t *bytes, size_t count)
{
    uint8_t got[64];
    size_t len = 0;
    bool is_right = receive(&accepted->in, bytes, count, got, sizeof got, &len);
    if (is_right)
        is_right =
            receive(&accepted->in, nothing, sizeof nothing, got, sizeof got, &len);
    CHECK(!is_right);
    CHECK_INT(len, 0);
    CHECK(!decryptor_read(&accepted->in, got, sizeof got, &len)); /* For good. */
}

TEST(any_changed_bit_is_noticed)
{
    static struct wire wire;
    begin();
    wire.len = 0;
    send_text(&connected->out, "ten bytes.", &wire);
    end();
    for (size_t bit = 0; bit < 8 * wire.len; bit++) {
        begin();
        wire.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        check_refused(wire.bytes, wire.len);
        wire.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        end();
    }
}

TEST(of_a_record_that_is_cut_off_nothing_is_handed_out)
{
    static struct wire wire;
    begin();
    wire.len = 0;
    send_text(&connected->out, "ten bytes.", &wire);
    end();
    for (size_t count = 1; count < wire.len; count++) {
        uint8_t got[64];
        size_t len = 0;
        begin();
        CHECK(receive(&accepted->in, wire.bytes, count, got, sizeof got, &len));
        CHECK_INT(len, 0);
        CHECK(!decryptor_is_empty(&accepted->in));
        end();
    }
}

/* Two records of the same length: the first twice, the second first, the second alone. */
TEST(a_record_in_another_place_is_noticed)
{
    static struct wire wire;
    uint8_t got[64];
    size_t len = 0;
    begin();
    wire.len = 0;
    send_text(&connected->out, "one", &wire);
    size_t one = wire.len;
    send_text(&connected->out, "two", &wire);
    check_refused(wire.bytes + one, one);
    end();
    begin();
    CHECK(receive(&accepted->in, wire.bytes, one, got, sizeof got, &len));
    CHECK_INT(len, 3);
    check_refused(wire.bytes, one);
    end();
}

TEST(a_record_of_another_stream_is_noticed)
{
    static struct wire wire;
    begin();
    wire.len = 0;
    send_text(&accepted->out, "one", &wire); /* Sent back to where it came from. */
    check_refused(wire.bytes, wire.len);
    end();
    struct encryption *other = end_of(AUTH_CONNECTED, 7);
    begin();
    wire.len = 0;
    send_text(&other->out, "one", &wire);
    check_refused(wire.bytes, wire.len);
    end();
    encryption_destroy(other);
}

TEST(a_length_that_no_record_has_is_refused_at_once)
{
    static const uint8_t lengths[][RECORD_LENGTH_BYTES] = {
        {0, 0, 0, 0}, {1, 0, 1, 0}, {0xff, 0xff, 0xff, 0xff}};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t got[64];
        size_t len = 0;
        begin();
        CHECK(!receive(&accepted->in, lengths[i], sizeof lengths[i], got, sizeof got,
                       &len));
        end();
    }
}

TEST_MAIN(RUN(records_are_those_of_another_implementation_of_the_cipher),
          RUN(both_directions_pass_and_neither_shows_what),
          RUN(whatever_the_sizes_the_bytes_are_the_same),
          RUN(any_changed_bit_is_noticed),
          RUN(of_a_record_that_is_cut_off_nothing_is_handed_out),
          RUN(a_record_in_another_place_is_noticed),
          RUN(a_record_of_another_stream_is_noticed),
          RUN(a_length_that_no_record_has_is_refused_at_once))
