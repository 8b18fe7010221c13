"""The fixture that compares the machine before and after every end-to-end test."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import ClockedCluster, Cluster, await_that
from e2e import MARK, Machine, RayCluster, Site, free_port
from hosts import Network

_SETTLE_S = 5.0  # Processes that were told to end may take so long.


@contextlib.contextmanager
def _ray_cluster(factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """One node on a port, in a folder and with a token of its own."""
    folder = Path(f"/tmp/tq-ray-{uuid.uuid4().hex[:8]}")  # Short: Ray's sockets.
    folder.mkdir(mode=0o700)
    cluster = RayCluster(folder, f"127.0.0.1:{free_port()}")
    cluster.token.write_text(secrets.token_hex(32))
    environment = {
        **os.environ,
        **cluster.environment,
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        MARK: cluster.mark,
    }
    ray = str(Path(sys.executable).parent / "ray")
    start = [ray, "start", "--head", f"--port={cluster.port}", "--num-cpus=4"]
    start += ["--include-dashboard=false", "--disable-usage-stats"]
    start += ["--min-worker-port=0", "--max-worker-port=0"]
    log = factory.mktemp("ray") / "log"
    with log.open("w") as sink:
        subprocess.run(
            start, env=environment, stdout=sink, stderr=sink, check=True, timeout=90
        )
    yield cluster
    Site(factory.mktemp("cluster"), environment[MARK]).end()
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A Ray cluster of one node."""
    with _ray_cluster(tmp_path_factory) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def other_ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Another one on the same host."""
    with _ray_cluster(tmp_path_factory) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Three hosts; tests that cut one off heal it."""
    network = Network(3)
    yield network
    network.end()


@pytest.fixture(autouse=True)
def nothing_is_left(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Whatever the test starts carries a mark; the machine is compared around it."""
    cluster: RayCluster | None = None
    if "other_ray_cluster" in request.fixturenames:
        request.getfixturevalue("other_ray_cluster")  # Up before the first look.
    if "ray_cluster" in request.fixturenames:
        cluster = request.getfixturevalue("ray_cluster")
    mark = uuid.uuid4().hex
    before = Machine.look(mark, cluster)
    monkeypatch.setenv(MARK, mark)
    yield mark
    monkeypatch.delenv(MARK)
    end = time.monotonic() + _SETTLE_S
    while added := Machine.look(mark, cluster).added_since(before):
        if time.monotonic() >= end:
            break
        time.sleep(0.1)
    assert added == {}, "the test left something behind"


def _three_workers(cluster: Cluster) -> Iterator[Cluster]:
    for host in cluster.hosts:
        host.heal()
        cluster.start(host, "--node_timeout_s", "2")
    for host in cluster.hosts:
        await_that(lambda host=host: "worker members=3" in cluster.log(host))
    yield cluster
    for host in reversed(cluster.hosts):
        host.heal()
        cluster.dscli(
            host, "stop", "--discard", "--worker_address", cluster.address(host)
        )


@pytest.fixture
def cluster(network: Network, site: Site) -> Iterator[Cluster]:
    """Three workers that know each other, with arenas of 64 MiB, and short leases."""
    yield from _three_workers(Cluster(site, network.hosts))


@pytest.fixture
def clocked(network: Network, site: Site) -> Iterator[Cluster]:
    """The same, each with a wall clock of its own. What libfaketime leaves of processes
    that were killed is removed."""
    memory = Path("/dev/shm")
    before = set(memory.glob("*faketime*"))
    yield from _three_workers(ClockedCluster(site, network.hosts))
    for path in set(memory.glob("*faketime*")) - before:
        path.unlink(missing_ok=True)


@pytest.fixture
def site(tmp_path: Path, nothing_is_left: str) -> Iterator[Site]:
    """Ports, folders and programs of the test's own."""
    own = Site(tmp_path, nothing_is_left)
    yield own
    leftovers = sorted(path.name for path in own.runtime.iterdir())
    running = own.end()
    assert running == [], "the test left processes running"
    assert leftovers == [], "the test left files of a session behind"
