/* Prints the worker's flag table as docs/flags.md or as dscli's worker_config.json.
 * Built and run by tools/generate_flags.py; never installed. */
#include "worker/flags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
print_effect(const struct flag *flag)
{
    if (flag->effect == FLAG_USED)
        printf("yes");
    else if (flag->effect == FLAG_INERT)
        printf("accepted, without effect here");
    else
        printf("later: %s is not built yet", flag->part);
}

static void
print_markdown(const struct flag *flags, size_t count)
{
    printf(
        "# Flags of datasystem_worker\n\n"
        "Written by `tools/generate_flags.py` from `src/worker/flags_table.h`; do not "
        "edit.\n\n"
        "Give them to the worker, or to `dscli start -w`, as `--name=value` or "
        "`--name value`. An unknown flag is\nan error that names the nearest. Flags "
        "without effect are accepted, so that existing command lines work;\nthe log "
        "has one line that lists those set to something else than their default. "
        "Paths that begin with\n`./` are relative to `datasystem_home_dir`.\n\n"
        "| flag | default | allowed | effect | what for |\n"
        "|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        const char *tick = flags[i].value[0] == '\0' ? "" : "`";
        char allowed[128];
        flags_describe_allowed(&flags[i], allowed, sizeof allowed);
        printf("| `%s` | %s%s%s | %s | ", flags[i].name, tick, flags[i].value, tick,
               allowed);
        print_effect(&flags[i]);
        printf(" | %s |\n", flags[i].about);
    }
}

/* The table has no characters that JSON would want escaped; refuse if that changes. */
static void
print_json_text(const char *text)
{
    if (strpbrk(text, "\"\\\n\t") != NULL) {
        fprintf(stderr, "flags_dump: '%s' needs escaping in JSON\n", text);
        exit(EXIT_FAILURE);
    }
    printf("\"%s\"", text);
}

static void
print_json(const struct flag *flags, size_t count)
{
    printf("{\n");
    for (size_t i = 0; i < count; i++) {
        printf("  \"%s\": {\"value\": ", flags[i].name);
        print_json_text(flags[i].value);
        printf(", \"description\": ");
        print_json_text(flags[i].about);
        printf("}%s\n", i + 1 < count ? "," : "");
    }
    printf("}\n");
}

int
main(int argc, char **argv)
{
    size_t count = 0;
    const struct flag *flags = flags_all(&count);
    if (argc == 2 && strcmp(argv[1], "markdown") == 0)
        print_markdown(flags, count);
    else if (argc == 2 && strcmp(argv[1], "json") == 0)
        print_json(flags, count);
    else {
        fprintf(stderr, "usage: flags_dump markdown|json\n");
        return 2;
    }
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
