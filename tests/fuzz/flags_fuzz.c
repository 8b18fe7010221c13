/* The command line of the worker; arguments are separated by zero bytes. Refused with a
 * text, or every flag has a value within its range. */
#include "fuzz.h"

#include "worker/flags.h"

enum { ARGUMENTS_MAX = 32, LINE_BYTES_MAX = 512 };

/* Cuts `line` at its zeros; it ends in one. */
static int
split(char *line, size_t bytes, char **out)
{
    int count = 0;
    out[count++] = line;
    for (size_t i = 0; i + 1 < bytes && count < ARGUMENTS_MAX; i++) {
        if (line[i] == '\0')
            out[count++] = line + i + 1;
    }
    return count;
}

static void
check_flags(const struct worker_flags *flags)
{
    char text[64];
    size_t count;
    const struct flag *all = flags_all(&count);
    bool any = flags_without_effect(flags, text, sizeof text);
    DS_ASSERT(any == (text[0] != '\0'));
    for (size_t i = 0; i < count; i++) {
        const char *member = (const char *)flags + all[i].member;
        if (all[i].effect != FLAG_USED || all[i].kind != FLAG_INT)
            continue;
        int64_t value;
        memcpy(&value, member, sizeof value);
        DS_ASSERT(value >= all[i].min);
        DS_ASSERT(value <= all[i].max);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char line[LINE_BYTES_MAX];
    char *arguments[ARGUMENTS_MAX + 1];
    if (size == 0 || size >= sizeof line)
        return 0;
    memcpy(line, data, size);
    line[size] = '\0';
    arguments[0] = (char[]){"datasystem_worker"};
    int count = 1 + split(line, size + 1, arguments + 1);
    struct worker_flags flags = {0};
    struct ds_error err = {0};
    enum ds_status status = flags_parse(count, arguments, &flags, &err);
    if (status == DS_OK) {
        check_flags(&flags);
        return 0;
    }
    DS_ASSERT(status == DS_INVALID);
    DS_ASSERT(err.message[0] != '\0');
    DS_ASSERT(flags.worker_address == NULL); /* Written only on success. */
    return 0;
}
