"""The controller as a dict: docs/queue_protocol.md in memory, one instance per queue.

It is the model that the Python side is tested against without any process. Rows
remember for each field in which block and row their cell is; replies are built from
that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from yr.datasystem import DatasystemError

INVALID, NOT_FOUND, TIMEOUT, NOT_READY, IO = 1, 2, 5, 6, 7

Cell = tuple[bytes, int]  # A block and the row in it.


@dataclass
class Row:
    """One key. `raw_tags` maps a name to its value as MessagePack bytes."""

    raw_tags: dict[str, Any] = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)


class FakeQueue:
    """State shared by all connections that `open` makes.

    `before` is called with each request, to interfere; `requests` counts operations.
    """

    def __init__(self) -> None:
        self.partitions: dict[str, dict[str, Row]] = {}
        self.backends: dict[bytes, str] = {}
        self.block_cells: dict[bytes, int] = {}  # Live or not.
        self.config: bytes | None = None
        self.requests: list[str] = []
        self.before: Callable[[list[Any]], None] = lambda _: None
        self.connections = 0

    def open(self, _address: str, connect_timeout_ms: int) -> FakeConnection:
        assert connect_timeout_ms > 0
        self.connections += 1
        return FakeConnection(self)

    def apply(self, request: list[Any]) -> Any:
        operation, *arguments = request
        self.requests.append(operation)
        self.before(request)
        return getattr(self, f"_{operation}")(*arguments)

    def _kv_put(
        self, partition: str, keys: list[str], blocks: list[Any] | None, tags: Any
    ) -> list[Any]:
        if len(set(keys)) != len(keys):
            raise DatasystemError(INVALID, "Got duplicated keys.")
        if any(not key or len(key.encode()) > 65536 for key in keys):
            raise DatasystemError(INVALID, "kv_put: a key is empty or too long")
        rows = self.partitions.setdefault(partition, {})
        touched = [rows.setdefault(key, Row()) for key in keys]
        before = self._live_blocks()
        for position, row in enumerate(touched):
            if tags is not None and tags[position] is not None:
                row.raw_tags.update(tags[position])
            if blocks is not None:
                ids, backend, fields, _, firsts = blocks
                at = sum(first <= position for first in firsts)
                row_in_block = position - [0, *firsts][at]
                self.backends[ids[at]] = backend
                self.block_cells[ids[at]] = len(fields) * len(keys)
                row.cells.update(dict.fromkeys(fields, (ids[at], row_in_block)))
        common = set.intersection(*(set(row.cells) for row in touched))
        return [
            [row.raw_tags for row in touched],
            sorted(common),
            self._dead(before),
        ]

    def _kv_get(
        self, partition: str, keys: list[str], select: list[str] | None
    ) -> list[Any]:
        rows = self.partitions.get(partition, {})
        found = [at for at, key in enumerate(keys) if key in rows]
        if not found:
            raise DatasystemError(NOT_FOUND, "keys or partition were not found!")
        wanted = [rows[keys[at]] for at in found]
        common = set.intersection(*(set(row.cells) for row in wanted))
        if not common:
            text = "Some fields are not ready in all the requested keys!"
            raise DatasystemError(NOT_READY, text)
        if select is not None:
            common &= set(select)
        names = sorted(common)
        groups = [self._group(index, name, wanted) for index, name in enumerate(names)]
        return [None if len(found) == len(keys) else found, names, groups]

    def _group(self, index: int, name: str, rows: list[Row]) -> list[Any]:
        blocks: list[list[Any]] = []
        runs: list[list[int]] = []
        for row in rows:
            block_id, at = row.cells[name]
            entry = [block_id, self.backends[block_id]]
            if entry not in blocks:
                blocks.append(entry)
            number = blocks.index(entry)
            if runs and runs[-1][0] == number and sum(runs[-1][1:]) == at:
                runs[-1][2] += 1
            else:
                runs.append([number, at, 1])
        return [[index], blocks, [number for run in runs for number in run]]

    def _kv_list(self, partition: str | None) -> dict[str, Any]:
        chosen = self.partitions if partition is None else {partition}
        return {
            name: {key: row.raw_tags for key, row in self.partitions[name].items()}
            for name in chosen
            if name in self.partitions
        }

    def _kv_clear(self, partition: str, keys: list[str]) -> list[Any]:
        before = self._live_blocks()
        for key in keys:
            self.partitions.get(partition, {}).pop(key, None)
        return [self._dead(before)]

    def _kv_move(
        self, partition: str, keys: list[str], blocks: list[Any], source: bytes
    ) -> list[Any]:
        (block_id,), backend, fields, _, _ = blocks
        before = self._live_blocks()
        rows = self.partitions.get(partition, {})
        moved = [
            (rows[key], name, at)
            for at, key in enumerate(keys)
            for name in fields
            if key in rows and rows[key].cells.get(name, (None, 0))[0] == source
        ]
        if not moved:
            raise DatasystemError(NOT_FOUND, "kv_move: none of these cells is there")
        for row, name, at in moved:
            row.cells[name] = (block_id, at)
        self.backends[block_id] = backend
        self.block_cells[block_id] = len(fields) * len(keys)
        return [self._dead(before)]

    def _sparse_blocks(self, _wanted_bytes: int, backend: str) -> list[list[Any]]:
        found: dict[tuple[bytes, str, tuple[str, ...]], dict[int, str]] = {}
        live: dict[bytes, int] = {}
        for partition, rows in self.partitions.items():
            for key, row in rows.items():
                for block_id, at in set(row.cells.values()):
                    fields = sorted(
                        name
                        for name, cell in row.cells.items()
                        if cell == (block_id, at)
                    )
                    live[block_id] = live.get(block_id, 0) + len(fields)
                    group = (block_id, partition, tuple(fields))
                    found.setdefault(group, {})[at] = key
        return [
            [block_id, partition, list(fields), *_sorted_by_row(cells)]
            for (block_id, partition, fields), cells in found.items()
            if 2 * live[block_id] <= self.block_cells[block_id]
            and self.backends[block_id] == backend
        ]

    def _config_set(self, config: bytes) -> None:
        self.config = config

    def _config_get(self, _wait_ms: int) -> bytes | None:
        return self.config

    def _stats(self) -> dict[str, int]:
        stored = sum(self.block_cells[block] for block in self._live_blocks())
        rows = [row for rows in self.partitions.values() for row in rows.values()]
        return {
            "partitions": len(self.partitions),
            "blocks_bytes": stored << 20,
            "blocks_live_bytes": sum(len(row.cells) for row in rows) << 20,
        }

    def _live_blocks(self) -> set[bytes]:
        rows = [row for rows in self.partitions.values() for row in rows.values()]
        return {block_id for row in rows for block_id, _ in row.cells.values()}

    def _dead(self, before: set[bytes]) -> list[bytes]:
        return sorted(before - self._live_blocks())


def _sorted_by_row(cells: dict[int, str]) -> tuple[list[str], list[int]]:
    return [cells[row] for row in sorted(cells)], sorted(cells)


class FakeConnection:
    """What QueueConnection is to the library."""

    def __init__(self, queue: FakeQueue) -> None:
        self._queue = queue
        self.closed = False

    def call(self, request: bytes, timeout_ms: int) -> bytes:
        assert timeout_ms > 0
        if self.closed:
            raise DatasystemError(IO, "the connection is closed")
        # Unknown extension values pass through, as tags do in the real controller.
        return msgspec.msgpack.encode(
            self._queue.apply(msgspec.msgpack.decode(request))
        )

    def close(self) -> None:
        self.closed = True
