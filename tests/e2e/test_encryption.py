"""What passes between hosts is encrypted where the workers are told so."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cluster import (
    NEEDS_HOSTS,
    WORKER_PORT,
    BlockProgram,
    Cluster,
    KeyProgram,
    Program,
    QueueProgram,
    await_that,
)
from e2e import Done, Site
from hosts import Network

pytestmark = NEEDS_HOSTS

KEY_FILE = "DATASYSTEM_AUTH_KEY_FILE"
ENCRYPT = ("--encrypt_connections", "true")
BY_TCP_ONLY = ("--ipc_through_shared_memory", "false")
DAMAGED = "encrypted bytes were damaged"
KNOWN = b"nobody on the path shall see that"

# Offsets in what either end says: what it wants, and in its first record.
WANTED_AT, RECORD_AT = 56, 123

SET_KNOWN = f"""
from yr.datasystem import KVClient
client = KVClient("{{host}}", {{port}}, connect_timeout_ms=3000, req_timeout_ms=3000)
client.init()
client.set("known", {KNOWN!r} * 100)
assert client.get(["known"]) == [{KNOWN!r} * 100]
"""


@pytest.fixture
def key(tmp_path: Path, site: Site) -> Path:
    """That all programs of the test know."""
    path = tmp_path / "key"
    path.write_text(secrets.token_hex(32) + "\n")
    path.chmod(0o600)
    site.environment[KEY_FILE] = str(path)
    return path


@contextlib.contextmanager
def workers(count: int, network: Network, site: Site, *flags: str) -> Iterator[Cluster]:
    """On so many of three hosts."""
    cluster = Cluster(site, network.hosts)
    started = network.hosts[:count]
    for host in network.hosts:
        host.heal()
    for host in started:
        cluster.start(host, *flags)
    known = f"worker members={count}"
    for host in started:
        await_that(lambda host=host: known in cluster.log(host))
    yield cluster
    for host in reversed(started):
        cluster.dscli(host, "stop", "--worker_address", cluster.address(host))


def run_on_third(cluster: Cluster, code: str) -> Done:
    words = (*cluster.hosts[2].within, sys.executable, "-c", code)
    return cluster.site.command(*words)


def row_of_queue(key: str, version: int, items: int) -> bytes:
    """As in node_program.py."""
    seed = np.uint32(zlib.crc32(f"{key} {version}".encode()))
    return (np.arange(items, dtype=np.uint32) * np.uint32(2654435761) + seed).tobytes()


# Without encryption all of it is seen: the one who looks is able to see.
@pytest.mark.parametrize("encrypts", [True, False])
def test_all_works_and_nothing_known_is_seen_on_the_path(
    network: Network, site: Site, key: Path, encrypts: bool
) -> None:
    if encrypts:
        site.environment["TQ_ENCRYPT_CONNECTIONS"] = "true"
    with workers(2, network, site, *(ENCRYPT if encrypts else ())) as cluster:
        head, second, _ = cluster.hosts
        sniffer = Program(cluster, second, "sniffer.py", "eth0")

        # Blocks, also larger than what the sockets hold.
        block = BlockProgram(cluster, head).ask("put", 1, 20 << 20, 1, 70_000)
        reader = BlockProgram(cluster, second)
        assert reader.ask("check", block, 1, 20 << 20, 1, 70_000) == "right"

        # Keys; each host reads what the other one has set.
        here, there = KeyProgram(cluster, head), KeyProgram(cluster, second)
        for i, (writer, other) in enumerate(((here, there), (there, here))):
            for size in (1, 3000, 5 << 20):
                name = f"key{i}.{size}"
                assert writer.ask("put", name, i, size) == "done"
                assert other.ask("check", name, i, size) == "right"
        assert here.ask("put_many", "many", 300, 700) == "[]"
        assert there.ask("check_many", "many", 300, 700) == "right"
        done = cluster.site.command(
            *(*head.within, sys.executable, "-c"),
            SET_KNOWN.format(host=head.address, port=WORKER_PORT),
        )
        assert done.code == 0, done.err
        assert "is nowhere" not in there.ask("fingerprint", "known")

        # A queue, whose rows are put on one host and read on the other.
        owner = QueueProgram(cluster, head)
        attached = QueueProgram(cluster, second)
        attached.ask("put", ["a", "b"], 7, 10_000)
        assert owner.ask("versions", ["a", "b"], 10_000) == [7, 7]

        row = row_of_queue("a", 7, 10_000)
        rows = [row[at : at + 64].hex() for at in range(0, len(row), 10_000)]
        assert sniffer.ask("bytes_seen") > 30 << 20
        assert sniffer.ask("seen", KNOWN.hex()) is not encrypts
        assert any(sniffer.ask("seen", part) for part in rows) is not encrypts
        assert sniffer.ask("seen", b"known".hex()) is not encrypts  # Names neither.
        attached.ask("close")
        attached.end()
        owner.ask("close")
        owner.end()


def test_who_changes_a_byte_on_the_path_is_noticed(
    network: Network, site: Site, key: Path
) -> None:
    with workers(2, network, site, *ENCRYPT, *BY_TCP_ONLY) as cluster:
        head, second, _ = cluster.hosts
        words = (second.address, "4711", head.address, str(WORKER_PORT))
        relay = Program(cluster, second, "relay.py", *words)
        use = SET_KNOWN.format(host=second.address, port=4711)
        assert run_on_third(cluster, use).code == 0

        relay.ask("change", "back", RECORD_AT, 0x40)
        done = run_on_third(cluster, use)
        assert done.code != 0
        assert DAMAGED in done.err

        assert cluster.log(head).count(DAMAGED) == 0
        relay.ask("change", "there", RECORD_AT, 0x40)
        assert run_on_third(cluster, use).code != 0
        lines = [line for line in cluster.log(head).splitlines() if DAMAGED in line]
        assert lines
        assert all("worker connection closed reason=" in line for line in lines)

        # Nobody is talked out of encryption.
        for way, bits in (("there", 2), ("back", 1)):
            relay.ask("change", way, WANTED_AT, bits)
            done = run_on_third(cluster, use)
            assert done.code != 0
            assert "code: [Not authorized]" in done.err
        relay.ask("leave_alone")
        assert run_on_third(cluster, use).code == 0


def test_a_queue_that_goes_on_at_another_node_is_still_encrypted(
    network: Network, site: Site, key: Path
) -> None:
    site.environment["TQ_ENCRYPT_CONNECTIONS"] = "true"
    with workers(3, network, site, *ENCRYPT, "--node_timeout_s", "2") as cluster:
        _, second, third = cluster.hosts
        owner = QueueProgram(cluster, second, owner=second, timeout_s=40)
        reader = QueueProgram(cluster, third, owner=second, timeout_s=40)
        cluster.await_copies(second, 2)
        assert reader.ask("put", ["a"], 7, 1000) is None
        for pid in cluster.controllers():
            os.kill(pid, signal.SIGKILL)
        cluster.kill(second)
        owner.kill()
        assert reader.ask("versions", ["a"], 1000) == [7]
        command = Path(f"/proc/{cluster.controllers()[0]}/cmdline").read_bytes()
        assert b"--encrypt_connections" in command.split(b"\0")
        owner.end_if_alive()
        reader.end_if_alive()


@pytest.mark.parametrize("encrypts", [True, False])
def test_workers_with_mixed_settings_refuse_each_other(
    network: Network, site: Site, key: Path, encrypts: bool
) -> None:
    ours, theirs = (ENCRYPT, ()) if encrypts else ((), ENCRYPT)
    with workers(2, network, site, *ours) as cluster:
        head, _, third = cluster.hosts
        done = cluster.try_start(third, *theirs, timeout_s=2)
        assert done.code == 1
        assert "--encrypt_connections" in done.out + done.err
        refused = f"connection refused peer={third.address}:"
        assert any(
            refused in line and "--encrypt_connections" in line
            for line in cluster.log(head).splitlines()
        )
        assert len(cluster.members()) == 2


def test_there_is_no_encryption_without_a_key(network: Network, site: Site) -> None:
    cluster = Cluster(site, network.hosts)
    done = cluster.try_start(cluster.head, *ENCRYPT)
    assert done.code == 1
    assert "--encrypt_connections true needs a key" in done.out + done.err
