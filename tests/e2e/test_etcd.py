"""Where an etcd decides which worker has the metastore, any worker may be lost."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator

import pytest
from cluster import NEEDS_HOSTS, Cluster, KeyProgram, QueueProgram, await_that
from e2e import Site
from etcd import Etcd, etcd_program
from hosts import Host, Network

LEASE = ("--node_timeout_s", "2")
ETCD_LEASE_S = 5
BEGAN_ANEW = "worker was no member for a while"

pytestmark = [
    NEEDS_HOSTS,
    pytest.mark.skipif(etcd_program() is None, reason="there is no etcd here"),
]


@pytest.fixture
def etcd(network: Network, site: Site) -> Iterator[Etcd]:
    """On the third host."""
    for host in network.hosts:
        host.heal()
    host = network.hosts[2]
    server = Etcd(
        site.start_command, host.within, site.folder / "etcd", f"{host.address}:2379"
    )
    yield server
    server.kill()


@pytest.fixture
def cluster(network: Network, site: Site, etcd: Etcd) -> Iterator[Cluster]:
    """Three workers; the first was elected, as it was alone."""
    cluster = Cluster(site, network.hosts, etcd.address)
    for host in network.hosts:
        cluster.start(host, *LEASE)
    for host in network.hosts:
        await_that(lambda host=host: "worker members=3" in cluster.log(host))
    yield cluster
    for host in reversed(network.hosts):
        host.heal()
        cluster.dscli(host, "stop", "--worker_address", cluster.address(host))


def epoch_of(cluster: Cluster, host: Host) -> int:
    epoch = cluster.query(host).get("topology_version", 0)
    assert isinstance(epoch, int)
    return epoch


def await_members(cluster: Cluster, asked: Host, *hosts: Host) -> None:
    wanted = sorted(cluster.address(host) for host in hosts)

    def are_members() -> bool:
        nodes = cluster.query(asked).get("nodes", [])
        return sorted(node["worker_address"] for node in nodes) == wanted

    await_that(are_members)


def count(cluster: Cluster, host: Host, line: str) -> int:
    return cluster.log(host).count(line)


def test_three_workers_are_one_cluster(cluster: Cluster) -> None:
    for host in cluster.hosts:
        document = cluster.query(host)
        assert document["status"] == "OK", document
        addresses = {node["worker_address"] for node in document["nodes"]}
        assert addresses == {cluster.address(host) for host in cluster.hosts}
    assert [count(cluster, host, "has the metastore") for host in cluster.hosts] == [
        *(1, 0, 0)
    ]
    first, second = (KeyProgram(cluster, host) for host in cluster.hosts[:2])
    assert first.ask("put", "k", 1, 2000) == "done"
    assert second.ask("check", "k", 1, 2000) == "right"
    first.end()
    second.end()


@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_the_metastore_goes_on_at_another_worker(cluster: Cluster, how: str) -> None:
    head, second, third = cluster.hosts
    epoch = epoch_of(cluster, third)
    program = KeyProgram(cluster, second)
    assert program.ask("put", "before", 1, 2000) == "done"
    if how == "killed":
        cluster.kill(head)
    else:
        head.cut()
    await_members(cluster, third, second, third)
    assert epoch_of(cluster, third) > epoch
    await_that(lambda: program.ask("put", "after", 2, 2000) == "done")
    assert program.ask("check", "after", 2, 2000) == "right"
    program.end()
    for host in (second, third):  # They have belonged without a gap.
        assert BEGAN_ANEW not in cluster.log(host)
    if how == "cut off":
        head.heal()
        await_members(cluster, third, *cluster.hosts)
        assert count(cluster, head, "has the metastore no more") == 1
    else:
        cluster.start(head, *LEASE)
        await_members(cluster, third, *cluster.hosts)


def test_a_queue_survives_the_node_of_its_controller_and_the_metastore(
    cluster: Cluster,
) -> None:
    """With a head of its own the loss of that node ends both."""
    head, second, third = cluster.hosts
    programs = [
        QueueProgram(cluster, host, owner=head, timeout_s=60) for host in cluster.hosts
    ]
    cluster.await_copies(head, 2)
    keys = [f"k{number}" for number in range(20)]
    assert programs[1].ask("put", keys, 3, 100) is None
    for pid in cluster.controllers():
        os.kill(pid, signal.SIGKILL)
    cluster.kill(head)
    programs[0].kill()
    assert programs[2].ask("versions", keys, 100) == [3] * 20
    assert programs[2].ask("put", ["after"], 4, 100) is None
    assert programs[1].ask("versions", ["after"], 100) == [4]
    await_members(cluster, second, second, third)
    for program in programs[1:]:
        program.end()


def test_who_is_told_to_stop_hands_the_metastore_over(cluster: Cluster) -> None:
    head, second, third = cluster.hosts
    cluster.stop(head)
    await_members(cluster, third, second, third)
    logs = cluster.log(second) + cluster.log(third)
    assert logs.count("worker has the metastore epoch") == 1
    assert BEGAN_ANEW not in logs


def test_a_child_that_was_killed_takes_it_again(cluster: Cluster) -> None:
    head = cluster.head
    os.kill(cluster.child(head), signal.SIGKILL)
    await_that(lambda: count(cluster, head, "worker has the metastore epoch") == 2)
    await_members(cluster, cluster.hosts[2], *cluster.hosts)


def test_a_restarted_etcd_is_not_noticed(cluster: Cluster, etcd: Etcd) -> None:
    head, second, _ = cluster.hosts
    epoch = epoch_of(cluster, second)
    etcd.kill()
    etcd.start()
    time.sleep(ETCD_LEASE_S + 1)
    await_members(cluster, second, *cluster.hosts)
    assert epoch_of(cluster, second) == epoch
    assert count(cluster, head, "has the metastore no more") == 0


def test_an_etcd_that_comes_back_late_finds_all_members(
    cluster: Cluster, etcd: Etcd
) -> None:
    """Meanwhile nobody has the metastore, and users' keys wait."""
    head, second, _ = cluster.hosts
    program = KeyProgram(cluster, second)
    assert program.ask("put", "k", 1, 2000) == "done"
    etcd.kill()
    await_that(lambda: "has the metastore no more" in cluster.log(head))
    etcd.start()
    await_members(cluster, second, *cluster.hosts)
    await_that(lambda: program.ask("check", "k", 1, 2000) == "right")
    program.end()
    for host in cluster.hosts:
        assert BEGAN_ANEW not in cluster.log(host)


def test_a_stopped_process_does_not_go_on_as_if_nothing_had_been(
    cluster: Cluster,
) -> None:
    head, second, third = cluster.hosts
    child = cluster.child(head)
    os.kill(child, signal.SIGSTOP)
    try:
        await_members(cluster, third, second, third)
    finally:
        os.kill(child, signal.SIGCONT)
    await_members(cluster, third, *cluster.hosts)
    assert count(cluster, head, "has the metastore no more") == 1


def test_all_workers_lost_at_once_begin_anew_with_a_later_epoch(
    cluster: Cluster,
) -> None:
    epoch = epoch_of(cluster, cluster.head)
    for host in cluster.hosts:
        cluster.kill(host)
    for host in cluster.hosts:
        cluster.start(host, *LEASE)
    await_members(cluster, cluster.head, *cluster.hosts)
    assert epoch_of(cluster, cluster.head) > epoch


def test_an_etcd_that_is_away_at_start_is_named(network: Network, site: Site) -> None:
    host = network.hosts[0]
    host.heal()
    cluster = Cluster(site, network.hosts, f"{host.address}:2379")
    done = cluster.try_start(host, timeout_s=3)
    assert done.code != 0
    assert f"etcd at {host.address}:2379" in done.out + done.err
    document = cluster.query(host)
    assert document["status"] == "RPC unavailable"
    assert f"etcd at {host.address}:2379" in document["error"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_tls_and_a_password(network: Network, site: Site) -> None:
    """The certificate is for another name than the address."""
    host, second = network.hosts[:2]
    key, certificate = site.folder / "etcd.key", site.folder / "etcd.crt"
    done = site.command(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=etcd.example", "-addext", "subjectAltName=DNS:etcd.example"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    assert done.code == 0, done.err
    for each in (host, second):
        each.heal()
    address = f"{host.address}:2379"
    folder = site.folder / "etcd"
    server = Etcd(site.start_command, host.within, folder, address, (certificate, key))
    server.ask_for_password("me", "se cret")
    cluster = Cluster(site, network.hosts, address)
    tls = ("--etcd_ca", str(certificate))
    named = (*tls, "--etcd_target_name_override", "etcd.example")
    user = ("--etcd_username", "me", "--etcd_password", "se cret")
    for flags, reason in (
        ((*tls, *user), "SSL"),
        (named, "user name is empty"),
        ((*named, *user[:3], "wrong"), "invalid user ID or password"),
    ):
        done = cluster.try_start(host, *LEASE, *flags, timeout_s=3)
        assert done.code != 0
        assert reason in done.out + done.err
    for each in (host, second):
        cluster.start(each, *LEASE, *named, *user)
    await_that(lambda: "worker members=2" in cluster.log(second))
    cluster.stop(second)
    cluster.stop(host)
    server.kill()


def test_a_key_that_somebody_removed_is_noticed(cluster: Cluster, etcd: Etcd) -> None:
    """The lease of whoever had it lives on, and yet another may be elected."""
    head, _, third = cluster.hosts
    key = base64.b64encode(b"/datasystem/").decode()
    etcd.post("kv/deleterange", key=key, range_end="AA==")
    await_that(lambda: "has the metastore no more" in cluster.log(head))
    await_members(cluster, third, *cluster.hosts)
    for host in cluster.hosts:
        assert BEGAN_ANEW not in cluster.log(host)


def test_two_clusters_share_an_etcd(network: Network, site: Site, etcd: Etcd) -> None:
    cluster = Cluster(site, network.hosts, etcd.address)
    first, second = network.hosts[:2]
    cluster.start(first, *LEASE, "--cluster_name", "blue")
    cluster.start(second, *LEASE, "--cluster_name", "green")
    for host, name in ((first, "blue"), (second, "green")):
        words = ("--etcd_address", etcd.address, "--cluster_name", name)
        document = json.loads(cluster.dscli(host, "query", "cluster", *words).out)
        assert [node["worker_address"] for node in document["nodes"]] == [
            cluster.address(host)
        ]
    assert cluster.query(first)["status"] == "Key not found"  # Has no name.
    cluster.stop(first)
    cluster.stop(second)
