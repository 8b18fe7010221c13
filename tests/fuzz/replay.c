/* Runs a fuzz target on every file of a folder: what was once found stays fixed, also
 * where there is no libFuzzer.
 *
 *      x_fuzz_replay FOLDER */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

enum { PATH_BYTES = 4096, INPUT_BYTES_MAX = 1 << 20 };

/* In memory of exactly its size, so that a read behind the end is seen. */
static void
run(const uint8_t *bytes, size_t len)
{
    uint8_t *exact = malloc(len > 0 ? len : 1);
    if (exact == NULL)
        abort();
    if (len > 0)
        memcpy(exact, bytes, len);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
}

static bool
run_file(const char *folder, const char *name)
{
    static uint8_t bytes[INPUT_BYTES_MAX];
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        perror(path);
        return false;
    }
    size_t len = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    printf("%s: %zu bytes\n", name, len);
    fflush(stdout); /* The last line names the input that crashes. */
    run(bytes, len);
    return true;
}

int
main(int argc, char **argv)
{
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    if (folder == NULL) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return EXIT_FAILURE;
    }
    size_t count = 0;
    bool readable = true;
    struct dirent *entry;
    run(NULL, 0);
    while (readable && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        readable = run_file(argv[1], entry->d_name);
        count += readable;
    }
    closedir(folder);
    if (count == 0)
        fprintf(stderr, "no input in %s\n", argv[1]);
    return readable && count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
