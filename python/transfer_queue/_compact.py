"""Room from blocks that are mostly dead.

A block takes its room until the last of its rows is cleared or overwritten. Whoever
finds the store full asks the queue for blocks of which at least half is dead, copies
the live rows of each into a new block as they are, byte for byte, and tells the queue,
which then lets go of the old one. Rows that change meanwhile stay as they were changed:
the queue moves only what is still in the old block.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from transfer_queue._block import EncodedBlock
from transfer_queue._columns import EncodedColumn, Kind, Payload, offsets_of
from transfer_queue._deadline import Deadline
from transfer_queue._dtypes import DTYPE_OF_NAME
from transfer_queue._errors import BlockCorruptError
from transfer_queue._queue import BlocksRef, OutcomeUnknownError, QueueClient
from transfer_queue._stored import OpenBlock, StoredColumn
from transfer_queue.storage.managers.base import StorageManager

_log = logging.getLogger("transfer_queue.compact")


@dataclass(frozen=True, slots=True)
class SparseRows:
    """Live rows of a block of which most is dead: key i is its row `rows[i]`, rows
    ascend, and `field_names` are what of these rows is still in it."""

    block_id: bytes
    partition_id: str
    field_names: list[str]
    keys: list[str]
    rows: list[int]


def make_room(
    queue: QueueClient,
    manager: StorageManager,
    backend_name: str,
    wanted_bytes: int,
    deadline: Deadline,
) -> bool:
    """Compact until about so many bytes are free, if there is something to compact.

    Never raises for what it could not move: that stays where it is. True if there is
    more room now.
    """
    found = queue.sparse_blocks(wanted_bytes, backend_name, deadline)
    left = 0
    for sparse in (SparseRows(*group) for group in found):
        try:
            _move(queue, manager, backend_name, sparse, deadline)
        except (RuntimeError, BlockCorruptError) as error:
            left += 1
            _log.info("block %s stays as it is: %s", sparse.block_id.hex(), error)
    _log.debug("compacted %d of %d runs of sparse rows", len(found) - left, len(found))
    return left < len(found)


def _move(
    queue: QueueClient,
    manager: StorageManager,
    backend_name: str,
    sparse: SparseRows,
    deadline: Deadline,
) -> None:
    """The rows are in a block of their own then, or went away meanwhile."""
    block = _opened(manager, sparse)
    if block is None:
        return
    encoded = copy_of_rows(block, sparse.field_names, sparse.rows)
    (new_id,) = manager.put_all([encoded], wait_s=0.0)
    ref = BlocksRef(
        block_ids=[new_id],
        backend=backend_name,
        field_names=encoded.field_names,
        field_bytes=encoded.field_bytes,
        firsts=[],
    )
    try:
        dead = queue.kv_move(
            sparse.partition_id, sparse.keys, ref, sparse.block_id, deadline
        )
    except OutcomeUnknownError:
        raise  # It may be in the queue now: then it must stay.
    except ValueError:  # Nothing of them is there any more.
        dead = [new_id]
    except BaseException:
        manager.delete([new_id])
        raise
    if dead:
        manager.delete(dead)


def _opened(manager: StorageManager, sparse: SparseRows) -> OpenBlock | None:
    (head,) = manager.get([sparse.block_id], [0])
    if head is None:
        return None
    block = OpenBlock(head)
    numbers = block.reader.parts_needed(sparse.field_names)[1:]
    parts = manager.get([sparse.block_id] * len(numbers), numbers)
    for number, part in zip(numbers, parts, strict=True):
        if part is None:
            return None
        block.add_part(number, part)
    return block


# ---- Rows of a block as a block --------------------------------------------------


def copy_of_rows(
    block: OpenBlock, field_names: Sequence[str], rows: Sequence[int]
) -> EncodedBlock:
    """These rows, which ascend, and these fields of the block as a block of their own.
    Its bytes are read by EncodedBlock.write_into(). Raises BlockCorruptError."""
    if not rows or rows[-1] >= block.reader.rows:
        raise BlockCorruptError(
            f"reply: it names row {max(rows, default=0)} of a block of "
            f"{block.reader.rows} rows"
        )
    chosen = np.asarray(rows, np.int64)
    columns = [_copied(StoredColumn(block, name), chosen) for name in field_names]
    return EncodedBlock(len(chosen), columns)


def _copied(stored: StoredColumn, rows: np.ndarray) -> EncodedColumn:
    return _COPIES[Kind(stored.description.kind)](stored, rows)


def _like(
    stored: StoredColumn,
    data: Payload,
    *,
    offsets: Payload | None = None,
    shapes: Payload | None = None,
    marks: Payload | None = None,
) -> EncodedColumn:
    column = stored.description
    return EncodedColumn(
        name=column.name,
        kind=Kind(column.kind),
        dtype=column.dtype,
        shape=tuple(column.shape),
        ragged_dim=column.ragged_dim,
        data=data,
        offsets=offsets,
        shapes=shapes,
        marks=marks,
    )


def _dense(stored: StoredColumn, rows: np.ndarray) -> EncodedColumn:
    row_bytes = _unit_bytes(stored)
    bounds = np.arange(stored.rows + 1, dtype=np.int64) * row_bytes
    return _like(stored, _bytes_of_rows(stored, bounds, rows))


def _ragged(stored: StoredColumn, rows: np.ndarray) -> EncodedColumn:
    unit = _unit_bytes(stored)
    offsets = stored.offsets(unit)
    return _like(
        stored,
        _bytes_of_rows(stored, offsets * unit, rows),
        offsets=_array(offsets_of(np.diff(offsets)[rows])),
    )


def _shaped(stored: StoredColumn, rows: np.ndarray) -> EncodedColumn:
    itemsize = DTYPE_OF_NAME[stored.description.dtype].itemsize
    shapes, elements = stored.shapes(itemsize)
    return _like(
        stored,
        _bytes_of_rows(stored, offsets_of(elements) * itemsize, rows),
        shapes=_array(np.ascontiguousarray(shapes[rows])),
    )


def _objects(stored: StoredColumn, rows: np.ndarray) -> EncodedColumn:
    assert stored.description.marks is not None
    offsets = stored.offsets(1)
    marks = stored.block.bytes_of(stored.description.marks)
    return _like(
        stored,
        _bytes_of_rows(stored, offsets, rows),
        offsets=_array(offsets_of(np.diff(offsets)[rows])),
        marks=_array(marks[rows]),
    )


_COPIES: dict[Kind, Callable[[StoredColumn, np.ndarray], EncodedColumn]] = {
    Kind.DENSE: _dense,
    Kind.RAGGED: _ragged,
    Kind.SHAPED: _shaped,
    Kind.OBJECT: _objects,
}


def _unit_bytes(stored: StoredColumn) -> int:
    """Bytes of a row, or of one step of its ragged dimension."""
    column = stored.description
    return math.prod(column.shape) * DTYPE_OF_NAME[column.dtype].itemsize


def _array(array: np.ndarray) -> Payload:
    return Payload(array.nbytes, [array])


def _bytes_of_rows(
    stored: StoredColumn, bounds: np.ndarray, rows: np.ndarray
) -> Payload:
    """Where they lie, run by run; row i is [bounds[i], bounds[i + 1])."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    firsts = rows[np.concatenate(([0], breaks))]
    lasts = rows[np.concatenate((breaks - 1, [len(rows) - 1]))]
    data = stored.data()
    runs = zip(bounds[firsts].tolist(), bounds[lasts + 1].tolist(), strict=True)
    sources = [data[start:end] for start, end in runs if end > start]
    return Payload(sum(len(source) for source in sources), sources)
