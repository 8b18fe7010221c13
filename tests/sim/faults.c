/* What goes wrong: processes die, also between two stores to shared memory, or get no
 * processor; connections break, wait, are refused; the whole memory is lost. */
#include "node.h"
#include "workload.h"

static void
kill_soon(struct process *process, struct counts *counts)
{
    if (process == NULL)
        return;
    counts->kills++;
    if (sim_chance(1, 3)) {
        process_kill(process);
        return;
    }
    process->steps_left = sim_between(1, 120);
    sim_trace("%s will die after %ju steps", process->name,
              (uintmax_t)process->steps_left);
}

static void
stall(struct process *process)
{
    if (process == NULL)
        return;
    uint64_t ms = sim_chance(1, 4) ? sim_between(100, 1500) : sim_between(1, 60);
    sim_trace("%s gets no processor for %ju ms", process->name, (uintmax_t)ms);
    process->stalled_until_ns = sim.now_ns + ms * SIM_MS;
}

void
fault_happens(struct counts *counts, bool has_queue)
{
    uint64_t chance = sim_below(100);
    counts->faults++;
    if (has_queue && sim_chance(1, 5)) {
        if (sim_chance(2, 3))
            kill_soon(node.controller, counts);
        else
            stall(node.controller);
    } else if (chance < 25) {
        kill_soon(node.worker, counts);
    } else if (chance < 45) {
        kill_soon(workload_random_client(), counts);
    } else if (chance < 70) {
        sim_trace("a connection breaks");
        counts->faults -= !sockets_break_one();
    } else if (chance < 78) {
        sim_trace("the network is slow");
        sim.lag_until_ns = sim.now_ns + sim_between(1, 800) * SIM_MS;
    } else if (chance < 83) {
        sim_trace("connections are refused");
        sockets_refuse_until(sim.now_ns + sim_between(1, 600) * SIM_MS);
    } else if (chance < 90) {
        stall(node.worker);
    } else if (chance < 96) {
        stall(workload_random_client());
    } else if (sim_chance(1, 3)) {
        counts->kills++;
        node_lose_memory();
    } else {
        counts->faults--;
    }
}
