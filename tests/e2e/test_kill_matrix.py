"""Every process of a queue is killed in every state, and the promises hold.

A row is who is killed, a column what everybody does at that moment. TQ_TEST_KILLS is
the number of kills of each cell (1; `make kill-matrix`: 20), TQ_TEST_SEED the moments.
It takes too long for `make test`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e import SHARED_MACHINE, Site, wait_until

pytestmark = pytest.mark.matrix
STAGE = Path(__file__).parents[1] / "support" / "queue_stage.py"
KILLS = int(os.environ.get("TQ_TEST_KILLS", "1"))
SEED = int(os.environ.get("TQ_TEST_SEED", "1"))
STATES = ("idle", "put", "get", "clear", "startup", "recovery")
LOADS = ("idle", "put", "get", "clear")
WORKER, CONTROLLER = "datasystem_worker", "transfer_queue_controller"

SAID_S = 30.0  # A call's own limit; most say so at once.
# New work is promised within 1 s of a kill; more where others use the processors.
PROMISED_S = 20.0 if SHARED_MACHINE else 5.0
EVENT_S = 60.0  # For what only has to happen.
KILLS_PER_WORKER = 4  # Its supervisor gives up at the fifth crash within a minute.
TOLD = 3


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

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
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
        wait_until(lambda: self.site.pids_of(program) != [], EVENT_S)
        pids = self.site.pids_of(program)
        (first,) = [pid for pid in pids if parent_of(pid) not in pids]
        return first

    def begin(self) -> None:
        self.owner.ask_for("ready", "init")
        self.owner.ask_for("worked", "work")  # The first one also imports much.

    def start_init(self) -> None:
        if self.site.pids_of(WORKER) == [] and not self.is_warm:
            self.begin()
            self.owner.ask_for("left", "leave")
            self.is_warm = True
        wait_until(lambda: self.site.pids_of(WORKER) == [], EVENT_S)
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
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def cell(site: Site, request: pytest.FixtureRequest) -> Cell:
    return Cell(site, request.node.name)


# ---- The worker's child: nothing is lost --------------------------------------------


def load_for(state: str) -> str:
    return state if state in LOADS else "put"


def loads(cell: Cell, state: str) -> Iterator[tuple[str, str]]:
    """A journal and the load that keeps it, for each kill of a child. The queue begins
    anew before a supervisor has seen so many crashes that it gives up."""
    kills_each = KILLS_PER_WORKER // (1 + (state == "recovery"))
    for turn in range(KILLS):
        if turn > 0 and turn % kills_each == 0:
            cell.owner.ask_for("ready", "reinit")
        journal = cell.journal()
        load = cell.owner.ask("load", load_for(state), journal)
        cell.rest(0.3)
        yield journal, load


@pytest.mark.parametrize("state", [*LOADS, "recovery"])
def test_worker_child(cell: Cell, state: str) -> None:
    cell.begin()
    for journal, load in loads(cell, state):
        _, child = cell.worker()
        kill(child)
        if state == "recovery":
            wait_until(lambda dead=child: cell.worker()[1] != dead, EVENT_S)
            cell.rest(0.05)
            kill(cell.worker()[1])
        cell.owner.works_soon()
        cell.rest(0.3)
        cell.owner.ask_for("ended 0", "stop", load)
        cell.owner.ask_for("verified", "verify", journal)
        cell.everything_was_freed()
    cell.close()


def test_worker_child_startup(cell: Cell) -> None:
    for _ in range(KILLS):
        cell.start_init()
        _, child = cell.worker()
        cell.rest(0.1)
        kill(child)
        cell.owner.hear_ready_or_told()
        cell.owner.ask_for("ready", "reinit")
        cell.owner.works_soon()
        cell.owner.ask_for("left", "leave")
    cell.close()


# ---- The worker's supervisor: what was stored is lost ----------------------------


def starts_anew(cell: Cell, load: str) -> None:
    """The load saw an error or nothing at all, but no wrong bytes."""
    assert cell.owner.ask("stop", load) in ("ended 0", f"ended {TOLD}")
    cell.owner.ask_for("ready", "reinit")
    cell.owner.works_soon()


def loses_all(cell: Cell, load: str) -> None:
    told = cell.owner.ask("work")
    assert told.startswith("told"), told
    assert float(told.split()[1]) < SAID_S, told
    starts_anew(cell, load)


@pytest.mark.parametrize("state", [*LOADS, "recovery"])
def test_worker_supervisor(cell: Cell, state: str) -> None:
    cell.begin()
    for _ in range(KILLS):
        load = cell.owner.ask("load", load_for(state), cell.journal())
        cell.rest(0.3)
        supervisor, child = cell.worker()
        if state == "recovery":
            kill(child)
            cell.rest(0.05)
        kill(supervisor)
        loses_all(cell, load)
    cell.close()


def test_worker_supervisor_startup(cell: Cell) -> None:
    for _ in range(KILLS):
        cell.start_init()
        supervisor = cell.supervisor_of(WORKER)
        cell.rest(0.2)
        kill(supervisor)
        cell.owner.hear_ready_or_told()
        cell.owner.ask_for("ready", "reinit")
        cell.owner.works_soon()
        cell.owner.ask_for("left", "leave")
    cell.close()


# ---- The controller ------------------------------------------------------------------


@pytest.mark.parametrize("state", [*LOADS, "recovery"])
def test_controller_child(cell: Cell, state: str) -> None:
    """No acknowledged row is lost and no cleared one comes back. A call in flight may
    end with an error: then its outcome is open, but whole."""
    cell.begin()
    for journal, load in loads(cell, state):
        process, child = cell.controller()
        kill(child or process)
        assert child is not None
        if state == "recovery":
            wait_until(
                lambda dead=child: cell.controller()[1] not in (None, dead), EVENT_S
            )
            cell.rest(0.05)
            kill(cell.controller()[1] or 0)
        cell.owner.works_again()
        cell.rest(0.3)
        assert cell.owner.ask("stop", load) in ("ended 0", f"ended {TOLD}")
        cell.owner.ask_for("verified", "verify", journal)
        cell.everything_was_freed()
    cell.close()


@pytest.mark.parametrize("state", [*LOADS, "recovery"])
def test_controller_supervisor(cell: Cell, state: str) -> None:
    cell.begin()
    for _ in range(KILLS):
        load = cell.owner.ask("load", load_for(state), cell.journal())
        cell.rest(0.3)
        process, child = cell.controller()
        if state == "recovery" and child is not None:
            kill(child)
            cell.rest(0.05)
        kill(process)
        loses_all(cell, load)
    cell.close()


@pytest.mark.parametrize("which", ["child", "supervisor"])
def test_controller_startup(cell: Cell, which: str) -> None:
    for _ in range(KILLS):
        cell.start_init()
        process, child = cell.controller()
        cell.rest(0.1)
        kill(child if which == "child" and child else process)
        cell.owner.hear_ready_or_told()
        cell.owner.ask_for("ready", "reinit")
        cell.owner.works_soon()
        cell.owner.ask_for("left", "leave")
    cell.close()


# ---- Clients: nothing of them stays, and nobody else notices -------------------------


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("who", ["producer", "consumer", "forked_child"])
def test_client(cell: Cell, who: str, state: str) -> None:
    """Where the state leaves it open, a producer puts and a consumer gets."""
    what = state if state in LOADS else "get" if who == "consumer" else "put"
    cell.begin()
    others_journal = cell.journal()
    other = cell.owner.ask("load", "put", others_journal)
    for turn in range(KILLS):
        journal = cell.journal()
        journal.touch()
        victim = cell.start_victim(who, what, journal, wait=state != "startup")
        cell.rest(0.3 if state != "startup" else 0.1)
        if state == "recovery" and turn < KILLS_PER_WORKER:
            kill(cell.worker()[1])
            cell.rest(0.05)
        kill(victim)
        cell.owner.reap(who, victim)
        cell.owner.works_soon()
        cell.owner.ask_for("verified", "verify", journal)
    cell.owner.ask_for("ended 0", "stop", other)
    cell.owner.ask_for("verified", "verify", others_journal)
    cell.everything_was_freed()
    cell.close()
