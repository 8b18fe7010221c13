#include "planted.h"

#include "sim.h"

#include "base/check.h"
#include "base/planted.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* A seed takes a tenth of a second; one with a bug may go round in circles. */
enum { LIMIT_S = 240 };

enum planted_bug planted_bug = PLANTED_NONE;

static const struct {
    const char *name;
    const char *what;
} bugs[PLANTED_COUNT] = {
#define PLANTED_ROW(number, name, what) [PLANTED_##number] = {name, what},
    PLANTED_BUGS(PLANTED_ROW)
#undef PLANTED_ROW
};

bool
planted_choose(const char *name)
{
    for (int bug = PLANTED_NONE + 1; bug < PLANTED_COUNT; bug++) {
        if (strcmp(bugs[bug].name, name) != 0)
            continue;
        planted_bug = (enum planted_bug)bug;
        return true;
    }
    return false;
}

/* What a child tells, also one that an assertion of the product ends. */
struct search {
    uint64_t seed; /* The last one begun. */
    char failure[256];
};

static void
search(struct search *told, uint64_t first, uint64_t count,
       bool (*run_seed)(uint64_t seed))
{
    alarm(LIMIT_S);
    FILE *nowhere = fopen("/dev/null", "w");
    DS_ASSERT(nowhere != NULL);
    sim.out = nowhere;
    for (uint64_t seed = first; seed < first + count; seed++) {
        told->seed = seed;
        if (!run_seed(seed)) {
            snprintf(told->failure, sizeof told->failure, "%s", sim.failure);
            _exit(1);
        }
    }
    _exit(0);
}

static bool
find(enum planted_bug bug, struct search *told, uint64_t first, uint64_t count,
     bool (*run_seed)(uint64_t seed))
{
    int status = 0;
    *told = (struct search){0};
    fflush(sim.out);
    pid_t child = fork();
    DS_ASSERT(child >= 0);
    if (child == 0) {
        planted_bug = bug;
        search(told, first, count, run_seed);
    }
    pid_t ended = waitpid(child, &status, 0);
    DS_ASSERT(ended == child);
    bool is_late = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    bool is_found = !is_late && status != 0;
    const char *how = told->failure[0] != '\0' ? told->failure
                      : is_late                ? "went round in circles"
                      : WIFSIGNALED(status)    ? strsignal(WTERMSIG(status))
                                               : "";
    fprintf(sim.out, "%-16s %s seed %ju: %s\n", bugs[bug].name,
            is_found ? "found by" : "NOT FOUND, last", (uintmax_t)told->seed, how);
    return is_found;
}

int
planted_find_all(uint64_t first, uint64_t count, bool (*run_seed)(uint64_t seed))
{
    int missed = 0;
    struct search *told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    DS_ASSERT(told != MAP_FAILED);
    for (int bug = PLANTED_NONE + 1; bug < PLANTED_COUNT; bug++)
        missed += !find((enum planted_bug)bug, told, first, count, run_seed);
    munmap(told, sizeof *told);
    return missed;
}
