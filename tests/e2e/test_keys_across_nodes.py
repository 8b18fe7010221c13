"""A user's key that was set on one node is the same on all."""

from __future__ import annotations

import os
import signal
import time

import pytest
from cluster import NEEDS_HOSTS, Cluster, KeyProgram, await_that

MB = 1 << 20
KEYS = 60  # Enough for each of three nodes to own some.

pytestmark = NEEDS_HOSTS


def programs_of(cluster: Cluster) -> list[KeyProgram]:
    return [KeyProgram(cluster, host) for host in cluster.hosts]


def end(programs: list[KeyProgram]) -> None:
    for program in programs:
        program.end()


@pytest.mark.parametrize("size", [1, 1000, MB + 1, 20 * MB])
def test_a_key_is_read_on_every_node(cluster: Cluster, size: int) -> None:
    programs = programs_of(cluster)
    for i, program in enumerate(programs):
        assert program.ask("put", f"key{i}", i, size) == "done"
    for program in programs:
        for i in range(len(programs)):
            assert program.ask("check", f"key{i}", i, size) == "right"
    end(programs)


def test_many_keys_are_read_at_once(cluster: Cluster) -> None:
    programs = programs_of(cluster)
    for i, program in enumerate(programs):
        assert program.ask("put_many", f"k{i}.", 1000, 700) == "[]"
    for program in programs:
        for i in range(len(programs)):
            assert program.ask("check_many", f"k{i}.", 1000, 700) == "right"
    end(programs)


def test_who_overwrites_is_read_everywhere_at_once(cluster: Cluster) -> None:
    programs = programs_of(cluster)
    for seed in range(KEYS):
        writer = programs[seed % 3]
        assert writer.ask("put", "key", seed, 500 + seed) == "done"
        for program in programs:
            assert program.ask("check", "key", seed, 500 + seed) == "right"
    end(programs)


def test_keys_are_overwritten_by_other_nodes(cluster: Cluster) -> None:
    programs = programs_of(cluster)
    for i in range(3):
        assert programs[i].ask("put_many", "key", KEYS, 100 + i) == "[]"
        for program in programs:
            assert program.ask("check_many", "key", KEYS, 100 + i) == "right"
    own = [program.ask("own_count") for program in programs]
    assert own == [0, 0, KEYS]  # Nothing of what they were before is left.
    end(programs)


def test_keys_are_deleted_by_any_node(cluster: Cluster) -> None:
    programs = programs_of(cluster)
    assert programs[0].ask("put_many", "key", KEYS, 100) == "[]"
    keys = [f"key{i}" for i in range(KEYS)]
    for program in programs:
        assert program.ask("exists", *keys) == [True] * KEYS
    assert programs[1].ask("delete", *keys[: KEYS // 2]) == "[]"
    left = [False] * (KEYS // 2) + [True] * (KEYS - KEYS // 2)
    for program in programs:
        assert program.ask("exists", *keys) == left
        assert "Cannot get" in program.ask("check", "key0", 0, 100)
    assert programs[2].ask("put", "key0", 9, 200) == "done"
    for program in programs:
        assert program.ask("check", "key0", 9, 200) == "right"
    end(programs)


def test_an_existing_key_keeps_its_value(cluster: Cluster) -> None:
    programs = programs_of(cluster)
    for i in range(KEYS):
        first, second = programs[i % 3], programs[(i + 1) % 3]
        assert first.ask("put_if_absent", f"key{i}", 1, 100) == "[]"
        assert second.ask("put_if_absent", f"key{i}", 2, 200) == "[]"
        for program in programs:
            assert program.ask("check", f"key{i}", 1, 100) == "right"
    end(programs)


def test_who_waits_for_a_key_hears_of_it_from_any_node(cluster: Cluster) -> None:
    programs = programs_of(cluster)
    for i in range(6):
        waiters = [program for program in programs if program is not programs[i % 3]]
        for program in waiters:
            program.tell("check", f"key{i}", i, 1000, 20_000)
        time.sleep(0.1)
        assert programs[i % 3].ask("put", f"key{i}", i, 1000) == "done"
        assert [program.hear() for program in waiters] == ["right"] * 2
    end(programs)


def test_who_waits_for_keys_of_several_nodes_gets_all(cluster: Cluster) -> None:
    programs = programs_of(cluster)
    wanted = [[f"key{i}", i, 100] for i in range(9)]
    programs[0].tell("check_all", wanted, 20_000)
    for key, seed, size in wanted:
        assert programs[1 + seed % 2].ask("put", key, seed, size) == "done"
    assert programs[0].hear() == "right"
    end(programs)


def test_who_waits_in_vain_hears_so_in_time(cluster: Cluster) -> None:
    programs = programs_of(cluster)
    for i in range(6):
        begin = time.monotonic()
        assert "Cannot get" in programs[0].ask("check", f"none{i}", 0, 1, 200)
        assert time.monotonic() - begin < 10
    end(programs)


def test_a_key_expires_on_every_node(cluster: Cluster) -> None:
    programs = programs_of(cluster)
    keys = [f"key{i}" for i in range(6)]
    for i, key in enumerate(keys):
        assert (
            programs[i % 3].ask("put", key, i, 100, *([1] if i < 3 else [])) == "done"
        )
        assert programs[(i + 1) % 3].ask("check", key, i, 100) == "right"
    for i, key in enumerate(keys[3:]):
        assert programs[(i + 2) % 3].ask("expire", key, 1) == "[]"
    for program in programs:
        await_that(lambda program=program: not any(program.ask("exists", *keys)))
    end(programs)


# ---- Nodes come, go, and are killed ----


def test_keys_stay_when_workers_are_killed(cluster: Cluster) -> None:
    """A child that is forked again has its objects, and hears what others have."""
    programs = programs_of(cluster)
    for i, program in enumerate(programs):
        assert program.ask("put_many", f"k{i}.", KEYS, 100 + i) == "[]"
    for host in cluster.hosts:
        os.kill(cluster.child(host), signal.SIGKILL)
        for program in programs:
            for i in range(3):
                assert program.ask("check_many", f"k{i}.", KEYS, 100 + i) == "right"
    for i, program in enumerate(programs):
        assert program.ask("put_many", f"k{(i + 1) % 3}.", KEYS, 900 + i) == "[]"
    for program in programs:
        for i in range(3):
            assert (
                program.ask("check_many", f"k{(i + 1) % 3}.", KEYS, 900 + i) == "right"
            )
    end(programs)


def test_keys_are_found_while_nodes_come_and_go(cluster: Cluster) -> None:
    third = cluster.hosts[2]
    programs = programs_of(cluster)
    for i, program in enumerate(programs[:2]):
        assert program.ask("put_many", f"k{i}.", KEYS, 100) == "[]"
    programs.pop().end()
    for _ in range(2):
        cluster.stop(third)
        for program in programs:
            for i in range(2):
                assert program.ask("check_many", f"k{i}.", KEYS, 100) == "right"
        cluster.start(third)
        for program in programs:
            for i in range(2):
                assert program.ask("check_many", f"k{i}.", KEYS, 100) == "right"
        newcomer = KeyProgram(cluster, third)
        for i in range(2):
            assert newcomer.ask("check_many", f"k{i}.", KEYS, 100) == "right"
        newcomer.end()
    end(programs)


def test_the_keys_of_a_lost_node_are_named(cluster: Cluster) -> None:
    programs = programs_of(cluster)
    lost = programs.pop()
    keys = [f"key{i}" for i in range(KEYS)]
    assert lost.ask("put_many", "key", KEYS, 100) == "[]"
    assert programs[0].ask("check", "key7", 7, 100) == "right"
    lost.end()
    cluster.kill(cluster.hosts[2])
    cluster.await_members(*cluster.hosts[:2])
    said = [programs[1].ask("check", key, 0, 100) for key in keys]
    assert any("is no member of the cluster any more" in text for text in said), said
    assert all("right" not in text for text in said)
    assert programs[1].ask("put_many", "key", KEYS, 200) == "[]"
    assert programs[0].ask("check_many", "key", KEYS, 200) == "right"
    end(programs)


def test_a_node_that_was_cut_off_lets_go_of_what_changed(cluster: Cluster) -> None:
    programs = programs_of(cluster)
    away = cluster.hosts[2]
    assert programs[2].ask("put_many", "key", KEYS, 100) == "[]"
    away.cut()
    cluster.await_members(*cluster.hosts[:2])
    assert programs[0].ask("put_many", "key", KEYS // 2, 200) == "[]"
    away.heal()
    cluster.await_members(*cluster.hosts)
    changed = [[f"key{i}", i, 200] for i in range(KEYS // 2)]
    kept = [[f"key{i}", i, 100] for i in range(KEYS // 2, KEYS)]
    for program in programs:
        await_that(
            lambda program=program: program.ask("check_all", changed + kept) == "right"
        )
    end(programs)


def test_a_node_that_is_cut_off_serves_nothing_that_was_changed(
    cluster: Cluster,
) -> None:
    """Whoever changes its keys waits until it has stopped, and it stops by itself."""
    programs = programs_of(cluster)
    away = cluster.hosts[2]
    assert programs[2].ask("put_many", "key", 6, 100) == "[]"
    assert programs[2].ask("check_many", "key", 6, 100) == "right"
    away.cut()
    for i in range(6):
        programs[0].tell("put", f"key{i}", i, 200)
        assert programs[0].hear() == "done"
        programs[2].tell("check", f"key{i}", i, 200)
        if i == 0:
            time.sleep(1)  # It asks whoever owns the key, in vain.
            away.heal()
        assert programs[2].hear() == "right"
    end(programs)
