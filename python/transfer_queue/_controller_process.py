"""Starting and stopping the controller program, `transfer_queue_controller`."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import ipaddress
import logging
import os
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_queue import _config, _worker
from transfer_queue._deadline import Deadline
from transfer_queue._process import ProcessId, end_process, wait_until_gone
from transfer_queue._queue import QueueClient

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger("transfer_queue.controller")

_PROGRAM = "transfer_queue_controller"
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 10.0
_LOG_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Journal:
    """How it is kept. `folder` None: beside the socket. `copies`: on how many other
    nodes, of those that there are."""

    fsync: bool = False
    folder: str | None = None
    copies: int = 2

    @classmethod
    def of(cls, conf: DictConfig) -> Journal:
        """ValueError when the folder is not there, on the node of who starts it."""
        folder = conf.controller.get("journal_dir")
        if folder is not None:
            if not (isinstance(folder, str) and os.path.isdir(folder)):
                raise ValueError(
                    f"controller.journal_dir must be an existing folder, not {folder!r}"
                )
            folder = os.path.abspath(folder)
        controller = conf.controller
        return cls(controller.journal_fsync, folder, controller.journal_copies)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where it listens for processes on other nodes. `host` None: nowhere; `port` 0: at
    any that is free. `encrypts`: what passes there, for which it needs a key."""

    host: str | None = None
    port: int = 0
    encrypts: bool = False

    @classmethod
    def of(cls, conf: DictConfig) -> Listen:
        """ValueError when it is no address of a network interface, or no port, or the
        backend's section does not say whether to encrypt."""
        host, port = conf.controller.get("host"), conf.controller.get("port")
        if host is not None:
            try:
                host = str(ipaddress.ip_address(str(host)))
            except ValueError as error:
                raise ValueError(
                    "controller.host must be a numeric address of this node, not "
                    f"{host!r}"
                ) from error
        port = 0 if port is None else port
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 65536:
            raise ValueError(
                f"controller.port must be a number from 0 to 65535, not {port!r}"
            )
        section = _config.backend_section(conf, "Yuanrong")
        return cls(host, port, _worker.encrypts_connections(section))


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """`session` tells whose the journal is that stands beside the socket: another
    session's is used for nothing but to delete its blocks. With `ends_with` the program
    ends when that process has; else only when it is told to."""

    socket: Path
    log: Path
    owner: str
    session: str = field(default_factory=lambda: secrets.token_hex(8))
    worker_socket: str | None = None
    ends_with: ProcessId | None = None
    journal: Journal = Journal()
    listen: Listen = Listen()
    auth_key_file: Path | None = None

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"


def find_program() -> Path:
    """The installed controller program."""
    candidates = []
    spec = importlib.util.find_spec("yr.datasystem")
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        candidates += [package / _PROGRAM, package / "bin" / _PROGRAM]
    candidates.append(Path(sys.executable).parent / _PROGRAM)
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return candidate
    on_path = shutil.which(_PROGRAM)
    if on_path is not None:
        return Path(on_path)
    raise RuntimeError(
        f"{_PROGRAM} was not found in the package yr.datasystem, beside "
        f"{sys.executable} or on PATH: the installation is incomplete; reinstall with "
        '`pip install "TransferQueue[yuanrong]"`.'
    )


def start_controller(options: ControllerOptions) -> ProcessId:
    """Start it and wait until it serves its socket.

    Its log is `options.log`. Raises RuntimeError with the log's tail when it fails.
    """
    command = _command(options)
    with options.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    started = ProcessId.of(process.pid)
    try:
        _await_ready(process, options)
    except BaseException:
        end_process(started, 1.0)
        process.wait(timeout=5)
        raise
    _reap_later(process)
    _log.info("controller pid=%d serves %s", process.pid, options.address)
    return started


def find_running(socket: Path) -> ProcessId | None:
    """The program that serves `socket`: it holds the lock beside it, with its pid (0
    for the moment until that is written)."""
    try:
        descriptor = os.open(f"{socket}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return ProcessId.of(int(os.pread(descriptor, 20, 0) or b"0"))
    finally:
        os.close(descriptor)
    return None


def stop_controller(address: str, process: ProcessId | None) -> None:
    """Ask it to purge and end; insist when `process` does not. Never raises."""
    queue = QueueClient(address)
    try:
        queue.shutdown(Deadline.after(_STOP_TIMEOUT_S))
    except Exception as error:
        if process is not None and process.alive:
            _log.warning("the controller at %s ignores shutdown: %s", address, error)
    finally:
        with contextlib.suppress(Exception):
            queue.close()
    if process is not None and not wait_until_gone(process, _STOP_TIMEOUT_S):
        end_process(process, 2.0)
    _reap()


def _command(options: ControllerOptions) -> list[str]:
    program = str(find_program())
    command = [program, "--socket", str(options.socket), "--owner", options.owner]
    command += ["--session", options.session]
    if options.journal.fsync:
        command += ["--fsync"]
    if options.journal.folder is not None:
        name = f"transfer_queue-{options.session}.journal"
        command += ["--journal", f"{options.journal.folder}/{name}"]
    command += ["--journal_copies", str(options.journal.copies)]
    if options.listen.host is not None:
        command += ["--host", options.listen.host, "--port", str(options.listen.port)]
        if options.listen.encrypts:
            command += ["--encrypt_connections"]
    if options.auth_key_file is not None:
        command += ["--auth_key_file", str(options.auth_key_file)]
    if options.worker_socket:
        command += ["--worker_socket", options.worker_socket]
    if options.ends_with is not None:
        command += ["--ends_with", f"{options.ends_with.pid},{options.ends_with.start}"]
    return command


def _await_ready(process: subprocess.Popen[bytes], options: ControllerOptions) -> None:
    end = time.monotonic() + _START_TIMEOUT_S
    while b"ready" not in options.log.read_bytes().split(b"\n"):
        if process.poll() is not None:
            raise RuntimeError(
                f"Failed to start the TransferQueue controller: {process.args!r} ended "
                f"with code {process.returncode}. {_log_tail(options.log)}"
            )
        if time.monotonic() >= end:
            raise RuntimeError(
                "Failed to start the TransferQueue controller: not ready within "
                f"{_START_TIMEOUT_S:.0f} s. {_log_tail(options.log)}"
            )
        time.sleep(0.002)


def _log_tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"Last lines of {path}:\n" + "\n".join(lines[-_LOG_TAIL_LINES:])


# Children of this process that may still run; waited for so that no zombie stays.
_children: list[subprocess.Popen[bytes]] = []


def _reap_later(process: subprocess.Popen[bytes]) -> None:
    _children.append(process)


def _reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]
