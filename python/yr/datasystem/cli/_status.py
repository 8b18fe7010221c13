"""`dscli status`: this user's workers on this node, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from yr.datasystem.cli._ask import ask_holders, ask_worker
from yr.datasystem.cli._config import socket_of
from yr.datasystem.cli._output import CommandError
from yr.datasystem.cli._processes import Worker, find_workers, owner_is_alive

COLUMNS = (
    *("ADDRESS", "PID", "UPTIME", "STATE", "MEMORY", "OBJECTS", "CLIENTS", "OWNER"),
)
HOLDER_COLUMNS = ("PROCESS", "IN USE", "OF WHICH DELETED", "UNSEALED")


def run(address: str | None, as_json: bool, with_pins: bool) -> int:
    """With an address: that worker alone, as one JSON object."""
    workers = find_workers()
    if address is not None:
        workers = [worker for worker in workers if worker.address == address]
    pids = {worker.pid for worker in workers}
    rows = [_describe(worker, pids - {worker.pid}) for worker in workers]
    if address is not None and not rows:
        rows = [_describe_foreign(address)]
    if with_pins:
        for row in rows:
            row["holders"] = [] if "error" in row else _holders(row)
    if as_json:
        print(json.dumps(rows if address is None else rows[0], indent=2))
    elif rows:
        _print_table([COLUMNS, *(_cells(row) for row in rows)])
        for row in rows if with_pins else ():
            _print_holders(row)
    else:
        print("no datasystem worker of this user runs on this node")
    return 0


def _describe(worker: Worker, others: set[int]) -> dict[str, Any]:
    """What the process table says, and what the worker says where it answers.

    Who answers may be another worker: this one is then just starting, or stopping, at
    the same address.
    """
    row: dict[str, Any] = {
        "worker_address": worker.address,
        "pid": worker.pid,
        "child_pid": worker.child_pid,
        "uptime_ms": round(worker.uptime_s * 1000),
        "state": "UNREACHABLE",
        "owner": worker.owner,
        "unix_socket": socket_of(worker.flags),
        "alive_owner": owner_is_alive(worker.owner),
    }
    try:
        answer = ask_worker(worker.address)
    except CommandError as error:
        row["error"] = str(error)
        return row
    if answer.get("pid") in others:
        row["error"] = f"PID {answer['pid']} answers at {worker.address}"
        return row
    return {**answer, **row, "state": answer["state"]}


def _describe_foreign(address: str) -> dict[str, Any]:
    """A worker that /proc does not show: of another user, container or node."""
    row = ask_worker(address)
    row["alive_owner"] = None
    return row


def _holders(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A process may have several clients: one entry each."""
    return ask_holders(str(row["worker_address"]))


def _print_holders(row: dict[str, Any]) -> None:
    print()
    if not row["holders"]:
        print(f"nobody holds memory of {row['worker_address']}")
        return
    cells = [
        [
            str(holder["process"]),
            _count_and_size(holder, "pinned"),
            _count_and_size(holder, "deleted"),
            _count_and_size(holder, "unsealed"),
        ]
        for holder in row["holders"]
    ]
    _print_table([HOLDER_COLUMNS, *cells])


def _count_and_size(holder: dict[str, Any], name: str) -> str:
    return f"{holder[name]} ({_size(holder, f'{name}_bytes')})"


def _print_table(cells: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def _cells(row: dict[str, Any]) -> list[str]:
    owner = str(row.get("owner") or "-")
    if row.get("alive_owner") is False:
        owner += " (ended)"
    return [
        str(row.get("worker_address", "-")),
        str(row.get("pid", "-")),
        _duration(int(row.get("uptime_ms", 0)) // 1000),
        str(row.get("state", "-")),
        f"{_size(row, 'memory_used_bytes')} / {_size(row, 'memory_total_bytes')}",
        str(row.get("objects", "-")),
        str(row.get("clients", "-")),
        owner,
    ]


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


def _size(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return "-"
    value = float(row[name])
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
