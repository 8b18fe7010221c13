"""What one node has goes to many: from its source twice, else from node to node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import NEEDS_HOSTS, Cluster, KeyProgram
from e2e import Site
from hosts import Host, Network

MB = 1 << 20
BYTES = 24 * MB

pytestmark = NEEDS_HOSTS


@pytest.fixture(name="nine")
def _nine(site: Site) -> Iterator[Cluster]:
    """Nine nodes, all of them members."""
    network = Network(9)
    cluster = Cluster(site, network.hosts)
    try:
        for host in network.hosts:
            cluster.start(host, "--node_timeout_s", "2")
        cluster.await_members(*network.hosts)
        yield cluster
        for host in network.hosts:
            cluster.stop(host, "--discard")
    finally:
        network.end()


def sent_by(cluster: Cluster, host: Host) -> int:
    return int(cluster.stats(host)["bytes_fetched_total"])


def test_eight_nodes_get_what_their_source_sends_twice(nine: Cluster) -> None:
    source, *readers = [KeyProgram(nine, host) for host in nine.hosts]
    for seed in range(3):
        before = sent_by(nine, nine.head)
        assert source.ask("put", "weights", seed, BYTES) == "done"
        for program in readers:
            program.tell("check", "weights", seed, BYTES)
        assert [program.hear() for program in readers] == ["right"] * 8
        assert sent_by(nine, nine.head) - before == 2 * BYTES
    sent = [sent_by(nine, host) for host in nine.hosts]
    assert sum(sent) == 3 * 8 * BYTES
    assert max(sent) <= 3 * 2 * BYTES
    for program in (source, *readers):
        program.end()


def test_a_node_that_ends_between_is_done_without(nine: Cluster) -> None:
    source, *readers = [KeyProgram(nine, host) for host in nine.hosts]
    assert source.ask("put", "weights", 1, BYTES) == "done"
    for program in readers[:3]:
        assert program.ask("check", "weights", 1, BYTES) == "right"
    nine.kill(nine.hosts[1])  # The source sent it the first copy.
    for program in readers[3:]:
        program.tell("check", "weights", 1, BYTES, 20_000)
    assert [program.hear() for program in readers[3:]] == ["right"] * 5
    for program in (source, *readers):
        program.end()
    nine.start(nine.hosts[1], "--node_timeout_s", "2")
