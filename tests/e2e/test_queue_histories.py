"""What processes on three nodes see of the same rows can have happened in some order,
and every change once, whatever becomes of the queue's controller meanwhile."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from typing import Any

import pytest
from cluster import (
    NEEDS_CLOCKS,
    NEEDS_HOSTS,
    ClockedCluster,
    Cluster,
    QueueProgram,
    await_that,
)
from histories import Operation, explain, print_around
from hosts import Host

pytestmark = NEEDS_HOSTS

RUN_S = float(os.environ.get("TQ_HISTORY_S", "12"))


def controller_host(cluster: Cluster) -> Host:
    space = os.readlink(f"/proc/{cluster.controllers()[0]}/ns/net")
    return next(
        host
        for host in cluster.hosts
        if os.readlink(f"/proc/{host.namespace.pid}/ns/net") == space
    )


def nothing(cluster: Cluster) -> None:
    del cluster


def kill_child(cluster: Cluster) -> None:
    os.kill(cluster.controllers()[1], signal.SIGKILL)


def kill_both(cluster: Cluster) -> None:
    """Another node goes on with the queue."""
    for pid in cluster.controllers():
        os.kill(pid, signal.SIGKILL)


def kill_worker_child(cluster: Cluster) -> None:
    os.kill(cluster.child(controller_host(cluster)), signal.SIGKILL)


def cut(cluster: Cluster) -> None:
    """Longer than the lease: another node goes on, and the first hears of it."""
    host = controller_host(cluster)
    host.cut()
    time.sleep(5)
    host.heal()


def pause(cluster: Cluster) -> None:
    """The same, with a controller that knows nothing of it when it wakes up."""
    pids = [cluster.child(controller_host(cluster)), cluster.controllers()[1]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(5)
    for pid in reversed(pids):  # The controller first: it may say what it should not.
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.3)


def lose_packets(cluster: Cluster) -> None:
    """A tenth of all that every host is sent."""
    for host in cluster.hosts:
        host.lose(10)
    time.sleep(3)
    for host in cluster.hosts:
        host.lose_nothing()


def jump_and_kill(cluster: Cluster) -> None:
    """All clocks are set, each to another time, and another node goes on."""
    assert isinstance(cluster, ClockedCluster)
    chance = random.Random(time.monotonic())
    for host in cluster.hosts:
        cluster.jump(host, chance.randint(-365, 365))
    kill_both(cluster)


FAULTS = [lose_packets, nothing, kill_child, kill_both, kill_worker_child, cut, pause]


SEEDS = pytest.mark.parametrize(
    "seed", range(int(os.environ.get("TQ_HISTORY_SEEDS", "1")))
)


@pytest.mark.parametrize("fault", FAULTS)
@SEEDS
def test_queue_histories(cluster: Cluster, fault: Any, seed: int) -> None:
    check_history(cluster, fault, seed)


@NEEDS_CLOCKS
@SEEDS
def test_queue_histories_while_clocks_jump(clocked: ClockedCluster, seed: int) -> None:
    check_history(clocked, jump_and_kill, seed)


def check_history(cluster: Cluster, fault: Any, seed: int) -> None:
    chance = random.Random(seed)
    owner = cluster.hosts[1]
    programs = [
        QueueProgram(
            *(cluster, cluster.hosts[number], owner, 30),
            program="queue_history_program.py",
            words=(str(number),),
        )
        for number in (1, 0, 2)
    ]
    end = time.monotonic() + RUN_S
    while time.monotonic() < end:
        time.sleep(1 + chance.random())
        fault(cluster)
        await_settled(cluster)
    histories: dict[str, list[Operation]] = defaultdict(list)
    for program in programs:
        program.tell("end")
    for program in programs:
        for key, kind, value, begin, finish in program.hear():
            histories[key].append(Operation(kind, value, begin, finish))
    for program in reversed(programs):
        program.tell("close")
        program.end()
    known = [op for history in histories.values() for op in history if op.end]
    assert len(known) > 500
    for key, history in histories.items():
        trouble = explain(history)
        if trouble is not None:
            print_around(history, trouble)
        assert trouble is None, key
    await_that(lambda: cluster.controllers() == [])


def await_settled(cluster: Cluster) -> None:
    """One controller, and two nodes that could go on with its queue."""
    cluster.await_members(*cluster.hosts)

    def is_settled() -> bool:
        pids = cluster.controllers()
        copies = sum(
            cluster.stats(host).get("journal_copies", 0) for host in cluster.hosts
        )
        return len(pids) == 2 and copies == 2

    await_that(is_settled)
