"""Programs that use the queue in processes of their own, and are told what to do
(tests/support/queue_stage.py): for tests that kill.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from e2e import SHARED_MACHINE, RayCluster, Site, wait_until

STAGE = Path(__file__).parents[1] / "support" / "queue_stage.py"
SEED = int(os.environ.get("TQ_TEST_SEED", "1"))
WORKER, CONTROLLER = "datasystem_worker", "transfer_queue_controller"

# New work is promised within 1 s of a kill; more where others use the processors.
PROMISED_S = 20.0 if SHARED_MACHINE else 5.0
EVENT_S = 60.0  # For what only has to happen.


class Program:
    """A queue_stage.py. Owner: the cell; the site ends it."""

    def __init__(self, site: Site, role: str) -> None:
        command = [sys.executable, str(STAGE), role]
        command += [str(site.worker_port), str(site.metastore_port)]
        self._said = site.folder / f"stage{len(site._running)}"
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env=site.environment,
                cwd=site.folder,
            )
        site._running.append(self.process)

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        while "(raylet)" in line:  # Ray tells every program of a killed actor.
            line = self.process.stdout.readline().strip()
        if not line:
            self.kill()
            raise AssertionError(f"the stage ended: {self._said.read_text()}")
        return line

    def ask(self, *words: object) -> str:
        self.tell(*words)
        return self.hear()

    def ask_for(self, start: str, *words: object) -> str:
        answer = self.ask(*words)
        assert answer.startswith(start), f"{words}: {answer}: {self._said.read_text()}"
        return answer

    def hear_ready_or_told(self) -> None:
        answer = self.hear()
        assert answer.startswith(("ready", "told")), answer

    def reap(self, who: str, pid: int) -> None:
        if who == "forked_child":
            self.ask_for(f"ended {-signal.SIGKILL}", "stop", pid)

    def works_soon(self) -> None:
        assert float(self.ask_for("worked", "work").split()[1]) < PROMISED_S

    def works_again(self) -> None:
        """Within the time, after errors."""
        end = time.monotonic() + PROMISED_S
        while not (answer := self.ask("work")).startswith("worked"):
            assert time.monotonic() < end, answer

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)


class Cell:
    """A queue, and random moments. Owner: the test."""

    def __init__(
        self, site: Site, name: str, cluster: RayCluster | None = None
    ) -> None:
        self.site = site
        self._daemons = cluster or site  # Who has the queue's daemons.
        self.random = random.Random(f"{SEED} {name}")
        self.journals = 0
        self.is_warm = False
        self.owner = Program(site, "owner")

    def rest(self, at_most_s: float) -> None:
        time.sleep(self.random.uniform(0, at_most_s))

    def journal(self) -> Path:
        self.journals += 1
        return self.site.folder / f"load{self.journals}"

    def worker(self) -> tuple[int, int]:
        """Supervisor and child."""
        supervisor = self.supervisor_of(WORKER)
        wait_until(lambda: len(children_of(supervisor)) == 1, EVENT_S)
        return supervisor, children_of(supervisor)[0]

    def controller(self) -> tuple[int, int | None]:
        """The process, and its child where it supervises one."""
        supervisor = self.supervisor_of(CONTROLLER)
        children = children_of(supervisor)
        return supervisor, children[0] if children else None

    def supervisor_of(self, program: str) -> int:
        wait_until(lambda: self._daemons.pids_of(program) != [], EVENT_S)
        pids = self._daemons.pids_of(program)
        gone = 0  # A child may just have been killed.
        (first,) = [pid for pid in pids if parent_of(pid) not in (gone, *pids)]
        return first

    def begin(self) -> None:
        self.owner.ask_for("ready", "init")
        self.owner.ask_for("worked", "work")  # The first one also imports much.

    def start_init(self) -> None:
        if self._daemons.pids_of(WORKER) == [] and not self.is_warm:
            self.begin()
            self.owner.ask_for("left", "leave")
            self.is_warm = True
        wait_until(lambda: self._daemons.pids_of(WORKER) == [], EVENT_S)
        self.owner.tell("init")

    def start_victim(self, who: str, what: str, journal: Path, *, wait: bool) -> int:
        """Its pid. With `wait` it is doing what it is to do."""
        if who == "forked_child":
            return int(self.owner.ask("load" if wait else "launch", what, journal))
        victim = Program(self.site, "attached")
        victim.tell("init")
        victim.tell("inline", what, journal)
        if wait:
            assert victim.hear().startswith("ready")
            assert victim.hear() == "loading"
        else:  # It takes 1 to 3 s to import, attach and connect.
            self.rest(2.0)
        return victim.process.pid

    def everything_was_freed(self) -> None:
        """Nothing of dead clients is reserved or pinned. Promised: within 1 s."""

        def is_free() -> bool:
            stats = json.loads(self.owner.ask("stats"))
            unsealed = stats["objects_unsealed"]
            return bool(unsealed == 0 and stats["objects_deleted_but_held"] == 0)

        wait_until(is_free, PROMISED_S)

    def close(self) -> None:
        self.owner.ask_for("closed", "close")
        assert self.owner.process.wait(timeout=30) == 0


def children_of(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def parent_of(pid: int) -> int:
    """0: it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_with_child(supervisor: int) -> None:
    """Its child dies with it, but a moment later."""
    children = children_of(supervisor)
    kill(supervisor)
    wait_until(lambda: not any(map(is_running, children)), EVENT_S)


def is_running(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")
