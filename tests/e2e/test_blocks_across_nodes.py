"""A block that was put on one node is read on others."""

from __future__ import annotations

import os
import signal
import time

import pytest
from cluster import NEEDS_HOSTS, BlockProgram, Cluster, await_that

MB = 1 << 20

pytestmark = NEEDS_HOSTS


@pytest.mark.parametrize(
    "sizes", [[1], [1000, 1], [MB, 64, 3 * MB + 5], [20 * MB]], ids=str
)
def test_a_block_is_read_on_every_node(cluster: Cluster, sizes: list[int]) -> None:
    programs = [BlockProgram(cluster, host) for host in cluster.hosts]
    block = programs[1].ask("put", 7, *sizes)
    for program in programs:
        assert program.ask("check", block, 7, *sizes) == "right"
        program.end()


def test_a_copy_is_read_again_without_its_origin(cluster: Cluster) -> None:
    origin, reader = (BlockProgram(cluster, host) for host in cluster.hosts[1:])
    block = origin.ask("put", 1, 100, 2 * MB)
    assert reader.ask("check", block, 1, 100, 2 * MB) == "right"
    assert reader.ask("stats")["objects_copied"] == 2
    origin.end()
    cluster.kill(cluster.hosts[1])
    assert reader.ask("check", block, 1, 100, 2 * MB) == "right"
    reader.end()


def test_many_readers_of_a_node_fetch_a_block_once(cluster: Cluster) -> None:
    origin = BlockProgram(cluster, cluster.hosts[0])
    readers = [BlockProgram(cluster, cluster.hosts[1]) for _ in range(6)]
    block = origin.ask("put", 3, 8 * MB)
    for reader in readers:
        reader.tell("check", block, 3, 8 * MB)
    assert [reader.hear() for reader in readers] == ["right"] * 6
    assert origin.ask("stats")["bytes_fetched_total"] == 8 * MB
    for program in (origin, *readers):
        program.end()


def test_copies_make_room_for_what_is_put(cluster: Cluster) -> None:
    """64 MiB on one node are read on another that has as much, and then puts."""
    origin, reader = (BlockProgram(cluster, host) for host in cluster.hosts[:2])
    blocks = [origin.ask("put", seed, 6 * MB) for seed in range(9)]
    for _ in range(2):
        for seed, block in enumerate(blocks):
            assert reader.ask("check", block, seed, 6 * MB) == "right"
    reader.ask("let_go")
    own = [reader.ask("put", 100 + seed, 6 * MB) for seed in range(9)]
    for seed, block in enumerate(own):
        assert reader.ask("check", block, 100 + seed, 6 * MB) == "right"
    reader.ask("let_go")
    answer = reader.ask("check", blocks[0], 0, 6 * MB)
    assert answer == "right" or "no room for a copy" in answer
    origin.end()
    reader.end()


def test_who_has_no_room_for_a_copy_is_told_so(cluster: Cluster) -> None:
    """And reads it when there is room again."""
    origin, reader = (BlockProgram(cluster, host) for host in cluster.hosts[:2])
    block = origin.ask("put", 1, 8 * MB)
    own = [reader.ask("put", 100 + seed, 6 * MB) for seed in range(10)]
    assert "no room for a copy" in reader.ask("check", block, 1, 8 * MB)
    reader.ask("delete", own[0])
    reader.ask("delete", own[1])
    assert reader.ask("check", block, 1, 8 * MB) == "right"
    origin.end()
    reader.end()


def test_a_block_that_was_deleted_is_gone(cluster: Cluster) -> None:
    origin, reader = (BlockProgram(cluster, host) for host in cluster.hosts[:2])
    block = origin.ask("put", 5, 1000)
    origin.ask("delete", block)
    assert reader.ask("check", block, 5, 1000) == "gone"
    origin.end()
    reader.end()


def test_a_block_is_deleted_from_any_node(cluster: Cluster) -> None:
    """Its copies elsewhere are nobody's, and go when room is short."""
    origin, reader = (BlockProgram(cluster, host) for host in cluster.hosts[:2])
    block = origin.ask("put", 5, 1000, 2 * MB)
    assert reader.ask("check", block, 5, 1000, 2 * MB) == "right"
    reader.ask("delete", block)
    assert origin.ask("stats")["objects"] == 0
    for program in (reader, origin):
        program.ask("let_go")
        assert program.ask("check", block, 5, 1000, 2 * MB) == "gone"
        program.end()


def test_a_block_of_a_lost_node_is_gone_at_once(cluster: Cluster) -> None:
    second, third = cluster.hosts[1:]
    origin, reader = BlockProgram(cluster, third), BlockProgram(cluster, second)
    block = origin.ask("put", 5, 1000)
    origin.end()
    cluster.kill(third)
    assert reader.ask("check", block, 5, 1000) == "gone"
    reader.end()


def test_a_block_of_a_node_that_is_cut_off_is_gone_when_that_is_known(
    cluster: Cluster,
) -> None:
    second, third = cluster.hosts[1:]
    origin, reader = BlockProgram(cluster, third), BlockProgram(cluster, second)
    block, other = origin.ask("put", 5, 1000), origin.ask("put", 6, 1000)
    assert reader.ask("check", other, 6, 1000) == "right"  # There is a connection.
    third.cut()
    assert reader.ask("check", block, 5, 1000) == "gone"
    assert reader.ask("check", other, 6, 1000) == "right"
    third.heal()
    cluster.await_members(*cluster.hosts)
    await_that(lambda: reader.ask("check", block, 5, 1000) == "right")
    origin.end()
    reader.end()


def test_a_killed_worker_is_asked_again(cluster: Cluster) -> None:
    """Its child is forked again with all that it had."""
    origin, reader = (BlockProgram(cluster, host) for host in cluster.hosts[1:])
    first, second = origin.ask("put", 5, 1000), origin.ask("put", 6, 3 * MB)
    assert reader.ask("check", first, 5, 1000) == "right"
    os.kill(cluster.child(cluster.hosts[1]), signal.SIGKILL)
    assert reader.ask("check", second, 6, 3 * MB) == "right"
    origin.end()
    reader.end()


def test_a_worker_that_was_killed_loses_nothing_before_it_knows_its_cluster(
    cluster: Cluster,
) -> None:
    """It cannot say that a block is gone while the metastore does not answer."""
    second, third = cluster.hosts[1:]
    origin, reader = BlockProgram(cluster, third), BlockProgram(cluster, second)
    block = origin.ask("put", 5, 1000)
    metastore = cluster.child(cluster.head)
    os.kill(metastore, signal.SIGSTOP)
    try:
        os.kill(cluster.child(second), signal.SIGKILL)
        reader.tell("check", block, 5, 1000)
        time.sleep(1.0)  # It asks its worker meanwhile.
    finally:
        os.kill(metastore, signal.SIGCONT)
    assert reader.hear() == "right"
    origin.end()
    reader.end()


def test_a_killed_head_still_finds_what_is_elsewhere(cluster: Cluster) -> None:
    origin = BlockProgram(cluster, cluster.hosts[1])
    reader = BlockProgram(cluster, cluster.head)
    first, second = origin.ask("put", 5, 1000), origin.ask("put", 6, 3 * MB)
    os.kill(cluster.child(cluster.head), signal.SIGKILL)
    assert reader.ask("check", first, 5, 1000) == "right"
    assert reader.ask("check", second, 6, 3 * MB) == "right"
    reader.ask("delete", first)
    assert origin.ask("check", first, 5, 1000) == "gone"
    origin.end()
    reader.end()
