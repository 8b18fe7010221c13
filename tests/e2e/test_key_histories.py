"""What clients on three nodes see of the same keys can have happened in some order,
whatever fails meanwhile."""

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
    WORKER_PORT,
    ClockedCluster,
    Cluster,
    KeyProgram,
    Program,
    await_that,
)
from histories import Operation, explain, print_around
from hosts import Host

pytestmark = NEEDS_HOSTS

RUN_S = float(os.environ.get("TQ_HISTORY_S", "8"))
KEYS = 8


def kill_child(cluster: Cluster, host: Host) -> None:
    os.kill(cluster.child(host), signal.SIGKILL)


def pause(cluster: Cluster, host: Host) -> None:
    """Longer than its lease: it is no member any more when it goes on."""
    child = cluster.child(host)
    os.kill(child, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(child, signal.SIGCONT)


def cut(cluster: Cluster, host: Host) -> None:
    host.cut()
    time.sleep(2.5)
    host.heal()


def lose_packets(cluster: Cluster, host: Host) -> None:
    """A tenth of all that every host is sent."""
    del host
    for each in cluster.hosts:
        each.lose(10)
    time.sleep(3)
    for each in cluster.hosts:
        each.lose_nothing()


def lose_head(cluster: Cluster, host: Host) -> None:
    """With the metastore; another worker takes its place after a while."""
    del host
    cluster.kill(cluster.head)
    time.sleep(1)
    cluster.start(cluster.head, "--node_timeout_s", "2")


def nothing(cluster: Cluster, host: Host) -> None:
    del cluster, host


def set_back_and_cut(cluster: Cluster, host: Host) -> None:
    """By its clock, a day passes before the lease of the node that is cut off ends."""
    assert isinstance(cluster, ClockedCluster)
    host.cut()
    cluster.jump(host, -1)
    time.sleep(9)  # Others own its keys before it comes back.
    host.heal()
    cluster.jump(host, 0)


SEEDS = pytest.mark.parametrize(
    "seed", range(int(os.environ.get("TQ_HISTORY_SEEDS", "1")))
)


@pytest.mark.parametrize(
    "fault", [nothing, kill_child, pause, cut, lose_packets, lose_head]
)
@SEEDS
def test_histories(cluster: Cluster, fault: Any, seed: int) -> None:
    check_history(cluster, fault, seed)


@NEEDS_CLOCKS
@SEEDS
def test_histories_while_clocks_jump(clocked: ClockedCluster, seed: int) -> None:
    check_history(clocked, set_back_and_cut, seed)


@NEEDS_CLOCKS
def test_keys_live_as_long_as_they_should_while_clocks_jump(
    clocked: ClockedCluster,
) -> None:
    program = KeyProgram(clocked, clocked.hosts[1])
    assert program.ask("put", "long", 1, 100, 600) == "done"
    assert program.ask("put", "short", 2, 100, 2) == "done"
    for days in (1, -1):
        for host in clocked.hosts:
            clocked.jump(host, days)
        program.ask("put", f"key{days}", 3, 100)
        assert program.ask("check", "long", 1, 100) == "right"
    await_that(lambda: program.ask("exists", "short", "long") == [False, True])
    program.end()
    clocked.kill(clocked.hosts[2])  # Others write a line in their logs.
    yesterday = time.strftime("%Y-%m-%dT", time.gmtime(time.time() - 86400))
    await_that(lambda: yesterday in clocked.log(clocked.head))


def check_history(cluster: Cluster, fault: Any, seed: int) -> None:
    chance = random.Random(seed)
    programs = [
        Program(
            *(cluster, host, "history_program.py"),
            *(host.address, str(WORKER_PORT), str(number)),
        )
        for number, host in enumerate(cluster.hosts)
    ]
    faults: list[tuple[float, float]] = []
    end = time.monotonic() + RUN_S
    while time.monotonic() < end:
        time.sleep(0.5 + chance.random())
        begin = time.monotonic()
        fault(cluster, chance.choice(cluster.hosts))
        await_settled(cluster)
        if fault is not nothing:
            faults.append((begin, time.monotonic() + 1))
    histories: dict[str, list[Operation]] = defaultdict(list)
    for program in programs:
        program.tell("end")
    for program in programs:
        for key, kind, value, begin, finish in program.hear():
            if kind == "get" and value is None and overlaps(faults, begin, finish):
                continue  # The value of a lost node, or of a change under way, is away.
            repeats = fault is not nothing and kind != "get"
            histories[key].append(Operation(kind, value, begin, finish, repeats))
        program.end()
    assert sum(len(history) for history in histories.values()) > 1000
    for key, history in histories.items():
        trouble = explain(history)
        if trouble is not None:
            print_around(history, trouble)
        assert trouble is None, key
    check_all_agree(cluster)


def await_settled(cluster: Cluster) -> None:
    """All are members and know their keys: what two faults at a time may do is not
    promised (docs/decisions/0014-keys.md)."""
    cluster.await_members(*cluster.hosts)

    def is_settled() -> bool:
        epoch = cluster.query(cluster.head).get("topology_version")
        line = f"worker knows its keys epoch={epoch} "
        return all(line in cluster.log(host) for host in cluster.hosts)

    await_that(is_settled)


def overlaps(spans: list[tuple[float, float]], begin: float, end: float) -> bool:
    return any(begin < span[1] and span[0] < end for span in spans)


def check_all_agree(cluster: Cluster) -> None:
    readers = [KeyProgram(cluster, host) for host in cluster.hosts]
    for i in range(KEYS):
        values = {reader.ask("fingerprint", f"key{i}") for reader in readers}
        assert len(values) == 1, values
    for reader in readers:
        reader.end()
