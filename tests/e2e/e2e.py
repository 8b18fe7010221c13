"""What the end-to-end tests share: programs in processes of their own, and a record of
what a machine has, to be compared before and after.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from worker_process import free_port as free_port

MARK = "TQ_TEST_MARK"  # In the environment of everything that a test starts.
ACTORS = ("TransferQueueController", "YuanrongWorkerActor")  # Of a queue in Ray.
SMALL = "--shared_memory_size_mb 64"

# Set where others work, and run such tests, at the same time: what cannot be told from
# theirs is then not judged. Never set in CI.
SHARED_MACHINE = bool(os.environ.get("TQ_TEST_SHARED_MACHINE"))

# Other programs come and go in /tmp; ours have these names.
_OURS = re.compile(
    r"transfer_queue" if SHARED_MACHINE else r"transfer_queue|datasystem|ray|tq",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster of the tests. Owner: its fixture."""

    folder: Path
    address: str

    @property
    def port(self) -> str:
        return self.address.rpartition(":")[2]

    @property
    def token(self) -> Path:
        return self.folder / "token"

    @property
    def environment(self) -> dict[str, str]:
        """By which a user's program finds it and is let in."""
        return {"RAY_TMPDIR": str(self.folder), "RAY_AUTH_TOKEN_PATH": str(self.token)}

    @property
    def mark(self) -> str:
        """What its processes carry, and the actors in it."""
        return f"cluster-{self.folder.name}"

    def pids_of(self, program: str) -> list[int]:
        """What its actors started under this name, oldest first."""
        return pids_of(program, self.mark)

    def actors(self, kind: str) -> list[int]:
        """Pids of the living actors of this class, the oldest first."""
        return sorted(
            int(line.split(" ", 1)[0])
            for line in _marked_processes(self.mark)
            if line.split(" ", 1)[1].startswith(f"ray::{kind}")
        )


# ---- What a machine has --------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """Processes are those that carry the mark; the rest is the whole machine's."""

    processes: frozenset[str] = field(default_factory=frozenset)
    ports: frozenset[str] = field(default_factory=frozenset)
    mounts: frozenset[str] = field(default_factory=frozenset)
    shared_memory: frozenset[str] = field(default_factory=frozenset)
    temporary: frozenset[str] = field(default_factory=frozenset)
    home: frozenset[str] = field(default_factory=frozenset)
    placement_groups: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def look(cls, mark: str, cluster: RayCluster | None = None) -> Machine:
        groups = _placement_groups(cluster) if cluster else ()
        return cls(
            placement_groups=frozenset(groups),
            processes=_marked_processes(mark)
            | (_daemons(cluster) if cluster else set()),
            ports=_listening_ports(),
            mounts=frozenset(Path("/proc/self/mountinfo").read_text().splitlines()),
            shared_memory=_names_in(Path("/dev/shm")),
            temporary=_names_in(Path("/tmp")),
            home=_names_in(Path.home()),
        )

    def added_since(self, before: Machine) -> dict[str, list[str]]:
        """What is here now and was not before, without what is plainly others'."""
        added = {
            item.name: sorted(getattr(self, item.name) - getattr(before, item.name))
            for item in fields(self)
        }
        for place in ("shared_memory", "temporary", "home"):
            added[place] = [name for name in added[place] if _OURS.search(name)]
        if SHARED_MACHINE:
            added["ports"] = []
        return {what: names for what, names in added.items() if names}


def _marked_processes(mark: str) -> frozenset[str]:
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        marked = f"{MARK}={mark}".encode() in environment
        if marked and command and int(folder.name) != os.getpid():
            found.add(f"{folder.name} {command.strip()}")
    return frozenset(found)


def pids_of(program: str, mark: str) -> list[int]:
    found = []
    for line in _marked_processes(mark):
        pid, command = line.split(" ", 1)
        if os.path.basename(command.split()[0]) == program:
            found.append(int(pid))
    return sorted(found)


def _daemons(cluster: RayCluster) -> set[str]:
    """What the actors of a cluster started and is still there."""
    return {
        f"{pid} {program}"
        for program in ("datasystem_worker", "transfer_queue_controller")
        for pid in cluster.pids_of(program)
    }


def _listening_ports() -> frozenset[str]:
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == "0A":
                listening.add(str(int(columns[1].rpartition(":")[2], 16)))
    return frozenset(listening)


def _placement_groups(cluster: RayCluster) -> list[str]:
    """Those of the Ray cluster that are not removed."""
    code = (
        "import ray\n"
        "ray.init(address='auto', logging_level='ERROR', log_to_driver=False)\n"
        "for name, group in ray.util.placement_group_table().items():\n"
        "    if group['state'] != 'REMOVED': print(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **cluster.environment, "RAY_AUTH_MODE": "token"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def _names_in(folder: Path) -> frozenset[str]:
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    return frozenset(name for name in names if not name.startswith("pytest-of-"))


# ---- Programs ------------------------------------------------------------------------


@dataclass
class Done:
    """How a program ended."""

    code: int
    out: str
    err: str


class Site:
    """A place of its own for a test: ports, session folder, environment.

    Owner: the test. `end()` kills what the test left running, so that one failure does
    not become many.
    """

    def __init__(self, folder: Path, mark: str) -> None:
        self.mark = mark
        self.folder = folder
        self.worker_port, self.metastore_port = free_port(), free_port()
        self.runtime = folder / "run"  # Session folders and sockets.
        self.runtime.mkdir(mode=0o700)
        self.environment = {
            **os.environ,
            MARK: self.mark,
            "XDG_RUNTIME_DIR": str(self.runtime),
            "RAY_TMPDIR": str(folder),  # No Ray cluster of this user is found there.
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # dscli
            "TQ_TEST_WORKER_PORT": str(self.worker_port),
            "TQ_TEST_METASTORE_PORT": str(self.metastore_port),
        }
        for name in ("RAY_ADDRESS", "TQ_CONTROLLER_ADDRESS", "TQ_SESSION"):
            self.environment.pop(name, None)
        self._running: list[subprocess.Popen[str]] = []

    @property
    def worker_address(self) -> str:
        return f"127.0.0.1:{self.worker_port}"

    @property
    def session(self) -> Path:
        return self.runtime / "transfer_queue" / "default"

    def start(
        self,
        code: str,
        *,
        environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """Run Python code; it has `tq`, `torch`, `TensorDict`, `conf` and `say`.

        `within` is a command that runs another, whose words are appended.
        """
        program = PRELUDE + textwrap.dedent(code)
        return self.start_command(
            *within, sys.executable, "-c", program, environment=environment
        )

    def start_command(
        self, *words: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Run a program of this environment, to be talked to."""
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environment, **(environment or {})},
            cwd=self.folder,
        )
        self._running.append(process)
        return process

    def run(
        self,
        code: str,
        *,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 90,
    ) -> Done:
        return finish(self.start(code, environment=environment), timeout_s)

    def command(self, *words: str, timeout_s: float = 90) -> Done:
        """Run a program of this environment, such as dscli."""
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder,
            timeout=timeout_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def pids_of(self, program: str) -> list[int]:
        """Marked processes whose program has this name, oldest first."""
        return pids_of(program, self.mark)

    def end(self) -> list[str]:
        """Kill what still runs, but only after it had its time to end; who that was."""
        programs = [process for process in self._running if process.poll() is None]
        for process in programs:
            process.kill()
            process.wait()
        end = time.monotonic() + 5.0
        while (left := _marked_processes(self.mark)) and time.monotonic() < end:
            time.sleep(0.05)
        for line in left:  # Before reading what was said: they may hold the pipes.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split(" ", 1)[0]), signal.SIGKILL)
        for process in self._running:
            process.communicate()
        shutil.rmtree(self.runtime, ignore_errors=True)
        return sorted(left)


PRELUDE = textwrap.dedent(
    f"""
    import os, sys, time
    import torch
    import transfer_queue as tq
    from tensordict import TensorDict

    def say(*words):
        print(*words, flush=True)

    def wait_for_line():
        assert sys.stdin.readline()

    def conf(**yuanrong):
        section = {{
            "worker_port": int(os.environ["TQ_TEST_WORKER_PORT"]),
            "metastore_port": int(os.environ["TQ_TEST_METASTORE_PORT"]),
            "worker_args": {SMALL!r},
            **yuanrong,
        }}
        return {{"backend": {{"Yuanrong": section}}}}
    """
)


def finish(process: subprocess.Popen[str], timeout_s: float = 90) -> Done:
    out, err = process.communicate(timeout=timeout_s)
    return Done(process.returncode, out, err)


def expect_line(process: subprocess.Popen[str], start: str) -> str:
    """The next line of its output, which must begin so; Ray's own do not count."""
    assert process.stdout is not None
    line = process.stdout.readline()
    while "(raylet)" in line:
        line = process.stdout.readline()
    if not line.startswith(start):
        process.kill()
        _, err = process.communicate()
        raise AssertionError(f"expected {start!r}, got {line!r}\n{err}")
    return line.strip()


def tell(process: subprocess.Popen[str]) -> None:
    """Let a program go on that waits in wait_for_line()."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def wait_until(true: object, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
