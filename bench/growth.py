"""How the figures change with the number of objects and of clients."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from typing import Any

from _sides import OURS, PEERS, ROOT, DscliDaemon, Side

OBJECTS = [10, 10_000, 1_000_000]
CLIENTS = [1, 8, 64]
# operation, keys in one call, bytes of a value, rounds
CASES = [
    ("put", 1, 1 << 10, 400),
    ("get", 1, 1 << 10, 400),
    ("delete", 1, 1 << 10, 400),
    ("put", 1, 64 << 10, 200),
    ("get", 1, 64 << 10, 200),
    ("put", 1000, 1 << 10, 10),
    ("get", 1000, 1 << 10, 10),
]
# Of all clients together, in one measurement.
CALLS_OF_CLIENTS = {"put": 6400, "get": 64_000}
ROUNDS = 3


def label(operation: str, count: int, size: int) -> str:
    """As the store's table names it."""
    kib = f"{size >> 10} KB"
    return f"{operation} {kib}" if count == 1 else f"{operation} {count} x {kib}"


def over_objects(side: Side, quick: bool) -> dict[str, list[float]]:
    """p50 in us of each case, beside so many other objects."""
    result: dict[str, list[float]] = {}
    for objects in OBJECTS[: 2 if quick else 3]:
        side.ask({"fill": objects})
        for operation, count, size, rounds in CASES:
            request = {"operation": operation, "count": count, "bytes": size}
            request |= {"rounds": max(4, rounds // (10 if quick else 1)), "start_at": 0}
            side.ask(request)
            times = [ns for _ in range(ROUNDS) for ns in side.ask(request)["ns"]]
            name = label(operation, count, size)
            result.setdefault(name, []).append(statistics.median(times) / 1e3)
    return result


def together(sides: list[Side], request: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of all, who begin at the same moment."""
    request = {**request, "start_at": time.monotonic() + 0.05 + 0.005 * len(sides)}
    for side in sides:
        side.send(request)
    return [side.receive() for side in sides]


def over_clients(sides: list[Side], quick: bool) -> dict[str, list[float]]:
    """Calls per second of all clients together; the best of some rounds."""
    result: dict[str, list[float]] = {}
    for clients in CLIENTS[: 2 if quick else 3]:
        for operation, count, size, _ in CASES:
            if count > 1 or operation == "delete":  # A delete needs a put before it.
                continue
            rounds = CALLS_OF_CLIENTS[operation] // clients // (10 if quick else 1)
            rounds = max(20, rounds)
            request = {"operation": operation, "count": count, "bytes": size}
            request["rounds"] = rounds
            rates = []
            for _ in range(ROUNDS):
                answers = together(sides[:clients], request)
                first = min(answer["began"] for answer in answers)
                last = max(answer["ended"] for answer in answers)
                rates.append(clients * rounds / (last - first))
            name = label(operation, count, size)
            result.setdefault(name, []).append(max(rates))
    return result


def table(
    head: str, columns: list[int], rows: dict[str, list[float]], unit: str
) -> list[str]:
    """A table with one line for each case."""
    used = columns[: len(next(iter(rows.values())))]
    lines = [f"| {head} | " + " | ".join(f"{n:,}" for n in used) + " |"]
    lines.append("|" + "---|" * (len(used) + 1))
    for name, values in rows.items():
        cells = [f"{value:,.0f}{unit}" for value in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def plot(name: str, title: str, y: str, x: list[int], rows: Any) -> None:
    """docs/plots/NAME.svg; matplotlib is among the peers' packages."""
    request = {"title": title, "y": y, "x": x, "rows": rows}
    request["path"] = str(ROOT / "docs" / "plots" / f"{name}.svg")
    subprocess.run(
        [str(PEERS / "python"), str(ROOT / "bench" / "plot.py")],
        input=json.dumps(request),
        text=True,
        check=True,
    )


def bench_growth(quick: bool) -> list[str]:
    """Tables over objects and over clients; writes the plots beside them."""
    first = Side("worker", OURS / "python", "growth_driver.py")
    daemon = DscliDaemon(OURS, first.folder)
    first.add(daemon)
    host, port = daemon.address.rsplit(":", 1)
    sides = [
        Side(f"client {i}", OURS / "python", "growth_driver.py", host, port)
        for i in range(CLIENTS[1 if quick else 2])
    ]
    try:
        for side in sides:
            side.start()
        objects = over_objects(sides[0], quick)
        clients = over_clients(sides, quick)
    finally:
        for side in sides:
            side.stop()
        first.stop()
    if not quick:
        plot(
            *("growth-objects", "Time of a call beside other objects", "p50, us"),
            *(OBJECTS, objects),
        )
        plot(
            *("growth-clients", "Calls of all clients together", "calls per second"),
            *(CLIENTS, clients),
        )
    lines = table("p50 beside so many objects", OBJECTS, objects, " us")
    lines += ["", "![](plots/growth-objects.svg)", ""]
    lines += table("calls per second of so many clients", CLIENTS, clients, "")
    return [*lines, "", "![](plots/growth-clients.svg)"]
