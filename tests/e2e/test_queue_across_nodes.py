"""One queue whose rows are on three nodes, by the guide's manual start."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import NEEDS_HOSTS, BlockProgram, Cluster, QueueProgram, await_that
from e2e import Site, expect_line
from hosts import Host

SMALL, LARGE = 100, 300_000  # Items of a row; many large ones are a part of a block.

pytestmark = NEEDS_HOSTS


@pytest.fixture
def programs(cluster: Cluster) -> Iterator[list[QueueProgram]]:
    """One on each host; the first is the owner."""
    programs = [QueueProgram(cluster, host, timeout_s=10) for host in cluster.hosts]
    yield programs
    for program in reversed(programs):
        program.end()


def keys_of(node: int, count: int = 4) -> list[str]:
    return [f"n{node}-{i}" for i in range(count)]


def bytes_used(cluster: Cluster, number: int) -> int:
    program = BlockProgram(cluster, cluster.hosts[number])
    used: int = program.ask("stats")["memory_used_bytes"]
    program.end()
    return used


def check_is_error(answer: Any, text: str, within_s: float) -> None:
    assert isinstance(answer, dict) and text in answer["error"], answer
    assert answer["seconds"] < within_s, answer


def check_rows_of_every_node(programs: list[QueueProgram], items: int) -> None:
    everything = []
    for node, program in enumerate(programs):
        assert program.ask("put", keys_of(node), node, items) is None
        everything += keys_of(node)
    for program in programs:
        assert program.ask("keys") == sorted(everything)
        assert program.ask("versions", everything, items) == [0] * 4 + [1] * 4 + [2] * 4


def check_overwriting_in_turns(programs: list[QueueProgram]) -> None:
    keys = keys_of(0)
    for version in range(12):
        writer = programs[version % 3]
        assert writer.ask("put", keys, version, LARGE) is None
        for reader in programs:
            assert reader.ask("versions", keys, LARGE) == [version] * len(keys)


def check_fields_from_several_nodes(programs: list[QueueProgram]) -> None:
    keys = keys_of(0)
    programs[1].ask("put", keys, 5, SMALL)
    programs[2].ask("put", keys[:2], 6, SMALL)
    assert programs[0].ask("versions", keys, SMALL) == [6, 6, 5, 5]
    assert programs[0].ask("select", keys, "version") == len(keys)


def test_rows_are_put_read_overwritten_and_cleared_on_every_node(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    for items in (SMALL, LARGE):
        check_rows_of_every_node(programs, items)
    check_overwriting_in_turns(programs)
    check_fields_from_several_nodes(programs)
    for node in range(3):
        programs[(node + 1) % 3].ask("clear", keys_of(node))
    for program in programs:
        assert program.ask("keys") == []


def test_a_block_whose_put_never_came_goes_on_every_node(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    """Only the controller knows that; it is on the first node."""
    name = programs[0].ask("queue_name")
    for host in cluster.hosts:
        dies = BlockProgram(cluster, host, name)
        dies.ask("put", 1, 5 << 20)
        dies.end()
    for node in range(3):
        await_that(lambda node=node: bytes_used(cluster, node) == 0)
    programs[1].ask("put", keys_of(1), 1, LARGE)  # And those of rows stay.
    for program in programs:
        assert program.ask("versions", keys_of(1), LARGE) == [1] * 4


def check_put_while(programs: list[QueueProgram], version: int, killed: int) -> None:
    """All nodes put, and somebody is killed meanwhile."""
    for node, program in enumerate(programs):
        program.tell("put", keys_of(node), version, LARGE)
    os.kill(killed, signal.SIGKILL)
    assert [program.hear() for program in programs] == [None] * 3
    for program in programs:
        for node in range(3):
            assert program.ask("versions", keys_of(node), LARGE) == [version] * 4


def test_killed_children_of_controller_and_workers_lose_nothing(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    for version in range(9):
        if version % 2 == 0:
            check_put_while(programs, version, cluster.controllers()[1])
        else:
            host = cluster.hosts[version // 2 % 3]
            check_put_while(programs, version, cluster.child(host))


def test_a_node_is_cut_off_comes_back_and_another_is_lost(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    """Calls end in time, what is lost is said by name, and the rest works."""
    programs[1].ask("put", keys_of(1), 1, SMALL)
    cut = cluster.hosts[1]
    cut.cut()
    check_is_error(programs[1].ask("put", keys_of(1), 2, SMALL), "controller", 60)
    assert programs[0].ask("put", keys_of(0), 1, SMALL) is None
    assert programs[2].ask("versions", keys_of(0), SMALL) == [1] * 4
    cut.heal()
    cluster.await_members(*cluster.hosts)
    assert programs[1].ask("put", keys_of(1), 3, SMALL) is None
    for program in programs:
        assert program.ask("versions", keys_of(1), SMALL) == [3] * 4

    programs[2].ask("put", keys_of(2), 1, SMALL)
    cluster.kill(cluster.hosts[2])
    for program in programs[:2]:
        check_is_error(program.ask("versions", keys_of(2), SMALL), "n2-0", 20)
        assert program.ask("versions", keys_of(1), SMALL) == [3] * 4
    assert programs[0].ask("put", keys_of(2), 2, SMALL) is None
    assert programs[1].ask("versions", keys_of(2), SMALL) == [2] * 4


def moved_to(cluster: Cluster, host: Host, command: list[str]) -> list[str]:
    """The command of the same queue's controller on that host."""
    folder = cluster.site.folder / "moved"
    folder.mkdir(mode=0o700)
    worker = cluster.home(host) / "datasystem/uds/worker.sock"
    changed = {
        "--socket": str(folder / "controller.sock"),
        "--worker_socket": str(worker),
        "--host": host.address,
    }
    moved = list(command)
    moved += ["--journal", f"{command[command.index('--socket') + 1]}.journal"]
    for option, value in changed.items():
        moved[moved.index(option) + 1] = value
    return [*host.within, *moved]


def test_a_reader_waits_for_room_for_what_is_on_another_node(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    """Whose data is not lost: there is none until somebody clears something."""
    origin, reader, other = programs
    rows, own = keys_of(0, 6), keys_of(1, 54)  # 7 MiB, and 62 MiB of 64.
    assert origin.ask("put", rows, 1, LARGE) is None
    for i in range(0, len(own), 6):
        assert reader.ask("put", own[i : i + 6], 1, LARGE) is None
    check_is_error(reader.ask("versions", rows, LARGE), "no room for a copy", 60)
    reader.tell("versions", rows, LARGE)
    time.sleep(0.5)
    assert other.ask("clear", own[:12]) is None
    assert reader.hear() == [1] * len(rows)


def test_clients_of_every_node_follow_a_controller_to_another_node(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    """Its journal is where both see it."""
    for node, program in enumerate(programs):
        program.ask("put", keys_of(node), 1, SMALL)
    pids = cluster.controllers()
    command = Path(f"/proc/{pids[0]}/cmdline").read_text().split("\0")[:-1]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    moved = cluster.site.start_command(*moved_to(cluster, cluster.hosts[1], command))
    try:
        expect_line(moved, "ready")
        for program in programs:
            await_that(lambda program=program: is_list(program.ask("keys")))
            for node in range(3):
                assert program.ask("versions", keys_of(node), SMALL) == [1] * 4
        programs[2].ask("put", keys_of(2), 2, LARGE)
        assert programs[0].ask("versions", keys_of(2), LARGE) == [2] * 4
    finally:
        moved.terminate()
        moved.wait(20)


def is_list(answer: Any) -> bool:
    return isinstance(answer, list)


def test_the_owners_end_is_the_queues_on_every_node(
    cluster: Cluster, programs: list[QueueProgram], site: Site
) -> None:
    for node, program in enumerate(programs):
        program.ask("put", keys_of(node), 1, LARGE)
    programs[0].ask("close")
    for node in range(3):
        await_that(lambda node=node: bytes_used(cluster, node) == 0)
    for program in programs[1:]:
        check_is_error(program.ask("put", keys_of(0), 2, SMALL), "tq.close()", 20)
    assert not list(Path(site.folder).glob("run*/transfer_queue"))
