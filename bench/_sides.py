"""The sides of a benchmark: each a driver subprocess with the daemon it needs."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / ".venv" / "bin"
PEERS = ROOT / ".venv-peers" / "bin"
ARENA_MB = 2048


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop_process(process: subprocess.Popen[Any]) -> None:
    """SIGTERM, and SIGKILL after ten seconds."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def worker_status(
    address: str, programs: Path = OURS, within: Sequence[str] = ()
) -> dict[str, Any]:
    """What our worker says of itself; `within` is a command that runs another."""
    command = [*within, str(programs / "dscli"), "status", "--json"]
    command += ["--worker_address", address]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def has_populated(status: dict[str, Any]) -> bool:
    """Whether it has touched all its memory."""
    return bool(status["memory_populated_bytes"] == status["memory_total_bytes"])


class Daemon:
    """What a side needs beside its driver. Owner: the side."""

    environment: dict[str, str]

    def __init__(self) -> None:
        self.environment = {}

    def is_populated(self) -> bool:
        """Whether it has touched all its memory, as far as it tells."""
        return True

    def stop(self) -> None:
        """Leaves nothing behind."""


class DscliDaemon(Daemon):
    """A worker started by dscli: ours or the peer's, by the folder of its programs."""

    def __init__(self, programs: Path, folder: Path) -> None:
        super().__init__()
        self._programs = programs
        self._folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        command = [
            str(programs / "dscli"),
            "start",
            "-d",
            str(folder),
            "-w",
            "--worker_address",
            self.address,
            "--metastore_address",
            f"127.0.0.1:{free_port()}",
            "--start_metastore_service",
            "true",
            "--arena_per_tenant",
            "1",
            "--shared_memory_size_mb",
            str(ARENA_MB),
        ]
        begin = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=120
        )
        self.start_seconds = time.perf_counter() - begin
        if done.returncode != 0:
            raise RuntimeError(f"dscli start failed:\n{done.stdout}{done.stderr}")
        self.environment["BENCH_WORKER"] = self.address

    def status(self) -> dict[str, Any]:
        """What our worker says of itself; the peer's has no such command."""
        return worker_status(self.address, self._programs)

    def is_populated(self) -> bool:
        if self._programs != OURS:
            return True
        return has_populated(self.status())

    def supervisor_pid(self) -> int:
        """Of our worker; the process that serves is its child."""
        return int(self.status()["pid"])

    def stop(self) -> None:
        subprocess.run(
            [str(self._programs / "dscli"), "stop", "--worker_address", self.address],
            cwd=self._folder,  # Where the peer's writes a log.
            capture_output=True,
            timeout=200,
        )


class RedisDaemon(Daemon):
    """redis-server on a Unix socket, without persistence."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        path = folder / "redis.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", str(path)]
        command += ["--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
        wait_until(path.exists)
        self.environment["BENCH_REDIS"] = str(path)

    def stop(self) -> None:
        stop_process(self._process)


class MooncakeDaemon(Daemon):
    """mooncake_master."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        port = free_port()
        command = [str(PEERS / "mooncake_master"), f"--rpc_port={port}"]
        command += [f"--metrics_port={free_port()}", "--rpc_address=127.0.0.1"]
        command += [
            "--default_kv_lease_ttl=50"
        ]  # ms; what was read can be deleted then.
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        wait_until(lambda: answers(port) or self._process.poll() is not None)
        if self._process.poll() is not None:
            raise RuntimeError(f"mooncake_master ended with {self._process.poll()}")
        self.environment["BENCH_MOONCAKE"] = f"127.0.0.1:{port}"

    def stop(self) -> None:
        stop_process(self._process)


class RayTemp(Daemon):
    """A private temp folder for the Ray that the driver starts itself."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.environment.update(ray_token())
        self.environment["BENCH_RAY_TEMP"] = str(folder)


class WorkerPorts(Daemon):
    """Where tq.init() shall start its worker."""

    def __init__(self) -> None:
        super().__init__()
        self.environment["BENCH_WORKER_PORT"] = str(free_port())
        self.environment["BENCH_METASTORE_PORT"] = str(free_port())


class RayCluster(Daemon):
    """`ray start --head` on a port and in a folder of its own."""

    def __init__(self, programs: Path, folder: Path) -> None:
        super().__init__()
        self._programs = programs
        port = free_port()
        command = [str(programs / "ray"), "start", "--head", "--port", str(port)]
        command += ["--num-cpus", "16", "--temp-dir", str(folder)]
        command += ["--include-dashboard", "false", "--disable-usage-stats"]
        command += ["--node-ip-address", "127.0.0.1", "--block"]
        self.environment.update(ray_token())
        environment = {**os.environ, **self.environment}
        environment["PATH"] = f"{programs}:{os.environ['PATH']}"
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        wait_until(lambda: answers(port), seconds=60)
        time.sleep(3)
        self.environment["RAY_ADDRESS"] = f"127.0.0.1:{port}"

    def stop(self) -> None:
        stop_process(self._process)


def ray_token() -> dict[str, str]:
    """Nobody else reaches the cluster, and no token is written to the home folder."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def children_of(pid: int) -> list[int]:
    """Processes that this one has forked and that live."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def answers(port: int) -> bool:
    """Somebody listens on 127.0.0.1:port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Any, seconds: float = 30, every: float = 0.05) -> None:
    """Polls for at most `seconds`, all so many."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("a daemon of the benchmark did not come up")
        time.sleep(every)


class Side:
    """A driver subprocess and its daemons. Use as a context manager."""

    def __init__(self, name: str, python: Path, script: str, *arguments: str) -> None:
        self.name = name
        self._python = python
        self._script = script
        self._arguments = arguments
        self._daemons: list[Daemon] = []
        self.within: Sequence[str] = ()  # A command that runs another.
        self.environment: Mapping[str, str] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="tqbench-")
        self.folder = Path(self._folder.name)
        self.hello: dict[str, Any] = {}
        self.goodbye: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None

    def add(self, daemon: Daemon) -> None:
        """Owned from now on."""
        self._daemons.append(daemon)

    def start(self) -> None:
        """Starts the driver and waits until it is ready."""
        environment = {**os.environ, **self.environment}
        environment["PATH"] = f"{self._python.parent}:{environment['PATH']}"
        for daemon in self._daemons:
            environment.update(daemon.environment)
        log = (self.folder / "driver.log").open("w")
        self._process = subprocess.Popen(
            [
                *self.within,
                str(self._python),
                str(ROOT / "bench" / self._script),
                *self._arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            cwd=self.folder,
        )
        self.hello = self.receive()

    def wait_until_populated(self) -> None:
        """At most two minutes: a helper does it at a tenth of a core."""
        for daemon in self._daemons:
            wait_until(daemon.is_populated, seconds=120, every=2)

    def receive(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        log = (self.folder / "driver.log").read_text()[-2000:]
        raise RuntimeError(f"{self.name}: driver ended\n{log}")

    def send(self, request: dict[str, Any]) -> None:
        """One request, whose answer is received later."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request, its answer."""
        self.send(request)
        return self.receive()

    def stop(self) -> None:
        """Driver first, then what it needs."""
        if self._process is not None and self._process.poll() is None:
            assert self._process.stdin is not None
            try:
                self._process.stdin.write('{"quit": true}\n')
                self._process.stdin.close()
                self._process.wait(30)
            except (OSError, subprocess.TimeoutExpired):
                stop_process(self._process)
        for daemon in reversed(self._daemons):
            daemon.stop()
        self._folder.cleanup()
