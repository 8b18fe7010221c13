"""A queue without Ray: one session folder per user and session name.

    $XDG_RUNTIME_DIR/transfer_queue  or  /tmp/transfer_queue-<uid>     mode 0700
        <TQ_SESSION, "default">/
            lock              flock: held while somebody starts, replaces or ends it
            state.json        who owns it, where its controller and worker are
            controller.sock   controller.log
            worker/           the datasystem worker's files and log

Exactly one process starts a session; others wait for it and attach. A session whose
owner is dead is residue: the next init() replaces it and says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from transfer_queue import _config, _session, _worker
from transfer_queue._controller_process import (
    ControllerOptions,
    Journal,
    Listen,
    start_controller,
    stop_controller,
)
from transfer_queue._process import OwnerText, ProcessId

_log = logging.getLogger("transfer_queue.session")

_HOST = "127.0.0.1"
_CLOSE_WAIT_S = 10.0
_POLL_S = 0.02
_ATTACH_WAIT_S = 5.0
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class State:
    """What state.json says. `worker` is set only if the owner started it."""

    owner_pid: int
    owner_start: int
    session: str
    socket: str
    controller_pid: int = 0
    controller_start: int = 0
    worker: str | None = None
    ready: bool = False

    @property
    def owner(self) -> OwnerText:
        process = ProcessId(self.owner_pid, self.owner_start)
        return OwnerText(process, self.session)

    @property
    def controller(self) -> ProcessId:
        return ProcessId(self.controller_pid, self.controller_start)

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"


class LocalPlace:
    """The session of this user that TQ_SESSION names."""

    def __init__(self) -> None:
        self._name = session_name()

    @property
    def description(self) -> str:
        return f"local session '{self._name}' in {session_root()}"

    def attach(self, wait_s: float) -> _session.Session | None:
        folder = SessionFolder.existing(self._name)
        if folder is None:
            return None
        with folder.locked(wait_s) as is_there:
            state = folder.read_state() if is_there else None
            if state is None or not state.ready or not state.owner.process.alive:
                return None
            return self._attach_to(state)

    def attach_or_start(self, conf: DictConfig) -> _session.Session:
        folder = SessionFolder.made(self._name)
        with folder.locked(float(conf.controller.init_timeout_s), make=True):
            state = folder.read_state()
            if state is not None and _is_somebody_elses(state.owner.process):
                return self._attach_to(state)
            if state is not None:
                _replace_residue(folder, state)
            return self._start(folder, conf)

    def _attach_to(self, state: State) -> _session.Session:
        try:
            session = _session.attach_at(
                state.address, _ATTACH_WAIT_S, self.description
            )
        except RuntimeError as error:
            raise RuntimeError(
                f"{self.description} belongs to PID {state.owner_pid}, which is alive, "
                f"but its controller (PID {state.controller_pid}) does not answer: "
                f"{error}. Call tq.close() and tq.init() in that process."
            ) from error
        if session is None:
            raise RuntimeError(
                f"{self.description} of PID {state.owner_pid} has no configuration"
            )
        return session

    def _start(self, folder: SessionFolder, conf: DictConfig) -> _session.Session:
        owner = ProcessId.own()
        state = State(owner.pid, owner.start, self._name, str(folder.socket))
        try:
            journal, listen = Journal.of(conf), Listen.of(conf)
            state = _start_worker(folder, state, conf)
            worker_socket = _worker_socket(conf)
            state = _start_controller(folder, state, worker_socket, journal, listen)
            session = _session.Session(
                address=state.address,
                config=conf,
                worker_addresses=() if state.worker is None else (state.worker,),
                place=self.description,
                end=_once(lambda: _end(folder, state)),
            )
            _session.publish(session)
            folder.write_state(replace(state, ready=True))
        except BaseException:
            _stop_all(folder.read_state() or state)
            folder.remove()
            raise
        return session


def session_name() -> str:
    name = os.environ.get("TQ_SESSION") or "default"
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError(
            f"TQ_SESSION={name!r} cannot name a session: use 1 to 64 letters, digits, "
            "'_', '-' and '.'"
        )
    return name


def session_root() -> Path:
    """The folder of all this user's sessions; every process must find the same."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime) and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime) / "transfer_queue"
    return Path("/tmp") / f"transfer_queue-{os.getuid()}"


@dataclass(frozen=True, slots=True)
class SessionFolder:
    """One session's files. Only the holder of the lock changes them."""

    path: Path

    @classmethod
    def existing(cls, name: str) -> SessionFolder | None:
        folder = cls(session_root() / name)
        if not folder.path.is_dir():
            return None
        _require_private(folder.path.parent)
        return folder

    @classmethod
    def made(cls, name: str) -> SessionFolder:
        folder = cls(session_root() / name)
        folder.make()
        return folder

    @property
    def socket(self) -> Path:
        return self.path / "controller.sock"

    @property
    def worker_home(self) -> Path:
        return self.path / "worker"

    @property
    def log(self) -> Path:
        return self.path / "controller.log"

    @property
    def _lock(self) -> Path:
        return self.path / "lock"

    @property
    def _state(self) -> Path:
        return self.path / "state.json"

    def make(self) -> None:
        root = self.path.parent
        while not self.path.is_dir():
            with contextlib.suppress(FileExistsError):
                root.mkdir(mode=0o700)
            _require_private(root)
            # Another process's remove() may take the root away in between: once more.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                self.path.mkdir(mode=0o700)
        _require_private(root)

    @contextlib.contextmanager
    def locked(self, wait_s: float, make: bool = False) -> Iterator[bool]:
        """Hold the lock. Yields False where the folder vanished and `make` is False."""
        descriptor = self._take_lock(wait_s, make)
        if descriptor is None:
            yield False
            return
        _held.add(descriptor)
        try:
            yield True
        finally:
            _held.discard(descriptor)
            with contextlib.suppress(OSError):  # Closed in a forked child already.
                os.close(descriptor)

    def read_state(self) -> State | None:
        try:
            return State(**json.loads(self._state.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            _log.warning("ignoring the unreadable %s: %s", self._state, error)
            return None

    def write_state(self, state: State) -> None:
        draft = self._state.with_suffix(".new")
        draft.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
        draft.replace(self._state)

    def remove(self) -> None:
        """Leave nothing; the root goes with its last session."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def _take_lock(self, wait_s: float, make: bool) -> int | None:
        end = time.monotonic() + wait_s
        while True:
            try:
                descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:
                if not make:
                    return None
                self.make()
                continue
            if self._try_lock(descriptor):
                return descriptor
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            if time.monotonic() >= end:
                raise RuntimeError(
                    f"Waited {wait_s:.0f} s for the session in {self.path}: PID "
                    f"{holder or 'unknown'} is still starting or ending it. If that "
                    "process hangs, end it; controller.init_timeout_s sets this wait."
                )
            time.sleep(_POLL_S)

    def _try_lock(self, descriptor: int) -> bool:
        """True when locked and still the file that the path names."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            same = os.path.samestat(os.fstat(descriptor), os.stat(self._lock))
        except FileNotFoundError:
            return False
        if same:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return same


# Locks held by this process. A forked child must not keep its parent's lock taken.
_held: set[int] = set()


def _drop_locks_in_child() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_drop_locks_in_child)


def _require_private(root: Path) -> None:
    """Refuse a folder that another user could have prepared."""
    entry = root.lstat()
    if not stat.S_ISDIR(entry.st_mode) or entry.st_uid != os.getuid():
        raise RuntimeError(
            f"{root} is not a folder of this user (uid {os.getuid()}) but of uid "
            f"{entry.st_uid}: refusing to use it. Remove it, or set XDG_RUNTIME_DIR to "
            "a folder of your own."
        )
    if stat.S_IMODE(entry.st_mode) & 0o077:
        raise RuntimeError(
            f"{root} can be entered by others (mode {stat.S_IMODE(entry.st_mode):o}): "
            f"refusing to use it. Run `chmod 700 {root}` or remove it."
        )


def _start_worker(folder: SessionFolder, state: State, conf: DictConfig) -> State:
    section = _config.backend_section(conf, "Yuanrong")
    if conf.backend.storage_backend != "Yuanrong" or not section.get("auto_init"):
        folder.write_state(state)
        return state
    plan = _worker.plan_for(section, _HOST, _HOST, state.owner, folder.worker_home)
    state = replace(state, worker=plan.address)
    folder.write_state(state)  # Before the start: a crash in between leaves a trace.
    _worker.start_worker(plan)
    return state


def _worker_socket(conf: DictConfig) -> str | None:
    """The Unix socket of the worker that holds the blocks, for the controller."""
    if conf.backend.storage_backend != "Yuanrong":
        return None
    return _worker.find_socket(_config.backend_section(conf, "Yuanrong"))


def _start_controller(
    folder: SessionFolder,
    state: State,
    worker_socket: str | None,
    journal: Journal,
    listen: Listen,
) -> State:
    folder.log.unlink(missing_ok=True)
    controller = start_controller(
        ControllerOptions(
            socket=folder.socket,
            log=folder.log,
            owner=str(state.owner),
            worker_socket=worker_socket,
            journal=journal,
            listen=listen,
        )
    )
    state = replace(
        state, controller_pid=controller.pid, controller_start=controller.start
    )
    folder.write_state(state)
    return state


def _stop_all(state: State) -> None:
    if state.controller_pid:
        stop_controller(state.address, state.controller)
    if state.worker is not None:
        _worker.stop_worker_of(state.worker, state.owner)


def _end(folder: SessionFolder, state: State) -> None:
    """The owner's close(): others see the session whole or not at all."""
    try:
        with folder.locked(_CLOSE_WAIT_S, make=True):
            _stop_all(state)
            folder.remove()
    except (OSError, RuntimeError) as error:
        _log.warning("ending the session in %s: %s", folder.path, error)


def _is_somebody_elses(owner: ProcessId) -> bool:
    """False for the dead, and for an own start that failed half-way."""
    return owner.alive and owner != ProcessId.own()


def _replace_residue(folder: SessionFolder, state: State) -> None:
    _log.warning(
        "replacing the residual session in %s: its owner PID %d ended without close()",
        folder.path,
        state.owner_pid,
    )
    _stop_all(state)
    folder.socket.unlink(missing_ok=True)


def _once(call: Callable[[], None]) -> Callable[[], None]:
    done: list[bool] = []

    def run() -> None:
        if not done:
            done.append(True)
            call()

    return run
