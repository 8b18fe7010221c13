#include "test.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
test_open_fds(void)
{
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL)
        abort();
    int count = 0;
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count - 3; /* "." and ".." and the folder itself. */
}

static int fds_before;

int
test_before(void **state)
{
    (void)state;
    fds_before = test_open_fds();
    return 0;
}

int
test_after(void **state)
{
    (void)state;
    if (test_open_fds() == fds_before)
        return 0;
    fprintf(stderr, "test left %d descriptors open\n", test_open_fds() - fds_before);
    return -1;
}

void
test_check_contains(const char *text, const char *part, const char *file, int line)
{
    if (strstr(text, part) != NULL)
        return;
    fprintf(stderr, "\"%s\" does not contain \"%s\"\n", text, part);
    _fail(file, line);
}

void
test_make_folder(char out[TEST_FOLDER_BYTES])
{
    snprintf(out, TEST_FOLDER_BYTES, "/tmp/datasystem-test-XXXXXX");
    if (mkdtemp(out) == NULL)
        abort();
}

static int
remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

void
test_remove_folder(const char *path)
{
    enum { FOLDERS_OPEN_MAX = 8 };
    if (nftw(path, remove_one, FOLDERS_OPEN_MAX, FTW_DEPTH | FTW_PHYS) != 0)
        abort();
}

uint64_t
test_random(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t
test_seed(uint64_t usual)
{
    const char *shift = getenv("TEST_SEED");
    return shift == NULL ? usual : usual + strtoull(shift, NULL, 10);
}
