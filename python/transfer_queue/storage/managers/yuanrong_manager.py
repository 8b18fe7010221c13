"""Blocks in the datasystem worker of this node."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from transfer_queue._worker import say_how_npu_tensors_travel
from transfer_queue.storage.managers.base import (
    Block,
    Part,
    StorageManager,
    StorageManagerFactory,
)
from transfer_queue.utils.yuanrong_utils import require_worker_host, worker_port_of

_log = logging.getLogger("transfer_queue.storage.yuanrong")

_NOT_FOUND = 2  # DS_NOT_FOUND of include/datasystem/status.h.
_BATCH_MAX = 10_000  # DS_BATCH_KEYS_MAX of include/datasystem/datasystem.h.
_CONNECT_TIMEOUT_MS = 9000
_REQUEST_TIMEOUT_MS = 60_000
_PUT_WAIT_S = 1  # What was cleared a moment ago may still be on its way out.
_PUT_WAIT_S_MAX = 1_000_000
_BLOCK_SHARE_OF_ARENA = 8  # docs/decisions/0004: a get of two blocks has to copy.
_BLOCK_BYTES_MAX = 1 << 30
_BLOCK_BYTES_LEAST_MAX = 1 << 20


class Client(Protocol):
    """What this module needs of yr.datasystem.BlockClient."""

    def stats(self) -> str: ...
    def blocks_create(
        self, sizes: Sequence[int], counts: Sequence[int], room_wait_ms: int
    ) -> list[Any]: ...
    def block_seal(self, parts: Sequence[Any]) -> bytes: ...
    def block_get(
        self, ids: Sequence[bytes], parts: Sequence[int]
    ) -> list[Any | None]: ...
    def block_delete(self, ids: Sequence[bytes]) -> None: ...
    def close(self) -> None: ...


def open_block_client(host: str, port: int, queue: str | None) -> Client:
    """The real client, over libdatasystem."""
    from yr.datasystem import BlockClient

    return BlockClient(
        host, port, _CONNECT_TIMEOUT_MS, _REQUEST_TIMEOUT_MS, queue=queue
    )


OpenClient = Callable[[str, int, str | None], Client]


@StorageManagerFactory.register("Yuanrong")
class YuanrongStorageManager(StorageManager):
    """The default backend.

    Connects on first use; a forked child makes a connection of its own and never
    touches its parent's, whose views in the child stay right.
    """

    def __init__(
        self,
        controller_info: Any,
        config: Mapping[str, Any],
        open_client: OpenClient = open_block_client,
    ) -> None:
        super().__init__(controller_info, config)
        self._port = worker_port_of(config)
        self._queue: str | None = config.get("queue")  # The queue's name.
        client_name = self.config.setdefault("client_name", "YuanrongStorageClient")
        if client_name not in (None, "YuanrongStorageClient"):
            raise ValueError(f"Invalid 'client_name': {client_name} in config")
        self.put_wait_s = _put_wait_s_of(config)
        self._open_client = open_client
        self._client: Client | None = None
        self._start_afresh()

    def put(self, block: Block) -> bytes:
        return self.put_all([block])[0]

    def put_all(
        self, blocks: Sequence[Block], wait_s: float | None = None
    ) -> list[bytes]:
        client = self._connected()
        wait_ms = int(1000 * (self.put_wait_s if wait_s is None else wait_s))
        with self._all_or_none() as ids:
            for some in _batches(blocks):
                _put_some(client, some, wait_ms, ids)
        return ids

    def get(self, ids: Sequence[bytes], parts: Sequence[int]) -> list[Part | None]:
        client = self._connected()
        found: list[Part | None] = []
        for first in range(0, len(ids), _BATCH_MAX):
            last = first + _BATCH_MAX
            found += _get_some(client, ids[first:last], parts[first:last])
        return found

    def delete(self, ids: Sequence[bytes]) -> None:
        client = self._connected()
        for first in range(0, len(ids), _BATCH_MAX):
            client.block_delete(ids[first : first + _BATCH_MAX])

    def connect(self) -> None:
        say_how_npu_tensors_travel(self.config)
        self._connected()

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()

    def _connected(self) -> Client:
        if self._pid != os.getpid():
            self._inherited = self._client  # Kept: its end is the parent's business.
            self._start_afresh()
        with self._lock:
            if self._client is None:
                host = self.config.get("host") or require_worker_host(self._port)
                self._client = self._open_client(host, self._port, self._queue)
                self.block_bytes_max = _block_bytes_max(self._client)
            return self._client

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._client = None


def _batches(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """As many at a time as one request takes; mostly all of them."""
    batch: list[Block] = []
    parts = 0
    for block in blocks:
        parts += len(block.part_sizes)
        if batch and parts > _BATCH_MAX:
            yield batch
            batch, parts = [], len(block.part_sizes)
        batch.append(block)
    yield batch


def _put_some(
    client: Client, blocks: Sequence[Block], wait_ms: int, ids: list[bytes]
) -> None:
    """Reserve room for all of them at once; then write and seal one by one."""
    sizes = [size for block in blocks for size in block.part_sizes]
    counts = [len(block.part_sizes) for block in blocks]
    parts = client.blocks_create(sizes, counts, wait_ms)
    first = 0
    for block, count in zip(blocks, counts, strict=True):
        own = parts[first : first + count]
        block.write_into(own)
        ids.append(client.block_seal(own))
        first += count


def _get_some(
    client: Client, ids: Sequence[bytes], parts: Sequence[int]
) -> list[Part | None]:
    from yr.datasystem import DatasystemError

    try:
        return client.block_get(ids, parts)
    except DatasystemError as error:
        if error.status != _NOT_FOUND:
            raise
        return [None] * len(ids)


def _put_wait_s_of(config: Mapping[str, Any]) -> float:
    """How long a put waits for room. There is no way to say "for ever"."""
    seconds = config.get("put_wait_s", _PUT_WAIT_S)
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= _PUT_WAIT_S_MAX:
        raise ValueError(
            "backend.Yuanrong.put_wait_s must be a number of seconds from 0 to "
            f"{_PUT_WAIT_S_MAX}, not {seconds!r}: so long a put waits when the store "
            "is full"
        )
    return float(seconds)


def _block_bytes_max(client: Client) -> int:
    """At most an eighth of the arena.

    A block with few live rows left is a loss of that size at most. Its large columns
    need no common hole: each is an extent by itself.
    """
    stats: dict[str, Any] = json.loads(client.stats())
    arena_bytes = int(stats.get("memory_total_bytes", 0))
    if arena_bytes <= 0:
        return _BLOCK_BYTES_MAX
    share = arena_bytes // _BLOCK_SHARE_OF_ARENA
    return min(_BLOCK_BYTES_MAX, max(_BLOCK_BYTES_LEAST_MAX, share))
