"""Every process of a queue is killed in every state, and the promises hold.

A row is who is killed, a column what everybody does at that moment. TQ_TEST_KILLS is
the number of kills of each cell (1; `make kill-matrix`: 20), TQ_TEST_SEED the moments.
It takes too long for `make test`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e import ACTORS, RayCluster, Site, wait_until
from stages import EVENT_S, WORKER, Cell, kill, kill_with_child

KILLS = int(os.environ.get("TQ_TEST_KILLS", "1"))
pytestmark = [pytest.mark.matrix, pytest.mark.timeout(90 + 30 * KILLS)]
STATES = ("idle", "put", "get", "clear", "startup", "recovery")
LOADS = ("idle", "put", "get", "clear")

SAID_S = 30.0  # A call's own limit; most say so at once.
KILLS_PER_WORKER = 4  # Its supervisor gives up at the fifth crash within a minute.
TOLD = 3


@pytest.fixture
def cell(site: Site, request: pytest.FixtureRequest) -> Cell:
    return Cell(site, request.node.name)


# ---- The worker's child: nothing is lost --------------------------------------------


def load_for(state: str) -> str:
    return state if state in LOADS else "put"


def loads(cell: Cell, state: str) -> Iterator[tuple[Path, str]]:
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
        goes_on(cell, journal, load)
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


def goes_on(cell: Cell, journal: Path, load: str) -> None:
    """Nothing is lost, and the load saw no error."""
    cell.owner.works_soon()
    cell.rest(0.3)
    cell.owner.ask_for("ended 0", "stop", load)
    cell.owner.ask_for("verified", "verify", journal)
    cell.owner.ask_for("cleared", "clear", journal)
    cell.everything_was_freed()


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
        kill_with_child(supervisor)
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
        cell.owner.ask_for("cleared", "clear", journal)
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
        kill_with_child(process)
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


# ---- The Ray actors: nobody notices --------------------------------------------------


@pytest.fixture
def ray_cell(
    site: Site, ray_cluster: RayCluster, request: pytest.FixtureRequest
) -> Cell:
    """A queue in a Ray cluster."""
    site.environment.update(ray_cluster.environment)
    return Cell(site, request.node.name, ray_cluster)


@pytest.mark.parametrize("state", [*LOADS, "recovery"])
def test_ray_actor(ray_cell: Cell, ray_cluster: RayCluster, state: str) -> None:
    cell = ray_cell
    cell.begin()
    for journal, load in loads(cell, state):
        if state == "recovery":
            kill(cell.worker()[1])
            cell.rest(0.05)
        for kind in ACTORS:
            wait_until(lambda kind=kind: ray_cluster.actors(kind), EVENT_S)
            kill(ray_cluster.actors(kind)[0])
        goes_on(cell, journal, load)
    cell.close()


@pytest.mark.parametrize("kind", ACTORS)
def test_ray_actor_startup(ray_cell: Cell, ray_cluster: RayCluster, kind: str) -> None:
    """init() goes on with the actor's next life."""
    cell = ray_cell
    for _ in range(KILLS):
        cell.start_init()
        old = set(ray_cluster.actors(kind))  # Of an earlier queue, if still there.
        wait_until(lambda old=old: {*ray_cluster.actors(kind)} - old, EVENT_S)
        (actor,) = {*ray_cluster.actors(kind)} - old
        cell.rest(0.5)
        kill(actor)
        assert cell.owner.hear().startswith("ready")
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
        cell.owner.ask_for("cleared", "clear", journal)  # Or they fill the arena.
    cell.owner.ask_for("ended 0", "stop", other)
    cell.owner.ask_for("verified", "verify", others_journal)
    cell.everything_was_freed()
    cell.close()
