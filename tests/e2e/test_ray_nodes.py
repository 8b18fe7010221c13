"""A queue in a Ray cluster of two nodes: a worker on each, one controller for both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import NEEDS_HOSTS
from e2e import MARK, Done, Site, expect_line, finish, pids_of, tell
from hosts import Host, Network
from ray_hosts import RayHosts

EXAMPLE = Path(__file__).parents[2] / "examples" / "multi_node.py"
LARGE_MB = 24
RAY_MARK = "ray-hosts"

pytestmark = NEEDS_HOSTS

# A stage on each node puts rows that the other one reads; then they change places.
STAGES = """
import ray
tq.init(conf())

@ray.remote(num_cpus=0)
class Stage:
    def __init__(self, conf):
        tq.init(conf)

    def node(self):
        return ray.get_runtime_context().get_node_id()

    def put(self, name, mb):
        value = torch.arange(mb << 17).reshape(mb, -1) + len(name)
        fields = TensorDict({"x": value}, batch_size=[mb])
        tq.kv_batch_put([f"{name}{i}" for i in range(mb)], "p", fields)

    def check(self, name, mb):
        got = tq.kv_batch_get([f"{name}{i}" for i in range(mb)], "p")["x"]
        wanted = torch.arange(mb << 17).reshape(mb, -1) + len(name)
        return all(torch.equal(*pair) for pair in zip(got.unbind(), wanted.unbind()))

def on(address):
    return Stage.options(resources={f"node:{address}": 0.001}).remote(conf())

stages = [on("192.168.0.1"), on("192.168.0.2")]
assert len(set(ray.get([stage.node.remote() for stage in stages]))) == 2

def exchange(name, mb):
    for i, stage in enumerate(stages):
        ray.get(stage.put.remote(f"{name}{i}-", mb))
        for other in stages:
            assert ray.get(other.check.remote(f"{name}{i}-", mb)), (name, i)
"""


@pytest.fixture(scope="module")
def ray_hosts(network: Network) -> Iterator[RayHosts]:
    hosts = network.hosts[:2]
    cluster = RayHosts(hosts, {**os.environ, MARK: RAY_MARK})
    yield cluster
    cluster.end()


@pytest.fixture
def in_ray(site: Site, ray_hosts: RayHosts) -> Site:
    site.environment.update(ray_hosts.environment)
    return site


def run_on(site: Site, host: Host, code: str) -> Done:
    return finish(site.start(code, within=host.within), 120)


def daemons(program: str = "") -> list[int]:
    """What Ray's processes on both hosts have started."""
    names = [program] if program else ["datasystem_worker", "transfer_queue_controller"]
    return [pid for name in names for pid in pids_of(name, RAY_MARK)]


def children(program: str) -> list[int]:
    """Without their supervisors, of which each is the parent of one."""
    pids = daemons(program)
    return [pid for pid in pids if parent_of(pid) in pids]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_the_guides_multi_node_demo(in_ray: Site, ray_hosts: RayHosts) -> None:
    """Word for word, with tensors of the host where there is no NPU."""
    host = ray_hosts.hosts[0]
    done = in_ray.command(*host.within, sys.executable, str(EXAMPLE), timeout_s=120)
    assert done.code == 0, done.err
    assert "output: TensorDict(batch_size=[3], fields={input: f32[" in done.out
    assert "[get] Data get completed" in done.out
    assert daemons() == []


def test_rows_go_both_ways(in_ray: Site, ray_hosts: RayHosts) -> None:
    """The owner is not on Ray's head: the node that it is on has the metastore."""
    code = STAGES + f"exchange('small', 2); exchange('large', {LARGE_MB}); tq.close()"
    done = run_on(in_ray, ray_hosts.hosts[1], code)
    assert done.code == 0, done.err
    assert daemons() == []


def test_killed_processes_of_both_nodes_are_not_noticed(
    in_ray: Site, ray_hosts: RayHosts
) -> None:
    code = STAGES + (
        """
say("ready")
for round in range(3):
    wait_for_line()
    exchange(f"{round}-", 8)
    say("exchanged")
tq.close()
"""
    )
    process = in_ray.start(code, within=ray_hosts.hosts[0].within)
    expect_line(process, "ready")
    for killed in (
        *children("datasystem_worker"),
        *children("transfer_queue_controller"),
    ):
        os.kill(killed, signal.SIGKILL)
        tell(process)
        expect_line(process, "exchanged")
    done = finish(process, 60)
    assert done.code == 0, done.err
    assert daemons() == []


def test_a_node_where_no_worker_starts_is_named(
    in_ray: Site, ray_hosts: RayHosts
) -> None:
    """And nothing is left on the others."""
    host = ray_hosts.hosts[1]
    port = in_ray.worker_port
    code = (
        f"import socket, sys; s = socket.create_server(('{host.address}', {port}));"
        "print('taken', flush=True); sys.stdin.readline()"
    )
    taker = subprocess.Popen(
        [*host.within, sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert taker.stdout is not None and taker.stdout.readline() == "taken\n"
    done = run_on(in_ray, ray_hosts.hosts[0], "tq.init(conf())")
    taker.communicate("\n")
    assert done.code != 0
    assert f"Failed to start datasystem worker at {host.address}:{port}" in done.err
    assert str(taker.pid) in done.err
    assert daemons() == []
