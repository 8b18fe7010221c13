"""A datasystem_worker of its own for a test: started, waited for, stopped by pid."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_PROGRAM = "datasystem_worker"
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 15.0
_POLL_S = 0.02
_PORT_TRIES = 100


class WorkerProcess:
    """Owner: the test that started it, which also stops it."""

    def __init__(
        self, home: Path, *extra_flags: str, shared_memory_size_mb: int = 256
    ) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self.home = home
        self._ready = home / "ready"
        self._flags = [
            f"--worker_address={self.host}:{self.port}",
            f"--shared_memory_size_mb={shared_memory_size_mb}",
            f"--datasystem_home_dir={home / 'home'}",
            f"--unix_domain_socket_dir={home / 'uds'}",
            f"--log_dir={home / 'logs'}",
            f"--health_check_path={home / 'healthy'}",
            f"--ready_check_path={self._ready}",
            *extra_flags,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when the worker serves; raises with its words when it cannot."""
        with (self.home / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [str(find_program(_PROGRAM)), *self._flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the worker did not start: {self.output()}")
            time.sleep(_POLL_S)

    def output(self) -> str:
        return (self.home / "output").read_text(errors="replace")

    def child_pid(self) -> int:
        """Of the process that serves, which the supervisor starts again if it dies."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        (child,) = children.split()
        return int(child)

    def kill_child(self) -> None:
        os.kill(self.child_pid(), signal.SIGKILL)

    def wait(self, timeout_s: float) -> int:
        """The exit code of the supervisor, which must end by itself."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextlib.contextmanager
def running_worker(
    home: Path, *extra_flags: str, shared_memory_size_mb: int = 256
) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(
        home, *extra_flags, shared_memory_size_mb=shared_memory_size_mb
    )
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def free_port() -> int:
    """A port that nobody listens on now.

    Not one that the kernel gives to whoever asks for any: that may be another
    process's connection a moment later.
    """
    for _ in range(_PORT_TRIES):
        port = random.randrange(20000, 30000)  # Neither the kernel's nor Ray's.
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port of 127.0.0.1 is free")


def find_program(name: str) -> Path:
    """The program of the installed package, or of the build in DATASYSTEM_BUILD_DIR."""
    if build := os.environ.get("DATASYSTEM_BUILD_DIR"):
        (built,) = Path(build).glob(f"src/*/{name}")
        return built
    spec = importlib.util.find_spec("yr.datasystem")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    for candidate in (package / "bin" / name, package / name):
        if os.access(candidate, os.X_OK):
            return candidate
    raise RuntimeError(f"{name} is not installed in {package}")
