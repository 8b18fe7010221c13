"""Rows of many blocks -> the TensorDict that the user gets.

The controller answers a get with runs: so many rows of that block from that row on. A
column is put together run by run, without Python per row as long as its rows have one
dtype and fit into one jagged tensor:

    rows without dimensions          one dense tensor
    other tensors                    one jagged nested tensor; where more than one
                                     dimension varies a strided one, else NonTensorStack
    anything else                    NonTensorStack

The ragged dimension is the one that varies, or that was put as such. When nothing tells
(dense input, all rows of one shape) it is 1: torch's own choice, and what users of
`offsets()` expect. Tensors of different dtypes are never converted to a common one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from tensordict import TensorDict

from transfer_queue._block import Column
from transfer_queue._columns import Kind, offsets_of, varying_dims
from transfer_queue._copy_runs import Ranges, copy_runs
from transfer_queue._dtypes import DTYPE_OF_NAME, allocate, carrier_of
from transfer_queue._errors import BlockCorruptError
from transfer_queue._jagged import Offsets
from transfer_queue._rowwise import (
    RowReader,
    column_from_rows,
    row_reader,
)
from transfer_queue._stored import OpenBlock, StoredColumn

OpenParts: TypeAlias = Callable[[Sequence[bytes], Sequence[int]], Sequence[Any]]


def gather(
    field_names: Sequence[str], groups: Sequence[Any], open_parts: OpenParts
) -> TensorDict:
    """Read rows: the `fields` and `groups` of a kv_get reply (docs/queue_protocol.md).

    `open_parts(ids, parts)` answers with a buffer for part `parts[i]` of block `ids[i]`
    each: it offers the buffer protocol and `view()`, a private writable mapping of
    itself or None. It is called at most twice, with all that is needed, and what it
    raises passes through.

    The result has the fields in the order of `field_names`, and `batch_size` is the
    number of rows. Its tensors are writable and independent of the store.
    Raises BlockCorruptError, PickleRefusedError or ValueUnreadableError.
    """
    requests = [_Group(field_names, group) for group in groups]
    if not requests:
        return TensorDict({}, batch_size=[0])
    blocks = _opened_blocks(requests, open_parts)
    offsets = _SharedOffsets()
    columns = {}
    for request in requests:
        runs = _Runs(request, [blocks[block_id] for block_id in request.block_ids])
        if runs.rows != requests[0].rows:
            raise BlockCorruptError("reply: its groups differ in their number of rows")
        for name in request.names:
            columns[name] = _column(name, runs, offsets)
    ordered = {name: columns[name] for name in field_names}
    return TensorDict(ordered, batch_size=[requests[0].rows])


# ---- What is asked for -------------------------------------------------------------


class _Group:
    """Fields whose cells lie together."""

    def __init__(self, field_names: Sequence[str], group: Sequence[Any]) -> None:
        fields, blocks, runs = group
        self.names = [field_names[index] for index in fields]
        self.block_ids = [bytes(block[0]) for block in blocks]
        self.runs = np.array(runs, np.int64).reshape(-1, 3)
        self.rows = int(self.runs[:, 2].sum())


def _opened_blocks(
    requests: Sequence[_Group], open_parts: OpenParts
) -> dict[bytes, OpenBlock]:
    names: dict[bytes, set[str]] = {}
    for request in requests:
        for block_id in request.block_ids:
            names.setdefault(block_id, set()).update(request.names)
    ids = list(names)
    first_parts = open_parts(ids, [0] * len(ids)) if ids else []
    blocks = {
        block_id: OpenBlock(part)
        for block_id, part in zip(ids, first_parts, strict=True)
    }
    wanted = [
        (block_id, part)
        for block_id, block in blocks.items()
        for part in block.reader.parts_needed(names[block_id])
        if part != 0
    ]
    if wanted:
        parts = open_parts([block_id for block_id, _ in wanted], [p for _, p in wanted])
        for (block_id, number), part in zip(wanted, parts, strict=True):
            blocks[block_id].parts[number] = part
    return blocks


class _Runs:
    """Row i of the result: run r holds rows [dest[r], dest[r] + count[r]) of it, which
    are rows [first[r], first[r] + count[r]) of blocks[block[r]]."""

    def __init__(self, request: _Group, blocks: list[OpenBlock]) -> None:
        self.blocks = blocks
        self.block, self.first, self.count = request.runs.T
        self.dest = offsets_of(self.count)[:-1]
        self.rows = request.rows
        self.used_blocks = sorted(set(self.block.tolist()))
        if len(self.block) == 0:
            return
        if self.block.min() < 0 or self.block.max() >= len(blocks):
            raise BlockCorruptError("reply: a run of a block that it does not list")
        block_rows = np.array([block.reader.rows for block in blocks], np.int64)
        ends = self.first + self.count
        if min(self.first.min(), self.count.min()) < 0 or np.any(
            ends > block_rows[self.block]
        ):
            raise BlockCorruptError("reply: a run of rows that its block does not have")

    def __len__(self) -> int:
        return len(self.block)

    def is_whole_block(self) -> bool:
        """True if the result is one block as it is."""
        return len(self) == 1 and self.rows == self.blocks[self.block[0]].reader.rows


# ---- Columns -----------------------------------------------------------------------


def _column(name: str, runs: _Runs, offsets: _SharedOffsets) -> Any:
    stored = {
        number: StoredColumn(runs.blocks[number], name) for number in runs.used_blocks
    }
    shape = _common_shape([column.description for column in stored.values()])
    if shape is None:
        readers = {number: row_reader(column) for number, column in stored.items()}
        return column_from_rows(_rows_one_by_one(readers, runs))
    if shape.ragged_dim == 0:
        return _fixed_rows(shape, stored, runs)
    if shape.length is not None:
        values = _fixed_rows(shape, stored, runs)
        values = values.view(runs.rows * shape.length, *shape.rest)
        return offsets.equal(runs.rows, shape.length).jagged(values, 1)
    values, out_offsets = _ragged_rows(shape, stored, runs)
    return offsets.shared(out_offsets).jagged(values, shape.ragged_dim)


def _rows_one_by_one(readers: dict[int, RowReader], runs: _Runs) -> list[Any]:
    values: list[Any] = []
    for block, first, count in zip(
        runs.block.tolist(), runs.first.tolist(), runs.count.tolist(), strict=True
    ):
        values += readers[block](first, count)
    return values


@dataclass(slots=True)
class _Shape:
    """What the rows of a column have in common.

    rest        the shape of a row without its ragged dimension
    ragged_dim  which one that is; 0: rows have no dimensions
    length      its size, if it is 1 and all rows have the same; else None
    """

    dtype: torch.dtype
    rest: tuple[int, ...]
    ragged_dim: int
    length: int | None

    def step_bytes(self) -> int:
        """Bytes of one step of the ragged dimension, or of a row without any."""
        return math.prod(self.rest) * self.dtype.itemsize


def _common_shape(columns: Sequence[Column]) -> _Shape | None:
    """The one shape into which all rows fit without a look at each, or None."""
    if len({column.dtype for column in columns}) > 1:
        return None
    if not {column.kind for column in columns} <= {Kind.DENSE, Kind.RAGGED}:
        return None
    dtype = DTYPE_OF_NAME[columns[0].dtype]
    dense = {tuple(c.shape) for c in columns if c.kind == Kind.DENSE}
    ragged = {(c.ragged_dim, tuple(c.shape)) for c in columns if c.kind == Kind.RAGGED}
    if dense == {()} and not ragged:
        return _Shape(dtype, (), 0, None)
    if len(dense) == 1 and not ragged:
        (row_shape,) = dense
        return _Shape(dtype, row_shape[1:], 1, row_shape[0])
    if ragged:
        ragged_dim, rest = next(iter(ragged))
    else:
        ragged_dim, rest = _ragged_by_difference(dense)
    # Every row must be `rest` with one size put in at `ragged_dim`.
    whole = {_without(row_shape, ragged_dim) for row_shape in dense}
    if len(ragged) > 1 or not whole <= {rest} or ragged_dim == 0:
        return None
    return _Shape(dtype, rest, ragged_dim, None)


def _ragged_by_difference(
    shapes: set[tuple[int, ...]],
) -> tuple[int, tuple[int, ...]]:
    """The one dimension, counted from 1, in which these differ, and what is left
    without it; 0 if there is no such dimension."""
    if len({len(shape) for shape in shapes}) > 1:
        return 0, ()
    varying = varying_dims([torch.Size(shape) for shape in shapes])
    if len(varying) != 1:
        return 0, ()
    ragged_dim = varying[0] + 1
    return ragged_dim, _without(next(iter(shapes)), ragged_dim)  # type: ignore[return-value]


def _without(shape: tuple[int, ...], ragged_dim: int) -> tuple[int, ...] | None:
    if not 1 <= ragged_dim <= len(shape):
        return None
    return shape[: ragged_dim - 1] + shape[ragged_dim:]


def _fixed_rows(
    shape: _Shape, stored: dict[int, StoredColumn], runs: _Runs
) -> torch.Tensor:
    """The elements, in a row, of rows that all have the same shape."""
    viewed = _viewed(shape, stored, runs)
    if viewed is not None:
        return viewed
    row_elements = math.prod(shape.rest) * (1 if shape.length is None else shape.length)
    out, out_bytes = allocate([runs.rows * row_elements], shape.dtype)
    copy_runs(
        out_bytes,
        {number: column.data() for number, column in stored.items()},
        Ranges(runs.block, runs.first, runs.dest, runs.count),
        row_elements * shape.dtype.itemsize,
    )
    return out


def _ragged_rows(
    shape: _Shape, stored: dict[int, StoredColumn], runs: _Runs
) -> tuple[torch.Tensor, np.ndarray]:
    """The values of a jagged tensor, and its offsets."""
    begins = {number: _row_begins(column, shape) for number, column in stored.items()}
    out_offsets = offsets_of(_gathered_lengths(begins, runs))
    values = _viewed(shape, stored, runs) if shape.ragged_dim == 1 else None
    if values is not None:
        return values.view(int(out_offsets[-1]), *shape.rest), out_offsets
    starts = np.empty(len(runs), np.int64)
    for number, rows_begin in begins.items():
        mine = runs.block == number
        starts[mine] = rows_begin[runs.first[mine]]
    dest = out_offsets[runs.dest]
    lengths = out_offsets[runs.dest + runs.count] - dest
    values, value_bytes = allocate((int(out_offsets[-1]), *shape.rest), shape.dtype)
    copy_runs(
        value_bytes,
        {number: _steps(column, shape) for number, column in stored.items()},
        Ranges(runs.block, starts, dest, lengths),
        shape.step_bytes(),
    )
    turned = values.view(carrier_of(shape.dtype)).movedim(0, shape.ragged_dim - 1)
    return turned.contiguous().view(shape.dtype), out_offsets


def _row_begins(column: StoredColumn, shape: _Shape) -> np.ndarray:
    """Where the rows of a stored column begin, in steps of the ragged dimension."""
    if column.description.kind == Kind.RAGGED:
        return column.offsets(shape.step_bytes())
    length = column.description.shape[shape.ragged_dim - 1]
    return np.arange(column.rows + 1, dtype=np.int64) * length


def _steps(column: StoredColumn, shape: _Shape) -> np.ndarray:
    """The bytes of a stored column with the ragged dimension of its rows first."""
    description = column.description
    if description.kind == Kind.RAGGED or shape.ragged_dim == 1:
        return column.data()
    rows = column.data().view(f"V{shape.dtype.itemsize}")
    rows = rows.reshape(column.rows, *description.shape)
    turned = np.ascontiguousarray(np.moveaxis(rows, shape.ragged_dim, 1))
    return turned.reshape(-1).view(np.uint8)


def _gathered_lengths(begins: dict[int, np.ndarray], runs: _Runs) -> np.ndarray:
    lengths = np.empty(runs.rows, np.int64)
    copy_runs(
        lengths.view(np.uint8),
        {number: np.diff(begin).view(np.uint8) for number, begin in begins.items()},
        Ranges(runs.block, runs.first, runs.dest, runs.count),
        lengths.itemsize,
    )
    return lengths


def _viewed(
    shape: _Shape, stored: dict[int, StoredColumn], runs: _Runs
) -> torch.Tensor | None:
    """All elements of one stored column in a private mapping, without a copy; None
    if more or less than one is wanted, or it is too small, or cannot be mapped."""
    if not runs.is_whole_block():
        return None
    (column,) = stored.values()
    view = column.private_view()
    if view is None:
        return None
    elements = column.description.data.nbytes // shape.dtype.itemsize
    return torch.frombuffer(view, dtype=shape.dtype, count=elements)


class _SharedOffsets:
    """Equal offsets become one tensor: torch then knows that columns fit together."""

    def __init__(self) -> None:
        self._known: list[Offsets] = []
        self._equal: dict[tuple[int, int], Offsets] = {}

    def shared(self, array: np.ndarray) -> Offsets:
        for known in self._known:
            if np.array_equal(known.array, array):
                return known
        self._known.append(Offsets(array))
        return self._known[-1]

    def equal(self, rows: int, length: int) -> Offsets:
        """Those of rows of one length."""
        found = self._equal.get((rows, length))
        if found is None:
            found = self.shared(np.arange(rows + 1, dtype=np.int64) * length)
            self._equal[rows, length] = found
        return found
