"""A queue whose node is lost goes on at another by itself, with all it acknowledged."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from cluster import NEEDS_HOSTS, Cluster, QueueProgram, await_that

ITEMS = 100

pytestmark = NEEDS_HOSTS


@pytest.fixture
def programs(cluster: Cluster) -> Iterator[list[QueueProgram]]:
    """One on each host; the owner of the queue is the second, which is not the head."""
    owner = cluster.hosts[1]
    programs = {1: QueueProgram(cluster, owner, owner=owner, timeout_s=40)}
    for number in (0, 2):
        host = cluster.hosts[number]
        programs[number] = QueueProgram(cluster, host, owner=owner, timeout_s=40)
    cluster.await_copies(owner, 2)
    yield [programs[number] for number in range(3)]
    for program in programs.values():
        program.end_if_alive()


def lose_owner(cluster: Cluster, programs: list[QueueProgram]) -> None:
    """Everything on the owner's host is gone at once."""
    for pid in cluster.controllers():
        os.kill(pid, signal.SIGKILL)
    cluster.kill(cluster.hosts[1])
    programs[1].kill()


def test_a_lost_node_takes_no_acknowledged_row_with_it(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    kept = []
    for turn in range(20):
        for node in (0, 2):
            keys = [f"n{node}-{turn}-{i}" for i in range(4)]
            assert programs[node].ask("put", keys, turn, ITEMS) is None
            kept.append((keys, turn))
    assert programs[1].ask("put", ["lost"], 1, ITEMS) is None
    programs[0].tell("put", ["under way"], 7, ITEMS)
    lose_owner(cluster, programs)
    assert programs[0].hear() is None
    for node in (0, 2):
        for keys, version in kept:
            assert programs[node].ask("versions", keys, ITEMS) == [version] * 4
        assert programs[node].ask("versions", ["under way"], ITEMS) == [7]
    answer = programs[2].ask("versions", ["lost"], ITEMS)
    assert "lost" in answer["error"], answer
    assert programs[2].ask("put", ["after"], 8, ITEMS) is None
    assert programs[0].ask("versions", ["after"], ITEMS) == [8]
    await_that(lambda: len(cluster.controllers()) == 2)


def put_until_told(program: QueueProgram, name: str) -> None:
    program.tell("put_for", name, 6.0, ITEMS)


def check_all_put(readers: list[QueueProgram], name: str, count: int) -> None:
    keys = [f"{name}-{number}" for number in range(count)]
    for reader in readers:
        assert reader.ask("versions", keys, ITEMS) == list(range(count))


def test_what_is_acknowledged_while_the_node_goes_is_there(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    """Rows of four a second and more are put from both other nodes meanwhile."""
    others = [programs[0], programs[2]]
    for program, name in zip(others, "ab", strict=True):
        put_until_told(program, name)
    time.sleep(1.0)
    lose_owner(cluster, programs)
    counts = [program.hear() for program in others]
    for name, count in zip("ab", counts, strict=True):
        assert count > 20
        check_all_put(others, name, count)


def test_who_was_cut_off_follows_the_queue_when_it_is_back(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    """What its controller acknowledged before is there; it says nothing more itself."""
    assert programs[1].ask("put", ["before"], 1, ITEMS) is None
    cluster.hosts[1].cut()
    programs[1].tell("put", ["cut"], 2, ITEMS)
    assert programs[0].ask("put", ["meanwhile"], 3, ITEMS) is None
    assert programs[2].ask("versions", ["meanwhile"], ITEMS) == [3]
    cluster.hosts[1].heal()
    answer = programs[1].hear()
    cluster.await_members(*cluster.hosts)
    await_that(lambda: len(cluster.controllers()) == 2)
    expected = [1, 3] if answer is not None else [1, 2, 3]
    keys = (
        ["before", "meanwhile"]
        if answer is not None
        else ["before", "cut", "meanwhile"]
    )
    for program in programs:
        assert program.ask("versions", keys, ITEMS) == expected
    assert programs[1].ask("put", ["after"], 4, ITEMS) is None
    assert programs[2].ask("versions", ["after"], ITEMS) == [4]


def test_a_controller_that_nobody_starts_again_is_replaced(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    """Its node lives, so no row is lost, also none of its own."""
    for node, program in enumerate(programs):
        assert program.ask("put", [f"n{node}"], node, ITEMS) is None
    for pid in cluster.controllers():
        os.kill(pid, signal.SIGKILL)
    for program in programs:
        assert program.ask("versions", ["n0", "n1", "n2"], ITEMS) == [0, 1, 2]
    assert programs[1].ask("put", ["after"], 3, ITEMS) is None
    programs[1].end()
    await_that(lambda: cluster.controllers() == [])  # Its owner ends it all the same.


def test_a_keeper_that_is_stopped_delays_nobody_for_long(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    stopped = cluster.child(cluster.hosts[2])
    os.kill(stopped, signal.SIGSTOP)
    try:
        for version in range(20):
            assert programs[0].ask("put", ["a"], version, ITEMS) is None
    finally:
        os.kill(stopped, signal.SIGCONT)
    cluster.await_members(*cluster.hosts)
    cluster.await_copies(cluster.hosts[1], 2)


def test_a_queue_that_was_closed_is_gone_everywhere(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    assert programs[0].ask("put", ["a"], 1, ITEMS) is None
    programs[1].end()
    for host in cluster.hosts:
        await_that(lambda host=host: cluster.stats(host)["journals_kept"] == 0)
    answer = programs[0].ask("put", ["b"], 1, ITEMS)
    assert "is gone" in answer["error"], answer
    assert answer["seconds"] < 10
    time.sleep(7.0)  # Longer than a queue without a controller is left alone.
    assert cluster.controllers() == []


def test_a_worker_that_is_stopped_gives_its_queue_away(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    """It had taken it over itself, and the last node has it then."""
    assert programs[0].ask("put", ["a"], 1, ITEMS) is None
    lose_owner(cluster, programs)
    assert programs[0].ask("put", ["b"], 2, ITEMS) is None
    went_on = next(
        host
        for host in (cluster.hosts[0], cluster.hosts[2])
        if "goes on with queue" in cluster.log(host)
    )
    cluster.await_copies(went_on, 1)
    if went_on is cluster.head:
        return  # Without the metastore nobody may say that it is the next.
    cluster.stop(went_on)
    assert programs[0].ask("put", ["c"], 3, ITEMS) is None
    assert programs[0].ask("versions", ["a", "b", "c"], ITEMS) == [1, 2, 3]


def test_a_controller_without_its_worker_lets_its_clients_go(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    """It lives, but may say nothing; they find the one that has gone on."""
    assert programs[0].ask("put", ["a"], 1, ITEMS) is None
    cluster.kill(cluster.hosts[1])
    for program, version in ((programs[0], 2), (programs[2], 3)):
        assert program.ask("put", ["b"], version, ITEMS) is None
        assert program.ask("versions", ["a", "b"], ITEMS) == [1, version]
