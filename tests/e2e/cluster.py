"""A cluster of workers by `dscli`, each on a host of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e import Done, Site, finish
from hosts import Host, why_impossible

from yr.datasystem.cli._start import find_program

WORKER_PORT, METASTORE_PORT, CONTROLLER_PORT = 31501, 2379, 31600
NEEDS_HOSTS = pytest.mark.skipif(
    why_impossible() is not None, reason=why_impossible() or ""
)
NOT_AUTHORIZED = 14  # Of enum ds_status.
NO_KEY = "no key was proven, and one is asked for here"
EVENT_S = 20.0  # Several times what anything here may take.


class Cluster:
    """Workers on hosts, of which the first is the head, unless there is an etcd.

    Owner: its fixture."""

    def __init__(self, site: Site, hosts: list[Host], etcd_address: str = "") -> None:
        self.site = site
        self.etcd_address = etcd_address
        self.hosts = hosts
        self.head = hosts[0]
        self.has_queue = False

    def address(self, host: Host) -> str:
        return f"{host.address}:{WORKER_PORT}"

    @property
    def metastore(self) -> str:
        return f"{self.head.address}:{METASTORE_PORT}"

    @property
    def _backend(self) -> tuple[str, str]:
        if self.etcd_address:
            return "--etcd_address", self.etcd_address
        return "--metastore_address", self.metastore

    def dscli(self, host: Host, *words: str) -> Done:
        program = [*host.within, sys.executable, "-m", "yr.datasystem.cli"]
        return self.site.command(*program, *words)

    def try_start(self, host: Host, *flags: str, timeout_s: int = 20) -> Done:
        words = ["start", "-t", str(timeout_s), "-d", str(self.home(host)), "-w"]
        return self.dscli(host, *words, *self._flags(host), *flags)

    def _flags(self, host: Host) -> list[str]:
        words = ["--worker_address", self.address(host), *self._backend]
        if host is self.head and not self.etcd_address:
            words += ["--start_metastore_service", "true"]
        return [*words, "--shared_memory_size_mb", "64"]

    def start(self, host: Host, *flags: str) -> None:
        done = self.try_start(host, *flags)
        assert done.code == 0, done.out + done.err

    def try_stop(self, host: Host, *words: str) -> Done:
        address = self.address(host)
        return self.dscli(host, "stop", "--worker_address", address, *words)

    def stop(self, host: Host, *words: str) -> None:
        done = self.try_stop(host, *words)
        assert done.code == 0, done.out + done.err

    def home(self, host: Host) -> Path:
        return self.site.folder / f"host{host.number}"

    def log(self, host: Host) -> str:
        path = self.home(host) / "datasystem/logs/datasystem_worker.log"
        return path.read_text()

    def query(self, host: Host) -> dict[str, Any]:
        done = self.dscli(host, "query", "cluster", *self._backend)
        document: dict[str, Any] = json.loads(done.out)
        return document

    def members(self) -> list[str]:
        """Addresses, as the metastore has them; empty while it does not say."""
        nodes = self.query(self.head).get("nodes", [])
        return sorted(node["worker_address"] for node in nodes)

    def await_members(self, *hosts: Host) -> None:
        wanted = sorted(self.address(host) for host in hosts)
        await_that(lambda: self.members() == wanted)

    def stats(self, host: Host) -> dict[str, Any]:
        words = ("status", "--worker_address", self.address(host), "--json")
        stats: dict[str, Any] = json.loads(self.dscli(host, *words).out)
        return stats

    def await_copies(self, host: Host, count: int) -> None:
        """Of the journal of the queue whose controller is on that host."""
        await_that(lambda: self.stats(host)["journal_copies"] == count)

    def supervisor(self, host: Host) -> int:
        text = (self.home(host) / "worker.lock").read_text()
        return int(text)

    def child(self, host: Host) -> int:
        pid = self.supervisor(host)
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def controllers(self) -> list[int]:
        """Supervisor and child of the queue's, in this order."""
        return self.site.pids_of("transfer_queue_controller")

    def kill(self, host: Host) -> None:
        """Both processes at once, as pkill -9 does."""
        for pid in (self.supervisor(host), self.child(host)):
            os.kill(pid, signal.SIGKILL)


class ClockedCluster(Cluster):
    """Each host has a wall clock of its own, for its worker and what that starts."""

    FOLDERS = ("x86_64-linux-gnu", "aarch64-linux-gnu", "../lib64")  # Of /usr/lib.

    @classmethod
    def library(cls) -> Path | None:
        """libfaketime, if it is here."""
        folders = (Path("/usr/lib") / folder / "faketime" for folder in cls.FOLDERS)
        found = (folder / "libfaketimeMT.so.1" for folder in folders)
        return next((path for path in found if path.exists()), None)

    def try_start(self, host: Host, *flags: str, timeout_s: int = 20) -> Done:
        """Without dscli: Python cannot sleep with that library."""
        self.home(host).mkdir(exist_ok=True)
        self.jump(host, 0)
        ready = self.home(host) / "ready"
        own = ["--datasystem_home_dir", str(self.home(host)), "--ready_check_path"]
        own += [str(ready), "--log_dir", str(self.home(host) / "datasystem/logs")]
        process = self.site.start_command(
            *(*host.within, str(find_program()), *self._flags(host), *own, *flags),
            environment={
                "LD_PRELOAD": str(self.library()),
                "FAKETIME_TIMESTAMP_FILE": str(self._clock(host)),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            },
        )
        await_that(ready.exists)
        return Done(process.poll() or 0, "", "")

    def jump(self, host: Host, days: int) -> None:
        """Its clock is so many days off from now on, back or forth."""
        whole = self._clock(host).with_suffix(".new")
        whole.write_text(f"{days * 86400:+d}")
        whole.replace(self._clock(host))

    def _clock(self, host: Host) -> Path:
        return self.site.folder / f"clock{host.number}"


NEEDS_CLOCKS = pytest.mark.skipif(
    ClockedCluster.library() is None, reason="clocks of their own need libfaketime"
)


class Program:
    """A program of tests/support on a host, told by lines of JSON what to do.

    Owner: the test's site."""

    def __init__(
        self, cluster: Cluster, host: Host, name: str, *words: str, **environment: str
    ) -> None:
        program = Path(__file__).parents[1] / "support" / name
        self._process = cluster.site.start_command(
            *(*host.within, sys.executable, str(program), *words),
            environment=environment,
        )
        assert self._answer() == "ready"

    def ask(self, name: str, *arguments: Any) -> Any:
        self.tell(name, *arguments)
        return self._answer()

    def tell(self, name: str, *arguments: Any) -> None:
        """Ask without waiting for the answer; `hear` has it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        return self._answer()

    def end(self) -> None:
        done = finish(self._process)
        assert done.code == 0, done.err

    def end_if_alive(self) -> None:
        if self._process.poll() is None:
            self.end()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=EVENT_S)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, finish(self._process).err
        return json.loads(line)


class BlockProgram(Program):
    """Makes blocks and reads them."""

    def __init__(self, cluster: Cluster, host: Host, *queue: str) -> None:
        words = (host.address, str(WORKER_PORT), *queue)
        super().__init__(cluster, host, "block_program.py", *words)


class KeyProgram(Program):
    """Puts users' keys and reads them, at the host's worker."""

    def __init__(self, cluster: Cluster, host: Host, address: str = "") -> None:
        words = (address or host.address, str(WORKER_PORT))
        super().__init__(cluster, host, "key_program.py", *words)


class QueueProgram(Program):
    """Uses the queue whose controller is on the owner's host (None: the head), and is
    there its owner."""

    def __init__(
        self,
        cluster: Cluster,
        host: Host,
        owner: Host | None = None,
        timeout_s: float = 60,
        program: str = "node_program.py",
        words: tuple[str, ...] = (),
    ) -> None:
        owner = owner or cluster.head
        if host is owner and not cluster.has_queue:
            words = ("owner", owner.address, str(CONTROLLER_PORT), *words)
            cluster.has_queue = True
        else:
            words = ("attached", f"{owner.address}:{CONTROLLER_PORT}", *words)
        folder = cluster.site.folder / f"run{host.number}"
        folder.mkdir(mode=0o700, exist_ok=True)
        super().__init__(
            *(cluster, host, program, *words),
            TQ_WORKER_PORT=str(WORKER_PORT),
            TQ_TIMEOUT_S=str(timeout_s),
            XDG_RUNTIME_DIR=str(folder),
        )


def ask_as_stranger(
    site: Site, host: Host, address: str, port: int
) -> list[tuple[int, str]]:
    """What a port answers to somebody on `host` who says something without a proof."""
    program = Path(__file__).parents[1] / "support" / "stranger.py"
    words = (sys.executable, str(program), address, str(port))
    done = site.command(*host.within, *words)
    assert done.code == 0, done.err
    return [(status, text) for status, text in json.loads(done.out)]


def await_that(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + EVENT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
