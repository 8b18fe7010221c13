"""Who has the cluster's key gets in over TCP; who has not hears why, and nothing else.

Processes of the same user on the worker's own host need none: the kernel says who they
are. So whatever shall be refused comes from another host here.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import (
    NEEDS_HOSTS,
    NO_KEY,
    NOT_AUTHORIZED,
    BlockProgram,
    Cluster,
    QueueProgram,
    ask_as_stranger,
    await_that,
)
from e2e import Done, Site
from hosts import Host, Network

KEY_FILE = "DATASYSTEM_AUTH_KEY_FILE"
OTHER_KEY = "the key is another one than here"

USE_KV = """
from yr.datasystem import KVClient
client = KVClient("{host}", {port})
client.init()
client.set("k", b"value")
assert client.get(["k"]) == [b"value"]
"""


def make_key(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text(secrets.token_hex(32) + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path, "key")


@pytest.fixture
def other_key(tmp_path: Path) -> Path:
    return make_key(tmp_path, "other_key")


@pytest.fixture
def worker(site: Site, key: Path) -> Iterator[str]:
    """On this host."""
    done = start_worker(site, "--auth_key_file", str(key))
    assert done.code == 0, done.out + done.err
    yield site.worker_address
    stop_worker(site)


def start_worker(site: Site, *flags: str) -> Done:
    words = ["start", "-d", str(site.folder / "home"), "-w"]
    words += ["--worker_address", site.worker_address, "--start_metastore_service"]
    words += ["true", "--metastore_address", f"127.0.0.1:{site.metastore_port}"]
    return dscli(site, *words, "--shared_memory_size_mb", "64", *flags)


def stop_worker(site: Site) -> None:
    done = dscli(site, "stop", "--worker_address", site.worker_address)
    assert done.code == 0, done.out + done.err


def dscli(site: Site, *words: str) -> Done:
    return site.command(sys.executable, "-m", "yr.datasystem.cli", *words)


# ---- On one host ---------------------------------------------------------------------


def test_processes_of_our_user_on_the_same_host_need_no_key(
    site: Site, worker: str
) -> None:
    code = USE_KV.format(host="127.0.0.1", port=site.worker_port)
    done = site.run(code)
    assert done.code == 0, done.err
    status = dscli(site, "status", "--worker_address", worker)
    assert status.code == 0, status.out + status.err


def test_who_offers_a_key_has_to_have_the_right_one(
    site: Site, worker: str, key: Path, other_key: Path
) -> None:
    code = USE_KV.format(host="127.0.0.1", port=site.worker_port)
    done = site.run(code, environment={KEY_FILE: str(key)})
    assert done.code == 0, done.err
    done = site.run(code, environment={KEY_FILE: str(other_key)})
    assert done.code != 0
    assert f"the worker at {worker} refuses us: its key is not ours" in done.err
    assert "code: [Not authorized]" in done.err


def test_a_worker_without_a_key_refuses_one(site: Site, key: Path) -> None:
    assert start_worker(site).code == 0
    code = USE_KV.format(host="127.0.0.1", port=site.worker_port)
    done = site.run(code, environment={KEY_FILE: str(key)})
    stop_worker(site)
    assert done.code != 0
    assert "a key was offered, and there is none here" in done.err
    assert "--auth_key_file" in done.err


def test_a_bad_key_file_is_named(site: Site, key: Path) -> None:
    key.chmod(0o644)
    for path, why in ((key, "chmod 600"), (key.parent / "none", "No such file")):
        done = start_worker(site, "--auth_key_file", str(path))
        assert done.code == 1
        assert str(path) in done.out + done.err
        assert why in done.out + done.err
    code = USE_KV.format(host="127.0.0.1", port=site.worker_port)
    done = site.run(code, environment={KEY_FILE: str(key)})
    assert "is open to others (mode 644): run 'chmod 600" in done.err


# ---- Several hosts -------------------------------------------------------------------


@pytest.fixture
def locked_cluster(network: Network, site: Site, key: Path) -> Iterator[Cluster]:
    """Two workers with the same key on two of three hosts."""
    cluster = Cluster(site, network.hosts)
    started = network.hosts[:2]
    for host in network.hosts:
        host.heal()
    for host in started:
        cluster.start(host, "--auth_key_file", str(key))
    for host in started:
        await_that(lambda host=host: "worker members=2" in cluster.log(host))
    yield cluster
    for host in reversed(started):
        cluster.dscli(
            host, "stop", "--discard", "--worker_address", cluster.address(host)
        )


def refused_lines(cluster: Cluster, host: Host) -> list[str]:
    lines = cluster.log(cluster.head).splitlines()
    return [
        line for line in lines if f"connection refused peer={host.address}:" in line
    ]


def run_on(cluster: Cluster, host: Host, code: str) -> Done:
    words = (*host.within, sys.executable, "-c", code)
    return cluster.site.command(*words)


def from_outside(cluster: Cluster, port: int) -> list[tuple[int, str]]:
    """What the head's port answers to the third host before any proof."""
    return ask_as_stranger(cluster.site, cluster.hosts[2], cluster.head.address, port)


@NEEDS_HOSTS
def test_workers_with_one_key_are_a_cluster(
    locked_cluster: Cluster, key: Path, other_key: Path
) -> None:
    cluster = locked_cluster
    head, second, third = cluster.hosts
    block = BlockProgram(cluster, head).ask("put", 1, 5 << 20)
    assert BlockProgram(cluster, second).ask("check", block, 1, 5 << 20) == "right"

    # The third host is nobody's: not as a worker without the key or with another one,
    for flags, why in (
        ((), NO_KEY),
        (("--auth_key_file", str(other_key)), "the key of the other side is not ours"),
    ):
        done = cluster.try_start(third, *flags, timeout_s=2)
        assert done.code == 1
        assert why in done.out + done.err
    assert cluster.members() == sorted(map(cluster.address, (head, second)))
    assert any(NO_KEY in line for line in refused_lines(cluster, third))

    # nor as a client, whatever it says first, at either port.
    for port in (31501, 2379):
        for status, text in from_outside(cluster, port):
            assert (status, NO_KEY in text) == (NOT_AUTHORIZED, True)
    before = len(refused_lines(cluster, third))
    use = USE_KV.format(host=head.address, port=31501)
    done = run_on(cluster, third, use)
    assert f"the worker at {cluster.address(head)} refuses us: {NO_KEY}" in done.err
    assert len(refused_lines(cluster, third)) == before + 1
    done = cluster.dscli(third, "status", "--worker_address", cluster.address(head))
    assert NO_KEY in done.out + done.err

    # With the key it is in.
    cluster.site.environment[KEY_FILE] = str(key)
    done = run_on(cluster, third, use)
    assert done.code == 0, done.err
    assert len(cluster.query(third)["nodes"]) == 2
    cluster.start(third)
    cluster.await_members(*cluster.hosts)
    cluster.stop(third)


@NEEDS_HOSTS
def test_a_queue_with_a_key_answers_who_has_it(
    locked_cluster: Cluster, key: Path
) -> None:
    cluster = locked_cluster
    head, second, third = cluster.hosts
    cluster.site.environment[KEY_FILE] = str(key)
    owner = QueueProgram(cluster, head)
    attached = QueueProgram(cluster, second)
    attached.ask("put", ["a", "b"], 7, 1000)
    assert owner.ask("versions", ["a", "b"], 1000) == [7, 7]

    del cluster.site.environment[KEY_FILE]
    connect = f"""
from yr.datasystem import QueueConnection
QueueConnection("{head.address}:31600", 5000)
"""
    done = run_on(cluster, third, connect)
    where = f"{head.address}:31600"
    assert f"the controller at {where} refuses us: {NO_KEY}" in done.err
    assert all(NO_KEY in text for _, text in from_outside(cluster, 31600))
    attached.ask("close")
    attached.end()
    owner.ask("close")
    owner.end()


@NEEDS_HOSTS
def test_without_a_key_a_port_for_other_hosts_is_warned_about_once(
    network: Network, site: Site, key: Path
) -> None:
    host = network.hosts[0]
    cluster = Cluster(site, [host])
    warning = f"worker has no key: whoever reaches {cluster.address(host)}"
    cluster.start(host)
    child = cluster.child(host)
    subprocess.run(["kill", "-9", str(child)], check=True)
    await_that(lambda: cluster.log(host).count("worker ready") == 2)
    assert cluster.log(host).count(warning) == 1
    cluster.stop(host)
    cluster.start(host, "--auth_key_file", str(key))
    assert cluster.log(host).count(warning) == 1
    cluster.stop(host)
