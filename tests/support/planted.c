#include "planted.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* A seed takes a tenth of a second; one with a bug may go round in circles. */
enum { LIMIT_S = 240 };

static const struct {
    const char *name;
    const char *what;
} bugs[PLANTED_COUNT] = {
#define PLANTED_ROW(number, name, what) [PLANTED_##number] = {name, what},
    PLANTED_BUGS(PLANTED_ROW) PLANTED_CLUSTER_BUGS(PLANTED_ROW)
#undef PLANTED_ROW
};

bool
planted_choose(const char *name, enum planted_bug first, enum planted_bug last)
{
    for (enum planted_bug bug = first; bug <= last; bug++) {
        if (strcmp(bugs[bug].name, name) != 0)
            continue;
        planted_bug = bug;
        return true;
    }
    return false;
}

/* What a child tells, also one that an assertion of the product ends. Shared with it. */
static struct told {
    uint64_t seed; /* The last one begun. */
    char failure[256];
} * told;

void
planted_tell(const char *failure)
{
    snprintf(told->failure, sizeof told->failure, "%s", failure);
}

static void
run(const struct planted_search *search)
{
    uint64_t end = search->first_seed + search->seed_count;
    alarm(LIMIT_S);
    for (uint64_t seed = search->first_seed; seed < end; seed++) {
        told->seed = seed;
        const char *failure = search->run_seed(seed);
        if (failure == NULL)
            continue;
        planted_tell(failure);
        _exit(1);
    }
    _exit(0);
}

static bool
find(const struct planted_search *search, enum planted_bug bug)
{
    int status = 0;
    *told = (struct told){0};
    fflush(search->out);
    pid_t child = fork();
    DS_ASSERT(child >= 0);
    if (child == 0) {
        planted_bug = bug;
        run(search);
    }
    pid_t ended = waitpid(child, &status, 0);
    DS_ASSERT(ended == child);
    bool is_late = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    bool is_found = !is_late && status != 0;
    const char *how = told->failure[0] != '\0' ? told->failure
                      : is_late                ? "went round in circles"
                      : WIFSIGNALED(status)    ? strsignal(WTERMSIG(status))
                                               : "";
    fprintf(search->out, "%-18s %s seed %ju: %s\n", bugs[bug].name,
            is_found ? "found by" : "NOT FOUND, last", (uintmax_t)told->seed, how);
    return is_found;
}

int
planted_find_all(const struct planted_search *search)
{
    int missed = 0;
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                -1, 0);
    DS_ASSERT(told != MAP_FAILED);
    for (enum planted_bug bug = search->first; bug <= search->last; bug++)
        missed += !find(search, bug);
    munmap(told, sizeof *told);
    return missed;
}
