"""Workers on several hosts find together, and notice who is gone."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest
from cluster import (
    METASTORE_PORT,
    NEEDS_HOSTS,
    WORKER_PORT,
    Cluster,
    KeyProgram,
    await_that,
)
from e2e import Site
from hosts import Host, Network

LEASE_S = 2
LEASE = ("--node_timeout_s", str(LEASE_S))

pytestmark = NEEDS_HOSTS


@pytest.fixture
def cluster(network: Network, site: Site) -> Iterator[Cluster]:
    """Three workers that know each other."""
    for host in network.hosts:
        host.heal()
    cluster = Cluster(site, network.hosts)
    for host in network.hosts:
        cluster.start(host, *LEASE)
    yield cluster
    for host in reversed(network.hosts):
        host.heal()
        cluster.dscli(
            host, "stop", "--discard", "--worker_address", cluster.address(host)
        )


def epoch_of(cluster: Cluster) -> int:
    epoch = cluster.query(cluster.head).get("topology_version", 0)
    assert isinstance(epoch, int)
    return epoch


def test_workers_of_three_hosts_are_one_cluster(cluster: Cluster) -> None:
    head, second, third = cluster.hosts
    document = cluster.query(third)  # From any host.
    assert document["status"] == "OK"
    addresses = {node["worker_address"] for node in document["nodes"]}
    assert addresses == {cluster.address(host) for host in cluster.hosts}
    for host in cluster.hosts:
        await_that(lambda host=host: "worker members=3" in cluster.log(host))
    keys = [f"key-{i}" for i in range(60)]
    route = ("query", "route", "--metastore_address", cluster.metastore, "--keys")
    first = cluster.dscli(head, *route, *keys)
    assert first.code == 0, first.out
    assert first.out == cluster.dscli(second, *route, *keys).out
    assert all(cluster.address(host) in first.out for host in cluster.hosts)


def test_who_is_stopped_has_left(cluster: Cluster) -> None:
    head, second, third = cluster.hosts
    cluster.stop(second)
    assert cluster.members() == sorted(map(cluster.address, (head, third)))
    cluster.start(second, *LEASE)
    assert len(cluster.members()) == 3


def test_who_is_killed_is_gone_and_may_come_back(cluster: Cluster) -> None:
    head, second, third = cluster.hosts
    cluster.kill(third)
    cluster.await_members(head, second)
    await_that(lambda: "worker members=2" in cluster.log(second))
    cluster.start(third, *LEASE)
    cluster.await_members(*cluster.hosts)


def test_a_killed_child_stays_a_member(cluster: Cluster) -> None:
    """It is another process of the same member: one epoch more, and not two."""
    before = epoch_of(cluster)
    third = cluster.hosts[2]
    os.kill(cluster.child(third), signal.SIGKILL)
    time.sleep(2 * LEASE_S)
    assert epoch_of(cluster) == before + 1
    assert len(cluster.members()) == 3


def test_who_is_cut_off_is_gone_and_comes_back_when_healed(cluster: Cluster) -> None:
    head, second, third = cluster.hosts
    third.cut()
    cluster.await_members(head, second)
    third.heal()
    cluster.await_members(*cluster.hosts)


def test_who_is_stopped_in_its_tracks_comes_back(cluster: Cluster) -> None:
    head, second, third = cluster.hosts
    pids = (cluster.supervisor(third), cluster.child(third))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    cluster.await_members(head, second)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    cluster.await_members(*cluster.hosts)


def test_a_killed_metastore_forgets_nobody(cluster: Cluster) -> None:
    """Its child is forked again, and tells nobody of fewer members meanwhile."""
    before = epoch_of(cluster)
    os.kill(cluster.child(cluster.head), signal.SIGKILL)
    await_that(lambda: epoch_of(cluster) > before)
    assert len(cluster.members()) == 3
    for host in cluster.hosts[1:]:
        assert "worker members=1 " not in cluster.log(host)
        joined = cluster.log(host).partition("worker members=3")[2]
        assert "worker members=2" not in joined


def test_a_lost_head_is_replaced_and_epochs_go_on(cluster: Cluster) -> None:
    """The others keep what they know; a new head learns it from them."""
    head, second, third = cluster.hosts
    before = epoch_of(cluster)
    cluster.kill(head)
    time.sleep(LEASE_S)
    (cluster.home(head) / "metastore.epoch").unlink()  # Another machine has none.
    cluster.start(head, *LEASE)
    cluster.await_members(*cluster.hosts)
    assert epoch_of(cluster) > before
    for host in (second, third):
        joined = cluster.log(host).partition("worker members=3")[2]
        assert "members=1" not in joined


def test_where_a_worker_listens_may_differ_from_where_it_is_reached(
    cluster: Cluster,
) -> None:
    other, again = cluster.hosts[1:]
    cluster.stop(again, "--discard")
    cluster.start(again, "--bind_address", f"0.0.0.0:{WORKER_PORT}")
    cluster.await_members(*cluster.hosts)
    writer, reader = KeyProgram(cluster, again), KeyProgram(cluster, other)
    assert writer.ask("put", "key", 1, 1000) == "done"
    assert reader.ask("check", "key", 1, 1000) == "right"
    inside = f"127.0.0.1:{WORKER_PORT}"
    words = ("status", "--worker_address", inside, "--json")
    stats = json.loads(cluster.dscli(again, *words).out)
    assert stats["worker_address"] == cluster.address(again)
    assert cluster.dscli(other, *words).code != 0  # The others listen there only.
    writer.end()
    reader.end()


class ClusterV6(Cluster):
    """Whose workers are known by IPv6 addresses."""

    def address(self, host: Host) -> str:
        return f"[{host.address_v6}]:{WORKER_PORT}"

    @property
    def metastore(self) -> str:
        return f"[{self.head.address_v6}]:{METASTORE_PORT}"


def test_workers_find_together_by_ipv6(network: Network, site: Site) -> None:
    for host in network.hosts:
        host.heal()
    cluster = ClusterV6(site, network.hosts)
    for host in network.hosts:
        cluster.start(host)
    cluster.await_members(*network.hosts)
    programs = [KeyProgram(cluster, host, host.address_v6) for host in network.hosts]
    for seed, writer in enumerate(programs):
        assert writer.ask("put", "key", seed, 3 << 20) == "done"
        for reader in programs:
            assert reader.ask("check", "key", seed, 3 << 20) == "right"
    for program in programs:
        program.end()
    for host in reversed(network.hosts):
        cluster.stop(host, "--discard")


def test_a_worker_of_another_cluster_is_refused(
    network: Network, cluster: Cluster
) -> None:
    third = cluster.hosts[2]
    cluster.stop(third)
    done = cluster.try_start(third, "--cluster_name", "blue", timeout_s=3)
    assert done.code == 1
    assert "--cluster_name" in done.out + done.err
    assert "blue" in done.out + done.err


def test_a_metastore_that_is_not_there_is_named(network: Network, site: Site) -> None:
    cluster = Cluster(site, network.hosts)
    done = cluster.try_start(network.hosts[1], timeout_s=2)
    assert done.code == 1
    assert cluster.metastore in done.out + done.err
    assert "metastore away" in done.out + done.err
