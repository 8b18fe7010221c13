"""A queue at the limit of its memory, for a while, with kills; nothing is left over.

Loads put, overwrite, get, hold and clear rows of up to 8 MB in an arena that is often
full, while the children of worker and controller and the loads themselves are killed.
Every value that is read is compared, and the rows of each load when it has ended; then
everything is cleared, and every byte of the arena is free. TQ_TEST_SOAK_S is how long
(20 s; `make soak`: SOAK_SECONDS), TQ_TEST_SOAK_MB the arena (256; `make soak`: 1024),
TQ_TEST_SEED what is killed when.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from e2e import Site, wait_until
from stages import EVENT_S, SEED, Cell, children_of, kill

SOAK_S = float(os.environ.get("TQ_TEST_SOAK_S", "20"))
ARENA_MB = int(os.environ.get("TQ_TEST_SOAK_MB", "256"))
LOADS = 3
KILL_EVERY_S = 5.0
# Its supervisor gives up a worker that crashes five times within a minute.
WORKER_KILL_EVERY_S = 16.0
GROWTH_BYTES = 24 << 20  # Of what allocators keep, and of libraries loaded late.


@dataclass
class Sample:
    """Of the processes that nobody kills."""

    private_bytes: int
    descriptors: int


@dataclass
class Soak:
    """Owner: the test."""

    cell: Cell
    loads: dict[int, Path] = field(default_factory=dict)
    ended: list[Path] = field(default_factory=list)
    kills: dict[str, int] = field(default_factory=dict)
    slowest_s: dict[str, float] = field(default_factory=dict)  # New work after a kill.
    samples: list[Sample] = field(default_factory=list)
    worker_killed_at: float = 0.0

    def start_load(self) -> None:
        journal = self.cell.journal()
        journal.touch()
        pid = int(self.cell.owner.ask("load", "mix", journal))
        self.loads[pid] = journal

    def kill_someone(self) -> None:
        who = self._kill()
        begin = time.monotonic()
        self.cell.owner.works_again()
        slowest = max(self.slowest_s.get(who, 0.0), time.monotonic() - begin)
        self.slowest_s[who] = slowest

    def _kill(self) -> str:
        random = self.cell.random
        who = random.choice(("worker", "controller", "load"))
        now = time.monotonic()
        if who == "worker" and now - self.worker_killed_at < WORKER_KILL_EVERY_S:
            who = "controller"
        self.kills[who] = self.kills.get(who, 0) + 1
        if who == "worker":
            self.worker_killed_at = now
            kill(self.cell.worker()[1])
        elif who == "controller":
            process, _ = self.cell.controller()
            wait_until(lambda: children_of(process) != [], EVENT_S)
            kill(children_of(process)[0])
        else:
            pid = random.choice(sorted(self.loads))
            kill(pid)
            self.cell.owner.ask_for("ended -9", "stop", pid)
            journal = self.loads.pop(pid)
            self.cell.owner.ask_for("verified", "verify", journal)
            self.cell.owner.ask_for("cleared", "clear", journal)
            self.ended.append(journal)
            self.start_load()
        return who

    def sample(self) -> None:
        lasting = [self.cell.owner.process.pid]
        lasting += [self.cell.worker()[0], self.cell.controller()[0]]
        self.samples.append(
            Sample(
                private_bytes=sum(private_bytes(pid) for pid in lasting),
                descriptors=sum(len(list(descriptors(pid))) for pid in lasting),
            )
        )

    def report(self, seconds: float) -> str:
        journals = [*self.ended, *self.loads.values()]
        lines = [line for path in journals for line in path.read_text().splitlines()]
        done = sum(line.startswith("done") for line in lines)
        kills = ", ".join(
            f"{n} of a {who} (new work after {self.slowest_s[who]:.2f} s at most)"
            for who, n in sorted(self.kills.items())
        )
        last = self.samples[-1]
        return (
            f"soak: {seconds:.0f} s, {done} puts and clears acknowledged, kills: "
            f"{kills}; {last.private_bytes >> 20} MiB, {last.descriptors} descriptors"
        )


def private_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
    names = ("Private_Clean", "Private_Dirty")
    return sum(int(fields[name].split()[0]) << 10 for name in names)


def descriptors(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


@pytest.fixture
def soak(site: Site, request: pytest.FixtureRequest) -> Soak:
    environment = {**site.environment, "TQ_STAGE_ARENA_MB": str(ARENA_MB)}
    site.environment = environment
    return Soak(Cell(site, f"{request.node.name} {SEED}"))


@pytest.mark.timeout(SOAK_S + 300)
def test_nothing_is_left_after_a_long_time_at_the_limit(soak: Soak) -> None:
    cell = soak.cell
    cell.begin()
    for _ in range(LOADS):
        soak.start_load()
    begin = time.monotonic()
    next_report = begin + 60
    while (now := time.monotonic()) < begin + SOAK_S:
        cell.rest(2 * KILL_EVERY_S)
        soak.kill_someone()
        soak.sample()
        if now >= next_report:
            print(soak.report(now - begin), flush=True)
            next_report += 60
    for pid in soak.loads:
        cell.owner.ask_for("ended 0", "stop", pid)
    for journal in soak.loads.values():
        cell.owner.ask_for("verified", "verify", journal)
    print(soak.report(time.monotonic() - begin), flush=True)
    cell.owner.ask_for("cleared", "clear_all")
    everything_is_free(cell)
    nothing_has_grown(soak.samples)
    cell.close()


def everything_is_free(cell: Cell) -> None:
    """Free bytes and those of live objects, of which there are none, are the arena."""
    seen: dict[str, int] = {}

    def is_free() -> bool:
        stats = json.loads(cell.owner.ask("stats"))
        names = ("objects", "objects_unsealed", "objects_deleted_but_held", "pins")
        seen.update({name: stats[name] for name in (*names, "memory_used_bytes")})
        # What is lent to a living client is in nobody's use, but lies in between.
        whole = stats["memory_largest_free_bytes"] == stats["memory_total_bytes"]
        seen["in pieces"] = int(stats["objects_lent"] == 0 and not whole)
        return not any(seen.values())

    try:
        wait_until(is_free, EVENT_S)
    except AssertionError:
        pytest.fail(f"this is left: {seen}")


def nothing_has_grown(samples: list[Sample]) -> None:
    """From the middle on, by when everything that is needed once is there."""
    middle, last = samples[len(samples) // 2], samples[-1]
    assert last.descriptors <= middle.descriptors + 3, samples
    assert last.private_bytes <= middle.private_bytes + GROWTH_BYTES, samples
