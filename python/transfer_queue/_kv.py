"""The key-value operations: the order of steps, and what happens when one fails.

    put    encode -> store the block -> tell the queue; only then do the rows exist
    get    ask the queue where the cells are -> read the blocks -> gather columns
    clear  the queue forgets the rows -> blocks without live rows are deleted

A put that the queue refuses deletes its block: there are no ghost rows. A block that
vanishes between the two steps of a get was overwritten or cleared meanwhile, so the
queue is asked again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transfer_queue._deadline import Deadline
from transfer_queue._queue import BlocksRef, GetReply, OutcomeUnknownError, QueueClient
from transfer_queue._torch_fork import settle_in_child
from transfer_queue.storage.managers.base import StorageManager

if TYPE_CHECKING:
    from tensordict import TensorDict

    from transfer_queue._block import EncodedBlock
    from yr.datasystem import DatasystemError

_log = logging.getLogger("transfer_queue.kv")

_LOST_AFTER_S = 1.0  # The queue names the same missing block for so long: it is lost.
_ASK_AGAIN_S = 0.005
_ASK_FOR_ROOM_S = 0.1  # Each time something comes over the network for nothing.
_WAIT_BEFORE_COMPACTING_S = 0.1
_COMPACTED_BYTES_LEAST = 64 << 20  # So that not every small put has to wait.
_FULL = 4  # DS_FULL of include/datasystem/status.h.


@dataclass(frozen=True, slots=True)
class Backend:
    """A storage manager under the name that the queue records with each block."""

    name: str
    manager: StorageManager


class _BlockGoneError(Exception):
    """Blocks named by the queue are not in the store."""

    def __init__(self, block_ids: Sequence[bytes]) -> None:
        super().__init__(block_ids)
        self.block_ids = frozenset(block_ids)


def put_rows(
    queue: QueueClient,
    backend: Backend,
    partition_id: str,
    keys: Sequence[str],
    fields: TensorDict | None,
    tags: Sequence[Mapping[str, Any] | None] | None,
    deadline: Deadline,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The merged tags of the rows, and the fields now produced for all of them."""
    settle_in_child()
    if fields is None or len(fields.keys()) == 0:
        reply = queue.kv_put(partition_id, keys, None, tags, deadline)
        _delete_dead(backend, reply.dead)
        return reply.tags, reply.field_names
    began = time.monotonic()
    with _stored(queue, backend, fields, len(keys), deadline) as (blocks, pending):
        # Waiting for room has its own limit (put_wait_s) and takes none of this time.
        deadline = deadline.later(time.monotonic() - began)
        try:
            reply = queue.kv_put(partition_id, keys, blocks, tags, deadline)
        except (OutcomeUnknownError, KeyboardInterrupt):
            pending.clear()  # They may be in the queue now: then they must stay.
            raise
        pending.clear()
    _delete_dead(backend, reply.dead)
    return reply.tags, reply.field_names


def get_rows(
    queue: QueueClient,
    backend: Backend,
    partition_id: str,
    keys: Sequence[str],
    select: Sequence[str] | None,
    deadline: Deadline,
) -> TensorDict:
    """The rows that exist, in the order of `keys`.

    What other nodes have is copied to this one first, which waits for room.
    """
    from yr.datasystem import DatasystemError

    settle_in_child()
    missing: frozenset[bytes] = frozenset()
    missing_since = 0.0
    while True:
        reply = queue.kv_get(partition_id, keys, select, deadline)
        if not reply.field_names:
            return _nothing_selected(select)
        try:
            return _read(backend, reply)
        except _BlockGoneError as gone:
            now = time.monotonic()
            if gone.block_ids != missing:
                missing, missing_since = gone.block_ids, now
            if deadline.expired or now - missing_since > _LOST_AFTER_S:
                raise _lost(partition_id, keys, missing) from None
            time.sleep(min(_ASK_AGAIN_S, deadline.remaining_s))
        except DatasystemError as error:
            if error.status != _FULL or deadline.expired:
                raise
            time.sleep(min(_ASK_FOR_ROOM_S, deadline.remaining_s))


def clear_rows(
    queue: QueueClient,
    backend: Backend,
    partition_id: str,
    keys: Sequence[str],
    deadline: Deadline,
) -> None:
    """Forget the rows; unknown ones are no error."""
    _delete_dead(backend, queue.kv_clear(partition_id, keys, deadline))


@contextlib.contextmanager
def _stored(
    queue: QueueClient,
    backend: Backend,
    fields: TensorDict,
    rows: int,
    deadline: Deadline,
) -> Iterator[tuple[BlocksRef, list[bytes]]]:
    """The batch as blocks in the store, mostly one, and the list of their ids.

    Whatever the caller leaves in the list, for any reason, is deleted again.
    """
    pieces = list(_split(backend.manager, fields, 0, rows))
    pending = _put_all(queue, backend, [block for _, block in pieces], deadline)
    try:
        ref = BlocksRef(
            block_ids=list(pending),
            backend=backend.name,
            field_names=pieces[0][1].field_names,
            field_bytes=[size for _, block in pieces for size in block.field_bytes],
            firsts=[first for first, _ in pieces[1:]],
        )
        yield ref, pending
    finally:
        _delete_dead(backend, pending)


def _put_all(
    queue: QueueClient,
    backend: Backend,
    blocks: Sequence[EncodedBlock],
    deadline: Deadline,
) -> list[bytes]:
    """Store them all. When there is no room, sparse blocks are compacted for it."""
    from yr.datasystem import DatasystemError

    manager = backend.manager
    # What somebody is just clearing needs no copy: that is worth a short wait.
    first_wait_s = min(_WAIT_BEFORE_COMPACTING_S, manager.put_wait_s)
    may_compact = True
    while True:
        wait_s = first_wait_s if may_compact else manager.put_wait_s - first_wait_s
        try:
            return manager.put_all(blocks, wait_s)
        except DatasystemError as error:
            if error.status != _FULL:
                raise
            if not may_compact:
                raise _with_dead_share(error, queue, deadline) from None
            may_compact = _make_room(queue, backend, blocks, deadline)


def _make_room(
    queue: QueueClient,
    backend: Backend,
    blocks: Sequence[EncodedBlock],
    deadline: Deadline,
) -> bool:
    """For these, and mostly for some more puts. False: there is nothing to compact."""
    from transfer_queue._compact import make_room

    needed = sum(sum(block.part_sizes) for block in blocks)
    wanted = max(needed, _COMPACTED_BYTES_LEAST)
    return make_room(queue, backend.manager, backend.name, wanted, deadline)


def _with_dead_share(
    error: DatasystemError, queue: QueueClient, deadline: Deadline
) -> DatasystemError:
    """What the store cannot know: how much of it is of rows that are gone."""
    from yr.datasystem import DatasystemError

    stats = queue.stats(deadline)
    stored, live = int(stats["blocks_bytes"]), int(stats["blocks_live_bytes"])
    if stored == 0:
        return error
    return DatasystemError(
        error.status,
        f"{error.message}; the queue has {stored >> 20} MB in blocks, of which "
        f"{100 * (stored - live) // stored}% are of rows that were cleared or "
        "overwritten",
    )


def _split(
    manager: StorageManager, fields: TensorDict, first: int, last: int
) -> Iterator[tuple[int, EncodedBlock]]:
    """Halve the rows until each block is as small as the store wants it: the position
    of each block's first row, and the block."""
    from transfer_queue._block import encode_fields
    from transfer_queue._rows import slice_rows

    some = fields if last - first == len(fields) else slice_rows(fields, first, last)
    block = encode_fields(some, last - first)
    if sum(block.part_sizes) <= manager.block_bytes_max or last - first == 1:
        yield first, block
        return
    del some, block
    middle = (first + last) // 2
    yield from _split(manager, fields, first, middle)
    yield from _split(manager, fields, middle, last)


def _read(backend: Backend, reply: GetReply) -> TensorDict:
    from transfer_queue._gather import gather

    for _, blocks, _ in reply.groups:
        for _, name in blocks:
            if name != backend.name:
                raise ValueError(
                    "Cannot retrieve stored data because the backend that originally "
                    "stored it is unavailable in the current process or node. Please "
                    "check that the configuration and NPU resource availability are "
                    "consistent across all processes and nodes. "
                    f"(Stored by '{name}', this process has '{backend.name}'.)"
                )
    return gather(
        reply.field_names,
        reply.groups,
        lambda ids, parts: _open_parts(backend.manager, ids, parts),
    )


def _open_parts(
    manager: StorageManager, ids: Sequence[bytes], parts: Sequence[int]
) -> list[Any]:
    opened = manager.get(ids, parts)
    gone = [
        block_id for block_id, part in zip(ids, opened, strict=True) if part is None
    ]
    if gone:
        raise _BlockGoneError(gone)
    return opened


def _nothing_selected(select: Sequence[str] | None) -> TensorDict:
    from tensordict import TensorDict

    _log.warning("none of the selected fields %s is there: the result is empty", select)
    return TensorDict({}, batch_size=0)


def _delete_dead(backend: Backend, block_ids: Sequence[bytes]) -> None:
    """A block that cannot be deleted now only takes room: never a reason to fail."""
    if not block_ids:
        return
    try:
        backend.manager.delete(block_ids)
    except RuntimeError as error:
        _log.warning("%d blocks were not deleted: %s", len(block_ids), error)


def _lost(
    partition_id: str, keys: Sequence[str], block_ids: frozenset[bytes]
) -> RuntimeError:
    some = ", ".join(sorted(block_id.hex() for block_id in block_ids)[:3])
    return RuntimeError(
        f"Data of partition '{partition_id}' is lost: the queue names {len(block_ids)} "
        f"blocks (such as {some}) that the storage no longer has, for {len(keys)} "
        f"requested keys (such as {keys[0]!r}). The storage was restarted without its "
        "memory, or something else deleted them. Clear these keys and put them again."
    )
