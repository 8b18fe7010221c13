"""A node that is told to stop moves what only it has to another one first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from cluster import (
    NEEDS_HOSTS,
    BlockProgram,
    Cluster,
    KeyProgram,
    QueueProgram,
    await_that,
)
from e2e import Done, finish
from hosts import Host

MB = 1 << 20
SMALL, LARGE = 100, 300_000  # Items of a row; many large ones are a part of a block.
KEYS = 60  # Enough for each of three nodes to own some.

pytestmark = NEEDS_HOSTS


@pytest.fixture
def programs(cluster: Cluster) -> Iterator[list[QueueProgram]]:
    """One on each host; the first is the owner."""
    programs = [QueueProgram(cluster, host, timeout_s=20) for host in cluster.hosts]
    yield programs
    for program in reversed(programs):
        program.end_if_alive()


def fill(cluster: Cluster, host: Host, megabytes: int) -> BlockProgram:
    """So that another one has more room, as long as the program is there."""
    program = BlockProgram(cluster, host)
    for seed in range(megabytes // 4):
        program.ask("put", seed, 4 * MB)
    return program


class Stop:
    """`dscli stop` under way."""

    def __init__(self, cluster: Cluster, host: Host, *words: str) -> None:
        program = (*host.within, sys.executable, "-m", "yr.datasystem.cli", "stop")
        self._process: subprocess.Popen[str] = cluster.site.start_command(
            *program, "--worker_address", cluster.address(host), *words
        )

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> Done:
        return finish(self._process)

    @property
    def is_under_way(self) -> bool:
        return self._process.poll() is None


def await_moving(cluster: Cluster, host: Host) -> None:
    await_that(lambda: "worker leaves its cluster" in cluster.log(host))


@pytest.mark.parametrize(
    "sizes", [[1], [1000, 1], [MB, 64, 3 * MB + 5], [20 * MB]], ids=str
)
def test_blocks_are_read_where_they_were_moved(
    cluster: Cluster, sizes: list[int]
) -> None:
    programs = [BlockProgram(cluster, host) for host in cluster.hosts]
    block = programs[2].ask("put", 7, *sizes)
    assert programs[0].ask("check", block, 7, *sizes) == "right"  # It has copies, too.
    programs.pop().end()
    done = cluster.try_stop(cluster.hosts[2])
    assert done.code == 0, done.err
    total = f"{sum(sizes) / 1e6:.1f}"
    moved = f"moved {len(sizes)} of {len(sizes)} objects, {total} of {total} MB to 192."
    assert moved in done.out
    for program in programs:
        assert program.ask("check", block, 7, *sizes) == "right"
        program.end()


def test_a_queue_goes_on_when_nodes_leave_one_after_the_other(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    """All rows are read from who took them over, and from who took over from it."""
    head, second, third = cluster.hosts
    keys = [f"key{i}" for i in range(20)]
    assert programs[2].ask("put", keys[:10], 1, SMALL) is None
    assert programs[2].ask("put", keys[10:], 2, LARGE) is None
    programs.pop().end()
    filler = fill(cluster, head, 20)
    cluster.stop(third)
    filler.end()
    assert f"to={cluster.address(second)}" in cluster.log(third)
    for program in programs:
        assert program.ask("versions", keys[:10], SMALL) == [1] * 10
        assert program.ask("versions", keys[10:], LARGE) == [2] * 10
    programs.pop().end()
    cluster.stop(second)
    assert programs[0].ask("versions", keys[:10], SMALL) == [1] * 10
    assert programs[0].ask("versions", keys[10:], LARGE) == [2] * 10
    assert programs[0].ask("clear", keys) is None
    await_that(lambda: cluster.stats(head)["objects"] == 0)


def test_what_was_moved_is_there_after_a_restart_of_the_taker_and_of_the_metastore(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    head, second, third = cluster.hosts
    keys = [f"key{i}" for i in range(10)]
    assert programs[2].ask("put", keys, 1, LARGE) is None
    programs.pop().end()
    filler = fill(cluster, head, 20)
    cluster.stop(third)
    filler.end()
    for host in (second, head):
        subprocess.run(["kill", "-9", str(cluster.child(host))], check=True)
        for program in programs:
            assert program.ask("versions", keys, LARGE) == [1] * 10
    assert programs[1].ask("clear", keys) is None
    await_that(lambda: cluster.stats(second)["objects"] == 0)


def test_users_keys_are_moved(cluster: Cluster) -> None:
    third = cluster.hosts[2]
    programs = [KeyProgram(cluster, host) for host in cluster.hosts]
    assert programs[2].ask("put_many", "many", KEYS, 700) == "[]"
    assert programs[2].ask("put", "large", 7, 20 * MB) == "done"
    assert programs[2].ask("put", "short", 8, 100, 600) == "done"
    assert programs[2].ask("put", "expires", 9, 100, 6) == "done"
    assert programs[0].ask("put", "others", 1, 100) == "done"
    assert programs[2].ask("check", "others", 1, 100) == "right"
    expires = time.monotonic() + 6
    programs.pop().end()
    cluster.stop(third)
    for program in programs:
        assert program.ask("check_many", "many", KEYS, 700) == "right"
        assert program.ask("check", "large", 7, 20 * MB) == "right"
        assert program.ask("check", "short", 8, 100) == "right"
        assert program.ask("check", "others", 1, 100) == "right"
    if time.monotonic() < expires - 0.5:
        assert programs[0].ask("check", "expires", 9, 100) == "right"
    time.sleep(max(0, expires + 0.5 - time.monotonic()))
    assert programs[0].ask("exists", "expires", "short") == [False, True]
    assert programs[1].ask("put_many", "many", KEYS, 800) == "[]"
    for program in programs:
        assert program.ask("check_many", "many", KEYS, 800) == "right"
        program.end()


def test_keys_that_are_changed_while_they_are_moved(cluster: Cluster) -> None:
    third = cluster.hosts[2]
    programs = [KeyProgram(cluster, host) for host in cluster.hosts]
    assert programs[2].ask("put_many", "key", 900, 7000) == "[]"
    programs.pop().end()
    third.slow(mbit=16)
    stop = Stop(cluster, third)
    await_moving(cluster, third)
    for i in range(3):
        assert programs[i % 2].ask("put_many", "key", 100 * (i + 1), 800 + i) == "[]"
        assert programs[1].ask("delete", f"key{899 - i}") == "[]"
    third.fast()
    done = stop.end()
    assert done.code == 0, done.out + done.err
    wanted = [[f"key{i}", i, 802 if i < 300 else 7000] for i in range(897)]
    for program in programs:
        assert program.ask("check_all", wanted) == "right"
        assert program.ask("exists", "key897", "key898", "key899") == [False] * 3
        program.end()


def test_the_node_with_the_metastore_leaves(cluster: Cluster) -> None:
    """Blocks are found as long as their members are, also without a metastore."""
    head = cluster.hosts[0]
    programs = [BlockProgram(cluster, host) for host in cluster.hosts]
    block = programs[0].ask("put", 7, MB, 64, 3 * MB)
    programs.pop(0).end()
    cluster.stop(head)
    for program in programs:
        assert program.ask("check", block, 7, MB, 64, 3 * MB) == "right"
        program.end()


def own_objects(program: BlockProgram) -> int:
    """Without copies of others'."""
    stats = program.ask("stats")
    return int(stats["objects"]) - int(stats["objects_copied"])


@pytest.mark.parametrize("child", ["goes on", "was started again"])
def test_without_a_metastore_nobody_leaves(cluster: Cluster, child: str) -> None:
    """Nobody could be told where the blocks are, so what was moved is called back."""
    head, second, third = cluster.hosts
    program, other = (BlockProgram(cluster, host) for host in (third, second))
    blocks = [program.ask("put", seed, MB) for seed in range(8)]
    cluster.kill(head)
    if child == "was started again":  # And has heard of no members since.
        os.kill(cluster.child(third), signal.SIGKILL)
        recovered = "worker recovered"
        await_that(lambda: "ready" in cluster.log(third).partition(recovered)[2])
    done = cluster.try_stop(third)
    assert done.code == 1
    assert "the metastore does not" in done.err
    assert "The worker stays" in done.err
    for seed, block in enumerate(blocks):
        assert program.ask("check", block, seed, MB) == "right"
    assert program.ask("put", 9, 1000) != ""
    await_that(lambda: own_objects(other) == 0)
    program.end()
    other.end()


def test_nobody_has_room(cluster: Cluster) -> None:
    """The node stays, with all that it has."""
    head, second, third = cluster.hosts
    fillers = [fill(cluster, host, 44) for host in (head, second)]
    program = BlockProgram(cluster, third)
    keys = KeyProgram(cluster, third)
    blocks = [program.ask("put", seed, 6 * MB) for seed in range(5)]
    assert keys.ask("put", "key", 1, 100) == "done"
    done = cluster.try_stop(third)
    assert done.code == 1
    assert "no member has room for the 6 objects (30.0 MiB)" in done.err
    assert "Delete something" in done.err
    assert "--discard" in done.err
    for seed, block in enumerate(blocks):
        assert program.ask("check", block, seed, 6 * MB) == "right"
    assert keys.ask("check", "key", 1, 100) == "right"
    assert program.ask("put", 9, 1000) != ""  # Nothing is refused any more.
    for one in (program, keys, *fillers):
        one.end()
    cluster.stop(third, "--discard")
    other = BlockProgram(cluster, second)
    assert other.ask("check", blocks[0], 0, 6 * MB) == "gone"
    other.end()


def test_others_read_and_put_while_a_node_moves(
    cluster: Cluster, programs: list[QueueProgram]
) -> None:
    keys = [f"key{i}" for i in range(30)]
    for i in range(3):
        assert programs[2].ask("put", keys[10 * i : 10 * i + 10], i, LARGE) is None
    expected = [0] * 10 + [1] * 10 + [2] * 10
    programs[0].tell("put_for", "others", 4, SMALL)
    stop = Stop(cluster, cluster.hosts[2])
    rounds = 0
    while stop.is_under_way:
        assert programs[1].ask("versions", keys, LARGE) == expected
        rounds += 1
    done = stop.end()
    assert done.code == 0, done.out + done.err
    assert rounds > 0
    assert programs[1].ask("versions", keys, LARGE) == expected
    assert programs[0].hear() > 10
    assert programs[0].ask("versions", keys, LARGE) == expected
    programs[2].kill()


def test_who_leaves_takes_nothing_new(cluster: Cluster) -> None:
    third = cluster.hosts[2]
    program, keys = BlockProgram(cluster, third), KeyProgram(cluster, third)
    blocks = [program.ask("put", seed, 6 * MB) for seed in range(5)]
    third.slow(mbit=40)
    stop = Stop(cluster, third)
    await_moving(cluster, third)
    assert "leaves its cluster" in keys.ask("put", "key", 1, 100)
    assert program.ask("check", blocks[4], 4, 6 * MB) == "right"
    stop.tell(signal.SIGINT)
    assert stop.end().code == 130
    third.fast()
    assert "leaving was cancelled" in cluster.log(third)
    assert keys.ask("put", "key", 1, 100) == "done"
    for seed, block in enumerate(blocks):
        assert program.ask("check", block, seed, 6 * MB) == "right"
    for one in (program, keys):
        one.end()


def test_a_taker_that_is_lost_takes_nothing_along(cluster: Cluster) -> None:
    head, second, third = cluster.hosts
    filler = fill(cluster, head, 20)
    program = BlockProgram(cluster, third)
    blocks = [program.ask("put", seed, 6 * MB) for seed in range(5)]
    third.slow(mbit=40)
    stop = Stop(cluster, third)
    await_moving(cluster, third)
    time.sleep(1)
    cluster.kill(second)
    third.fast()
    done = stop.end()
    assert done.code == 1
    assert f"{cluster.address(second)}, which was to take over" in done.err
    for seed, block in enumerate(blocks):
        assert program.ask("check", block, seed, 6 * MB) == "right"
    for one in (program, filler):
        one.end()
    cluster.stop(third)
    other = BlockProgram(cluster, head)
    for seed, block in enumerate(blocks):
        assert other.ask("check", block, seed, 6 * MB) == "right"
    other.end()


def test_a_time_limit(cluster: Cluster) -> None:
    third = cluster.hosts[2]
    program = BlockProgram(cluster, third)
    block = program.ask("put", 1, 40 * MB)
    third.slow(mbit=20)
    done = cluster.try_stop(third, "--timeout", "2")
    third.fast()
    assert done.code == 1
    assert "it takes longer than the timeout (moved 0 of 1 objects" in done.err
    assert program.ask("check", block, 1, 40 * MB) == "right"
    program.end()


def test_discard_is_at_once(cluster: Cluster) -> None:
    program = BlockProgram(cluster, cluster.hosts[2])
    program.ask("put", 1, 40 * MB)
    program.end()
    begin = time.monotonic()
    cluster.stop(cluster.hosts[2], "--discard")
    assert time.monotonic() - begin < 5
    assert "worker leaves its cluster" not in cluster.log(cluster.hosts[2])
