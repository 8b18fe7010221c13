"""A queue in a Ray cluster of two nodes: a worker on each, one controller for both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import NEEDS_HOSTS, NO_KEY, NOT_AUTHORIZED, ask_as_stranger
from e2e import MARK, Done, Site, expect_line, finish, pids_of, tell
from hosts import Host, Network
from ray_hosts import RayHosts

EXAMPLE = Path(__file__).parents[2] / "examples" / "multi_node.py"
LARGE_MB = 24
RAY_MARK = f"ray-hosts-{uuid.uuid4().hex}"  # What Ray's processes there carry.

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
def ray_hosts(
    network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RayHosts]:
    hosts = network.hosts[:2]
    cluster = RayHosts(hosts, {**os.environ, MARK: RAY_MARK})
    yield cluster
    cluster.end()
    Site(tmp_path_factory.mktemp("ray-hosts"), RAY_MARK).end()


@pytest.fixture
def in_ray(site: Site, ray_hosts: RayHosts) -> Site:
    site.environment.update(ray_hosts.environment)
    return site


def start_on(site: Site, host: Host, code: str) -> subprocess.Popen[str]:
    """As on a machine of its own: Ray keeps a node's address in a file that all hosts
    of the test see."""
    init = f"import ray\nray.init('auto', _node_ip_address='{host.address}')\n"
    return site.start(init + textwrap.dedent(code), within=host.within)


def run_on(site: Site, host: Host, code: str) -> Done:
    return finish(start_on(site, host, code), 120)


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
    assert "output: " in done.out  # Ray's own lines may come between the two.
    assert "TensorDict(batch_size=[3], fields={input: f32[" in done.out
    assert "[get] Data get completed" in done.out
    assert daemons() == []


def test_rows_go_both_ways(in_ray: Site, ray_hosts: RayHosts) -> None:
    """The owner is not on Ray's head: the node that it is on has the metastore."""
    code = STAGES + f"exchange('small', 2); exchange('large', {LARGE_MB}); tq.close()"
    done = run_on(in_ray, ray_hosts.hosts[1], code)
    assert done.code == 0, done.err
    assert daemons() == []


def test_nodes_encrypt_where_it_is_asked_for(in_ray: Site, ray_hosts: RayHosts) -> None:
    """Who attaches needs not say so."""
    begin = STAGES.replace("conf()", "conf(encrypt_connections=True)", 1)
    code = begin + "exchange('small', 2); say('done'); wait_for_line(); tq.close()"
    process = start_on(in_ray, ray_hosts.hosts[0], code)
    expect_line(process, "done")
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in daemons()]
    assert len(commands) == 6  # Two workers and a controller, with supervisors.
    assert all(b"encrypt_connections" in command for command in commands)
    tell(process)
    assert finish(process).code == 0
    assert daemons() == []


def test_who_is_not_in_the_ray_cluster_gets_nothing(
    in_ray: Site, ray_hosts: RayHosts, network: Network
) -> None:
    """All ports ask for a key, which Ray carries and nothing else shows."""
    host, stranger = ray_hosts.hosts[0], network.hosts[2]
    code = """
        import ray
        tq.init(conf())
        actor = ray.get_actor("TransferQueueController", "transfer_queue")
        say(ray.get(actor.get_tcp_address.remote()).rpartition(":")[2])
        say(tq.interface._TQ_CONTROLLER.secret.decode())
        wait_for_line()
        tq.close()
    """
    process = start_on(in_ray, host, code)
    assert process.stdout is not None
    controller_port, secret = (process.stdout.readline().strip() for _ in range(2))
    for port in (in_ray.worker_port, in_ray.metastore_port, int(controller_port)):
        for status, text in ask_as_stranger(in_ray, stranger, host.address, port):
            assert (status, NO_KEY in text) == (NOT_AUTHORIZED, True)
    assert len(secret) == 64
    for pid in daemons():
        for name in ("cmdline", "environ"):
            assert secret.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    files = [
        path
        for folder in Path("/tmp").glob("transfer_queue-*-ray-*")
        for path in folder.rglob("*")
        if path.is_file()
    ]
    assert any(path.name == "controller.log" for path in files)
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    tell(process)
    assert finish(process).code == 0


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
    process = start_on(in_ray, ray_hosts.hosts[0], code)
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


LATE = """
tq.init(conf())
tq.kv_batch_put(["late"], "p", TensorDict({"x": torch.ones(1, 7)}, batch_size=[1]))
assert tq.kv_batch_get(["early"], "p")["x"].sum() == 300_000
tq.close()
say("done")
"""


def test_a_node_that_comes_later_gets_a_worker(
    in_ray: Site, ray_hosts: RayHosts, network: Network
) -> None:
    """From the first who uses the queue there. The node stays for the next test."""
    owner = start_on(
        in_ray,
        ray_hosts.hosts[0],
        """
        tq.init(conf())
        fields = TensorDict({"x": torch.ones(1, 300_000)}, batch_size=[1])
        tq.kv_batch_put(["early"], "p", fields)
        say("ready")
        wait_for_line()
        assert tq.kv_batch_get(["late"], "p")["x"].sum() == 7
        tq.close()
        say("closed")
        """,
    )
    expect_line(owner, "ready")
    late = network.hosts[2]
    ray_hosts.start(late)
    for _ in range(2):  # The second finds the worker there.
        done = run_on(in_ray, late, LATE)
        assert done.code == 0, done.err
        assert len(daemons("datasystem_worker")) == 6
    tell(owner)
    expect_line(owner, "closed")
    assert daemons() == []
    done = finish(owner)
    assert done.code == 0, done.err


TAKE = """
import socket, sys
taken = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("taken", flush=True)
sys.stdin.readline()
"""


def test_all_nodes_where_no_worker_starts_are_named(
    in_ray: Site, ray_hosts: RayHosts
) -> None:
    """And nothing is left on the others."""
    port = str(in_ray.worker_port)
    takers = []
    for host in ray_hosts.hosts[1:]:
        words = [sys.executable, "-c", TAKE, host.address, port]
        takers.append(in_ray.start_command(*host.within, *words))
        expect_line(takers[-1], "taken")
    done = run_on(in_ray, ray_hosts.hosts[0], "tq.init(conf())")
    assert done.code != 0
    for host, taker in zip(ray_hosts.hosts[1:], takers, strict=True):
        text = f"Failed to start datasystem worker at {host.address}:{port}"
        assert text in done.err
        assert f"{taker.pid} (python" in done.err
        tell(taker)
        finish(taker)
    assert daemons() == []
