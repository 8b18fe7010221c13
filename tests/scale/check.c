/* The formulas behind the table: with n members
 *
 *   an event       all members are told once, and renew at once; beside that each renews once
 *                  a second, or after each change
 *   another epoch  each reports to each other one, whose answer is no error once
 *   a look-up      the owner is asked, and the holder: two messages each
 *   a takeover     each of two keepers asks all others, and one of them a second time, for
 *                  the promise */
#include "check.h"

#include "base/numeric.h"
#include "nodes.h"

#include <string.h>

static void
expect(const struct result *result, const char *what, uint64_t is, uint64_t from,
       uint64_t upto)
{
    if (is < from || is > upto)
        cluster_fail("%s with %u members: %ju %s, expected %ju to %ju", result->name,
                     result->members, (uintmax_t)is, what, (uintmax_t)from,
                     (uintmax_t)upto);
}

static uint64_t
pairs(uint64_t members)
{
    return members * (members - 1);
}

/* Who was told of a change renews at once, once for each of `changes`. */
static void
check_renewals(const struct result *result, uint64_t changes)
{
    uint64_t most = max_u64(result->members, 1) + 1;
    uint64_t seconds = result->duration_ns / VIRTUAL_S + 1;
    uint64_t renewals = most * (changes + seconds);
    expect(result, "renewals", result->renewals, result->members, renewals);
    expect(result, "messages of the metastore", result->metastore.messages,
           result->members, renewals + 2 * most);
}

/* One epoch, of which all have been told. */
static void
check_epoch(const struct result *result)
{
    expect(result, "reports", result->reports, pairs(result->members),
           pairs(result->members));
    expect(result, "reports that came too early", result->reports_refused, 0,
           2 * pairs(result->members));
    check_renewals(result, 1);
}

static void
check_one(const struct result *result)
{
    const char *name = result->name;
    if (strcmp(name, "look-up") == 0)
        expect(result, "messages", result->total.messages, 4, 4);
    else if (strcmp(name, "quiet for 10 s") == 0)
        expect(result, "messages", result->total.messages, 2 * 9 * result->members,
               2 * 11 * result->members);
    else if (strcmp(name, "all join") != 0 && strcmp(name, "head is killed") != 0)
        check_epoch(result);
    if (strcmp(name, "controller is lost") == 0)
        expect(result, "were asked", result->asked, 2 * (result->members - 1),
               4 * (result->members - 1));
}

void
check_results(const struct result *results, size_t count, uint32_t nodes)
{
    for (size_t i = 0; i < count; i++)
        check_one(&results[i]);
    expect(&results[0], "members", results[0].members, nodes, nodes);
}
