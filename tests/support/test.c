#include "test.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Below the kernel's own range and above that of Ray's workers; each process has a share by its pid, so that tests side
 * by side do not choose the same. */
enum { PORT_FIRST = 20000, PORT_SHARES = 1000, PORTS_PER_SHARE = 10 };

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

static bool
port_is_free(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int yes =
        1; /* As a server: what a closed connection left behind is no hindrance. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0)
        abort();
    bool is_free = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return is_free;
}

uint16_t
test_free_port(void)
{
    static unsigned given;
    unsigned first = PORT_FIRST + (unsigned)getpid() % PORT_SHARES * PORTS_PER_SHARE;
    for (int tries = 0; tries < PORTS_PER_SHARE; tries++) {
        uint16_t port = (uint16_t)(first + given++ % PORTS_PER_SHARE);
        if (port_is_free(port))
            return port;
    }
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
