"""A Ray cluster whose nodes are hosts of a test's own (hosts.py)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from hosts import Host

PORT = 6379
_START_S = 90
_END_S = 20.0
_SMALL = ["--num-cpus=16", "--object-store-memory=80000000"]  # Logical CPUs.
_QUIET = ["--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]


class RayHosts:
    """One Ray node on each host; the first is the head. Owner: who made it.

    Each has the resource "node:ADDRESS", as the guide starts them. `environment` is
    what a user's program on one of the hosts needs in order to find the cluster.
    """

    def __init__(
        self,
        hosts: list[Host],
        environment: Mapping[str, str],
        programs: Path = Path(sys.executable).parent,
    ) -> None:
        self._programs = programs
        self.hosts: list[Host] = []
        self.folder = Path(
            f"/tmp/tq-ray-{uuid.uuid4().hex[:8]}"
        )  # Ray's sockets: short.
        self.folder.mkdir(mode=0o700)
        self.environment = {
            "RAY_TMPDIR": str(self.folder),
            "RAY_ADDRESS": f"{hosts[0].address}:{PORT}",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._own_environment = {**environment, **self.environment}
        self._own_environment.pop("RAY_ADDRESS")
        self._nodes: list[subprocess.Popen[bytes]] = []
        try:
            for host in hosts:
                self.start(host)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Every node, the head last."""
        for node in reversed(self._nodes):
            node.send_signal(signal.SIGTERM)
        for node in self._nodes:
            try:
                node.wait(_END_S)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)

    def start(self, host: Host) -> None:
        """A node of this cluster on `host`; its address is that of the way to the
        world, so there is one."""
        host.namespace.run("ip", "route", "replace", "default", "dev", "eth0")
        words = [*host.within, str(self._programs / "ray"), "start"]
        if not self.hosts:
            words += ["--head", f"--port={PORT}", "--include-dashboard=false"]
        else:
            words += [f"--address={self.environment['RAY_ADDRESS']}"]
        words += ["--block", f"--node-ip-address={host.address}", *_SMALL, *_QUIET]
        words += [f'--resources={{"node:{host.address}": 1}}']
        log = self.folder / f"host{host.number}.log"
        own = self.folder / f"host{host.number}"  # As on a machine of its own.
        own.mkdir()
        with log.open("wb") as sink:
            node = subprocess.Popen(
                words,
                env=self._own_environment,
                cwd=own,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        self._nodes.append(node)
        self.hosts.append(host)
        end = time.monotonic() + _START_S
        while "Ray runtime started" not in log.read_text():
            if node.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no Ray on {host.address}: {log.read_text()}")
            time.sleep(0.1)
