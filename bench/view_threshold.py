"""Where a private view of a column begins to pay: view or copy, by size.

    python bench/view_threshold.py

A column of a get is a view (its pages are mapped, nothing is copied) or a copy into
memory that was touched before. Takes both by turns, of 64 KiB to 16 MiB, and what users
do with them: nothing, read all, change all. Times are the medians per get, in us, with
what dropping it costs. The sizes in _block.py and _warm_memory.py come from here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from _sides import OURS, DscliDaemon, Side
from transfer_queue._warm_memory import warm_memory
from yr.datasystem import KVClient
from yr.datasystem._core import copy_bytes

SIZES = [1 << n for n in range(16, 25)]
ROUNDS = 60


def nothing(values: np.ndarray) -> None:
    values[0] = values[-1]


def read(values: np.ndarray) -> None:
    values.sum()


def change(values: np.ndarray) -> None:
    values += 1


USES: dict[str, Callable[[np.ndarray], None]] = {
    "drop": nothing,
    "read all": read,
    "change all": change,
}


def viewed(buffer: Any, size: int) -> np.ndarray:
    return np.frombuffer(buffer.view(), np.int64)


def copied(buffer: Any, size: int) -> np.ndarray:
    memory = warm_memory.take(size)
    copy_bytes(memory.data, buffer)
    values: np.ndarray = memory.view(np.int64)
    return values


def measure(client: KVClient, size: int) -> list[str]:
    client.set("column", bytes(size))
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(ROUNDS + 5):
        for use_name, use in USES.items():
            for way_name, way in (("view", viewed), ("copy", copied)):
                (buffer,) = client.get_buffers(["column"])
                begin = time.perf_counter()
                values = way(buffer, size)
                use(values)
                del values
                elapsed = time.perf_counter() - begin
                del buffer
                if turn >= 5:  # Before that memory is touched for the first time.
                    times.setdefault((use_name, way_name), []).append(elapsed * 1e6)
    cells = [f"{size >> 10} KiB"]
    for use_name in USES:
        view, copy = (
            statistics.median(times[use_name, way]) for way in ("view", "copy")
        )
        cells.append(f"{view:.0f} / {copy:.0f}")
    return cells


def main() -> None:
    side = Side("ours", OURS / "python", "store_driver.py", "ours")
    daemon = DscliDaemon(OURS, side.folder)
    side.add(daemon)
    side.wait_until_populated()
    host, port = daemon.address.split(":")
    client = KVClient(host, int(port))
    client.init()
    print("| view / copy, us | " + " | ".join(USES) + " |")
    print("|---" * (len(USES) + 1) + "|")
    for size in SIZES:
        print("| " + " | ".join(measure(client, size)) + " |", flush=True)
    client.close()
    side.stop()


if __name__ == "__main__":
    main()
