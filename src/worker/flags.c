#include "worker/flags.h"

#include "base/check.h"
#include "base/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "worker/flags_table.h"

enum { FLAG_COUNT = sizeof flag_table / sizeof flag_table[0], NAME_BYTES_MAX = 64 };

_Static_assert((int)FLAG_COUNT <= (int)FLAGS_MAX, "raise FLAGS_MAX");

const struct flag *
flags_all(size_t *out_count)
{
    DS_ASSERT(out_count != NULL);
    *out_count = FLAG_COUNT;
    return flag_table;
}

void
flags_describe_allowed(const struct flag *flag, char *out, size_t out_bytes)
{
    DS_ASSERT(flag != NULL);
    DS_ASSERT(out_bytes > 0);
    const char *what = flag->kind == FLAG_INT ? "a whole number" : "a number";
    if (flag->kind == FLAG_BOOL)
        snprintf(out, out_bytes, "true or false");
    else if (flag->kind == FLAG_STRING)
        snprintf(out, out_bytes, "text");
    else if (flag->max == INT64_MAX)
        snprintf(out, out_bytes, "%s from %jd", what, (intmax_t)flag->min);
    else
        snprintf(out, out_bytes, "%s from %jd to %jd", what, (intmax_t)flag->min,
                 (intmax_t)flag->max);
}

static const struct flag *
find_flag(const char *name, size_t len)
{
    for (size_t i = 0; i < FLAG_COUNT; i++) {
        if (strlen(flag_table[i].name) == len &&
            memcmp(flag_table[i].name, name, len) == 0)
            return &flag_table[i];
    }
    return NULL;
}

/* Levenshtein's distance: how many letters to add, drop or change. One row of the
 * classic table at a time; `corner` is the entry up and to the left. */
static unsigned
edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned row[NAME_BYTES_MAX + 1];
    DS_ASSERT(b_len <= NAME_BYTES_MAX);
    for (size_t j = 0; j <= b_len; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned corner = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned best = corner + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            corner = row[j];
            row[j] = best;
        }
    }
    return row[b_len];
}

static const struct flag *
nearest_flag(const char *name, size_t len)
{
    const struct flag *nearest = &flag_table[0];
    unsigned best = UINT32_MAX;
    for (size_t i = 0; i < FLAG_COUNT; i++) {
        const char *other = flag_table[i].name;
        unsigned distance = edit_distance(name, len, other, strlen(other));
        if (distance < best) {
            best = distance;
            nearest = &flag_table[i];
        }
    }
    return nearest;
}

/* A very long name gets no suggestion: it is no typing mistake. */
static enum ds_status
fail_unknown(const char *name, size_t len, struct ds_error *err)
{
    if (len > NAME_BYTES_MAX)
        return ds_fail(err, DS_INVALID, "unknown flag '--%.*s...'", NAME_BYTES_MAX,
                       name);
    return ds_fail(err, DS_INVALID, "unknown flag '--%.*s'; did you mean '--%s'?",
                   (int)len, name, nearest_flag(name, len)->name);
}

static bool
parse_bool(const char *text, bool *out)
{
    static const char *const names[] = {"false", "true", "0",   "1", "f",
                                        "t",     "no",   "yes", "n", "y"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcasecmp(text, names[i]) == 0) {
            *out = i % 2 == 1;
            return true;
        }
    }
    return false;
}

static bool
parse_int(const char *text, int64_t *out)
{
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        return false;
    *out = value;
    return true;
}

static bool
parse_real(const char *text, double *out)
{
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    if (errno != 0 || end == text || *end != '\0')
        return false;
    *out = value;
    return true;
}

/* One value, in the form that its kind has. */
struct value {
    const char *text;
    bool is_true;
    int64_t number;
    double real;
};

/* False where the flag does not allow this text. A NaN is in no range. */
static bool
parse_value(const struct flag *flag, const char *text, struct value *out)
{
    *out = (struct value){.text = text};
    switch (flag->kind) {
    case FLAG_STRING:
        return true;
    case FLAG_BOOL:
        return parse_bool(text, &out->is_true);
    case FLAG_INT:
        return parse_int(text, &out->number) && out->number >= flag->min &&
               out->number <= flag->max;
    case FLAG_REAL:
        return parse_real(text, &out->real) && out->real >= (double)flag->min &&
               out->real <= (double)flag->max;
    }
    return false;
}

static void
store_value(const struct flag *flag, const struct value *value,
            struct worker_flags *flags)
{
    if (flag->effect != FLAG_USED)
        return;
    char *member = (char *)flags + flag->member;
    DS_ASSERT(flag->kind != FLAG_REAL);
    if (flag->kind == FLAG_STRING)
        memcpy(member, &value->text, sizeof value->text);
    else if (flag->kind == FLAG_BOOL)
        memcpy(member, &value->is_true, sizeof value->is_true);
    else
        memcpy(member, &value->number, sizeof value->number);
}

static enum ds_status
set_flag(const struct flag *flag, const char *text, struct worker_flags *flags,
         struct ds_error *err)
{
    struct value value;
    if (!parse_value(flag, text, &value)) {
        char allowed[128];
        flags_describe_allowed(flag, allowed, sizeof allowed);
        return ds_fail(err, DS_INVALID, "flag '--%s': '%.100s' is not allowed; give %s",
                       flag->name, text, allowed);
    }
    store_value(flag, &value, flags);
    flags->given[flag - flag_table] = text;
    return DS_OK;
}

static void
set_defaults(struct worker_flags *flags)
{
    *flags = (struct worker_flags){0};
    for (size_t i = 0; i < FLAG_COUNT; i++) {
        struct value value;
        bool valid = parse_value(&flag_table[i], flag_table[i].value, &value);
        DS_ASSERT(valid);
        store_value(&flag_table[i], &value, flags);
    }
}

/* Reads the flag at argv[*at] and moves *at past it and its value. */
static enum ds_status
parse_one(int argc, char *const *argv, int *at, struct worker_flags *flags,
          struct ds_error *err)
{
    const char *argument = argv[(*at)++];
    if (strncmp(argument, "--", 2) != 0 || argument[2] == '\0')
        return ds_fail(err, DS_INVALID,
                       "'%.100s' is not a flag; flags look like --name=value",
                       argument);
    const char *name = argument + 2;
    size_t len = strcspn(name, "=");
    const struct flag *flag = find_flag(name, len);
    if (flag == NULL)
        return fail_unknown(name, len, err);
    if (name[len] == '=')
        return set_flag(flag, name + len + 1, flags, err);
    if (*at >= argc || strncmp(argv[*at], "--", 2) == 0)
        return ds_fail(err, DS_INVALID, "flag '--%s' has no value; write --%s=VALUE",
                       flag->name, flag->name);
    return set_flag(flag, argv[(*at)++], flags, err);
}

enum ds_status
flags_parse(int argc, char *const *argv, struct worker_flags *out, struct ds_error *err)
{
    DS_ASSERT(argv != NULL);
    DS_ASSERT(out != NULL);
    struct worker_flags flags;
    set_defaults(&flags);
    for (int at = 1; at < argc;) {
        enum ds_status status = parse_one(argc, argv, &at, &flags, err);
        if (status != DS_OK)
            return status;
    }
    *out = flags;
    return DS_OK;
}

/* Given, without effect, and not just the default written out ("False" is "false"). */
static bool
is_ignored(const struct flag *flag, const char *given)
{
    if (given == NULL || flag->effect == FLAG_USED)
        return false;
    struct value wanted;
    struct value usual;
    bool valid =
        parse_value(flag, given, &wanted) && parse_value(flag, flag->value, &usual);
    DS_ASSERT(valid);
    switch (flag->kind) {
    case FLAG_BOOL:
        return wanted.is_true != usual.is_true;
    case FLAG_INT:
        return wanted.number != usual.number;
    case FLAG_REAL:
        return wanted.real < usual.real || wanted.real > usual.real;
    case FLAG_STRING:
        break;
    }
    return strcmp(given, flag->value) != 0;
}

bool
flags_without_effect(const struct worker_flags *flags, char *out, size_t out_bytes)
{
    DS_ASSERT(flags != NULL);
    DS_ASSERT(out_bytes > sizeof "...");
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < FLAG_COUNT && used < out_bytes; i++) {
        const struct flag *flag = &flag_table[i];
        if (!is_ignored(flag, flags->given[i]))
            continue;
        bool later = flag->effect == FLAG_LATER;
        int more = snprintf(out + used, out_bytes - used, "%s%s%s%s%s",
                            used == 0 ? "" : ", ", flag->name, later ? " (" : "",
                            later ? flag->part : "", later ? " is not built yet)" : "");
        used += (size_t)more;
    }
    if (used >= out_bytes)
        memcpy(out + out_bytes - sizeof "...", "...", sizeof "...");
    return used > 0;
}
