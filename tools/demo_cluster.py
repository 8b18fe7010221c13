#!/usr/bin/env python3
"""make demo-cluster: what the guide does on several nodes, on hosts of its own.

The hosts are network namespaces of this machine (tests/support/hosts.py), which needs
root; they and all that runs in them are gone at the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from hosts import Host, Network, why_impossible  # noqa: E402
from ray_hosts import RayHosts  # noqa: E402

PYTHON = sys.executable
LIMIT_S = 300

ROWS = """
import sys, torch
import transfer_queue as tq
from tensordict import TensorDict

role, host = sys.argv[1:]
controller = {"host": host, "port": 31600}  # The first process starts it there;
if role == "other":
    controller = {"address": f"{host}:31600"}  # those on other nodes are told where.
tq.init({"controller": controller, "backend": {"Yuanrong": {"auto_init": False}}})
if role == "first":
    data = TensorDict({"input": torch.ones(3, 512)}, batch_size=[3])
    tq.kv_batch_put(keys=["s0", "s1", "s2"], partition_id="train", fields=data)
    print("put", flush=True)
    sys.stdin.readline()
else:
    print("got", tq.kv_batch_get(keys=["s0", "s1", "s2"], partition_id="train"))
tq.close()
"""


def title(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def run(host: Host, environment: dict[str, str], *words: str) -> None:
    subprocess.run(
        [*host.within, *words], env=environment, cwd=ROOT, check=True, timeout=LIMIT_S
    )


def on_ray(network: Network) -> None:
    cluster = RayHosts(network.hosts, dict(os.environ))
    try:
        environment = {**os.environ, **cluster.environment}
        title("the guide's multi-node demo, on a Ray cluster of three nodes")
        run(network.hosts[0], environment, PYTHON, "examples/multi_node.py")
        title("the text pipeline, its stages on three nodes")
        pipeline = [PYTHON, "examples/text_pipeline.py", "--spread"]
        run(network.hosts[0], environment, *pipeline)
    finally:
        cluster.end()


def dscli(host: Host, *words: str) -> None:
    print(f"{host.address}$ dscli {' '.join(words)}", flush=True)
    run(host, dict(os.environ), PYTHON, "-m", "yr.datasystem.cli", *words)


def start_by_hand(network: Network, folder: Path) -> None:
    head = network.hosts[0].address
    for host in network.hosts:
        words = ["-w", "--worker_address", f"{host.address}:31501"]
        words += ["--metastore_address", f"{head}:2379"]
        if host.address == head:
            words += ["--start_metastore_service", "true"]
        words += ["--arena_per_tenant", "1", "--enable_worker_worker_batch_get", "true"]
        home = folder / f"host{host.number}"
        dscli(host, "start", "-d", str(home), *words, "--shared_memory_size_mb", "512")


def use_what_was_started(network: Network, folder: Path) -> None:
    first, *others = network.hosts
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    owner = subprocess.Popen(
        [*first.within, PYTHON, "-c", ROWS, "first", first.address],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert owner.stdout is not None
        if owner.stdout.readline() != "put\n":
            raise RuntimeError(f"nothing was put on {first.address}")
        print(f"{first.address}: put", flush=True)
        for host in others:
            print(f"{host.address}: ", end="", flush=True)
            run(host, environment, PYTHON, "-c", ROWS, "other", first.address)
    finally:
        owner.communicate("\n", timeout=LIMIT_S)


def by_hand(network: Network, folder: Path) -> None:
    title("the guide's manual start, on three nodes")
    head = network.hosts[0].address
    try:
        start_by_hand(network, folder)
        dscli(network.hosts[0], "status")
        use_what_was_started(network, folder)
    finally:
        for host in reversed(network.hosts):
            dscli(
                host, "stop", "--discard", "--worker_address", f"{host.address}:31501"
            )
    print(f"the head {head} was stopped last: it has the metastore")


def main() -> int:
    missing = why_impossible()
    if missing is not None:
        print(f"make demo-cluster: {missing}", file=sys.stderr)
        return 1
    for name in ("RAY_ADDRESS", "TQ_CONTROLLER_ADDRESS", "TQ_SESSION"):
        os.environ.pop(name, None)
    folder = Path(tempfile.mkdtemp(prefix="tq-demo."))
    network = Network(3)
    try:
        on_ray(network)
        by_hand(network, folder)
    finally:
        network.end()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
