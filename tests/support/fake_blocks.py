"""The block store as a dict, in the shape of yr.datasystem.BlockClient."""

from __future__ import annotations

import json
from collections.abc import Sequence

from yr.datasystem import DatasystemError

NOT_FOUND, FULL = 2, 4


class FakePart(bytearray):
    """A Buffer: exports its bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size
        self.sealed = False

    def view(self) -> None:
        """No private mappings here: readers have to copy."""


class FakeStore:
    """State shared by all clients that `open` makes. `capacity` in bytes."""

    def __init__(self, capacity: int = 1 << 40, arena_bytes: int = 0) -> None:
        self.blocks: dict[bytes, list[FakePart]] = {}
        self.capacity = capacity
        self.arena_bytes = arena_bytes
        self.created = 0
        self.gets: list[int] = []
        self.waits_ms: list[int] = []

    def open(self, _host: str, _port: int, _queue: str | None) -> FakeBlockClient:
        return FakeBlockClient(self)


class FakeBlockClient:
    """A client of the store."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self.closed = False

    def stats(self) -> str:
        return json.dumps({"memory_total_bytes": self._store.arena_bytes})

    def blocks_create(
        self, sizes: Sequence[int], counts: Sequence[int], room_wait_ms: int
    ) -> list[FakePart]:
        store = self._store
        store.waits_ms.append(room_wait_ms)
        assert all(size >= 1 for size in sizes)
        assert sum(counts) == len(sizes) <= 10_000
        used = sum(part.size for parts in store.blocks.values() for part in parts)
        if used + sum(sizes) > store.capacity:
            raise DatasystemError(FULL, "Shared memory no space in arena: ...")
        return [FakePart(size) for size in sizes]

    def block_seal(self, parts: Sequence[FakePart]) -> bytes:
        store = self._store
        for part in parts:
            part.sealed = True
        store.created += 1
        block_id = store.created.to_bytes(16, "little")
        store.blocks[block_id] = list(parts)
        return block_id

    def block_get(
        self, ids: Sequence[bytes], parts: Sequence[int]
    ) -> list[FakePart | None]:
        self._store.gets.append(len(ids))
        assert 0 < len(ids) <= 10_000
        blocks = self._store.blocks
        found = [
            blocks[block_id][part] if block_id in blocks else None
            for block_id, part in zip(ids, parts, strict=True)
        ]
        if all(part is None for part in found):
            raise DatasystemError(NOT_FOUND, "none of the blocks exists")
        return found

    def block_delete(self, ids: Sequence[bytes]) -> None:
        for block_id in ids:
            self._store.blocks.pop(block_id, None)

    def close(self) -> None:
        self.closed = True
