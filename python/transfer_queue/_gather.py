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
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from tensordict import TensorDict

from transfer_queue._block import VIEW_BYTES_MIN, Column, aligned
from transfer_queue._columns import Kind, varying_dims
from transfer_queue._dtypes import DTYPE_OF_NAME, carrier_of
from transfer_queue._errors import BlockCorruptError
from transfer_queue._jagged import Offsets
from transfer_queue._rowwise import column_from_rows, row_reader
from transfer_queue._stored import OpenBlock, StoredColumn
from transfer_queue._warm_memory import warm_memory
from yr.datasystem import DatasystemError, RowRuns

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
    columns: dict[str, Any] = dict.fromkeys(field_names)
    counts = set()
    for request in requests:
        rows = _Rows(request, [blocks[block_id] for block_id in request.block_ids])
        counts.add(rows.count)
        columns.update(_columns(request.names, rows, offsets))
    if len(counts) > 1:
        raise BlockCorruptError("reply: its groups differ in their number of rows")
    return _dictionary(columns, counts.pop())


def _dictionary(columns: dict[str, Any], rows: int) -> TensorDict:
    """What the constructor gives, without its look at every column: that costs half as
    much as a jagged tensor, and all of these have so many rows."""
    if _can_skip_looking() and all(
        isinstance(c, torch.Tensor) for c in columns.values()
    ):
        return _unlooked(columns, rows)
    return TensorDict(columns, batch_size=[rows])


def _unlooked(columns: Any, rows: int) -> TensorDict:
    made: TensorDict = TensorDict._new_unsafe(
        columns, batch_size=torch.Size([rows]), nested=False
    )
    return made


@cache
def _can_skip_looking() -> bool:
    """Does this tensordict have that function, and does it mean what we think?"""
    columns = {"a": torch.arange(6).view(2, 3), "b": torch.zeros(2, 1)}
    theirs = TensorDict(dict(columns), batch_size=[2])
    try:
        ours = _unlooked(dict(columns), 2)
        state, wanted = vars(ours), vars(theirs)
        same = {name: state[name] for name in wanted if name != "_tensordict"}
        return (
            state.keys() == wanted.keys()
            and all(same[name] == wanted[name] for name in same)
            and type(state["_tensordict"]) is type(wanted["_tensordict"])
            and list(ours.keys()) == list(theirs.keys())
            and all(ours[name] is columns[name] for name in columns)
        )
    except (AttributeError, KeyError, TypeError, RuntimeError):
        return False


# ---- What is asked for -------------------------------------------------------------


class _Group:
    """Fields whose cells lie together.

    runs   flat triples: index of a block, first row, number of rows
    """

    def __init__(self, field_names: Sequence[str], group: Sequence[Any]) -> None:
        fields, blocks, self.runs = group
        self.names = [field_names[index] for index in fields]
        self.block_ids = [bytes(block[0]) for block in blocks]


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
            blocks[block_id].add_part(number, part)
    return blocks


class _Rows:
    """The rows of a group: `runs` says which of `blocks`, in C from here on."""

    def __init__(self, request: _Group, blocks: list[OpenBlock]) -> None:
        try:
            self.runs = RowRuns(request.runs, [block.reader.rows for block in blocks])
        except (DatasystemError, OverflowError) as error:
            raise BlockCorruptError(f"reply: {error}") from error
        self.triples = request.runs
        self.blocks = blocks
        self.used = self.runs.used
        self.count: int = self.runs.rows

    def stored(self, name: str) -> dict[int, StoredColumn]:
        """The column in each block that has some of its rows, by index."""
        return {number: StoredColumn(self.blocks[number], name) for number in self.used}


# ---- Columns -----------------------------------------------------------------------


@dataclass(slots=True)
class _Planned:
    """A column of tensors: what it is made of, and how it shall lie in memory.

    sources   one for each block, as RowRuns wants them
    offsets   where rows begin, if they are ragged
    elements  how many there are; None: `values` are there already
    start     where they begin in `memory`
    """

    shape: _Shape
    sources: list[Any]
    offsets: Offsets | None
    elements: int
    values: torch.Tensor | None
    memory: Any = None
    start: int = 0

    @property
    def nbytes(self) -> int:
        return self.elements * self.shape.dtype.itemsize


def _columns(
    names: Sequence[str], rows: _Rows, offsets: _SharedOffsets
) -> dict[str, Any]:
    """All columns of a group. Their rows are copied by one call, into memory that is
    theirs together unless a column is large."""
    planned: dict[str, _Planned] = {}
    columns: dict[str, Any] = {}
    for name in names:
        stored = rows.stored(name)
        shape = _common_shape([column.description for column in stored.values()])
        if shape is None:
            columns[name] = column_from_rows(_rows_one_by_one(stored, rows))
        else:
            planned[name] = _plan(name, shape, stored, rows, offsets)
    _copy_all([plan for plan in planned.values() if plan.values is None], rows)
    for name, plan in planned.items():
        columns[name] = _finished(plan, rows, offsets)
    return columns


def _rows_one_by_one(stored: dict[int, StoredColumn], rows: _Rows) -> list[Any]:
    readers = {number: row_reader(column) for number, column in stored.items()}
    triples = iter(rows.triples)
    values: list[Any] = []
    for block, first, count in zip(triples, triples, triples, strict=True):
        values += readers[block](first, count)
    return values


def _plan(
    name: str,
    shape: _Shape,
    stored: dict[int, StoredColumn],
    rows: _Rows,
    offsets: _SharedOffsets,
) -> _Planned:
    sources = [
        _source(stored[number], shape) if number in stored else None
        for number in range(len(rows.blocks))
    ]
    if shape.length is not None:
        elements = rows.count * shape.length * math.prod(shape.rest)
        return _Planned(shape, sources, None, elements, _viewed(shape, stored, rows))
    row_offsets = offsets.shared(*_row_offsets(name, shape, sources, rows))
    elements = int(row_offsets.array[-1]) * math.prod(shape.rest)
    values = _viewed(shape, stored, rows) if shape.ragged_dim == 1 else None
    return _Planned(shape, sources, row_offsets, elements, values)


def _source(column: StoredColumn, shape: _Shape) -> Any:
    """A stored column with the ragged dimension of its rows first."""
    description = column.description
    data, start = column.place(description.data)
    nbytes = description.data.nbytes
    if description.offsets is not None:
        return (data, start, nbytes, *column.place(description.offsets), 0)
    if shape.length is not None:
        return (data, start, nbytes, None, 0, shape.length)
    if shape.ragged_dim > 1:
        data, start = _turned(column, shape), 0
    return (data, start, nbytes, None, 0, description.shape[shape.ragged_dim - 1])


def _turned(column: StoredColumn, shape: _Shape) -> np.ndarray:
    rows = column.data().view(f"V{shape.dtype.itemsize}")
    rows = rows.reshape(column.rows, *column.description.shape)
    turned = np.ascontiguousarray(np.moveaxis(rows, shape.ragged_dim, 1))
    return turned.reshape(-1).view(np.uint8)


def _row_offsets(
    name: str, shape: _Shape, sources: list[Any], rows: _Rows
) -> tuple[np.ndarray, tuple[int, int]]:
    """Where the rows of a ragged column begin, and how long they are."""
    array = np.empty(rows.count + 1, np.int64)
    try:
        bounds = rows.runs.offsets(sources, shape.step_bytes(), array)
    except DatasystemError as error:
        raise BlockCorruptError(
            f"block: the row offsets of field '{name}' are damaged"
        ) from error
    return array, bounds


def _viewed(
    shape: _Shape, stored: dict[int, StoredColumn], rows: _Rows
) -> torch.Tensor | None:
    """All elements of one stored column in a private mapping, without a copy; None
    if more or less than one is wanted, or it is too small, or cannot be mapped."""
    if not rows.runs.is_whole:
        return None
    (column,) = stored.values()
    view = column.private_view()
    if view is None:
        return None
    elements = column.description.data.nbytes // shape.dtype.itemsize
    return torch.frombuffer(view, dtype=shape.dtype, count=elements)


def _copy_all(planned: Sequence[_Planned], rows: _Rows) -> None:
    _give_memory(planned)
    columns: list[Any] = [
        (
            plan.sources,
            plan.shape.step_bytes(),
            None if plan.offsets is None else plan.offsets.array,
            plan.memory,
            plan.start,
            plan.nbytes,
        )
        for plan in planned
    ]
    try:
        rows.runs.copy(columns)
    except DatasystemError as error:  # It changed since it was looked at.
        raise BlockCorruptError(f"block: {error.message}") from error


def _give_memory(planned: Sequence[_Planned]) -> None:
    """Small columns lie in one buffer: memory by itself costs more than they do."""
    together = 0
    for plan in planned:
        if plan.nbytes < VIEW_BYTES_MIN:
            plan.start = aligned(together)
            together = plan.start + plan.nbytes
    buffer = warm_memory.take(together)
    for plan in planned:
        is_small = plan.nbytes < VIEW_BYTES_MIN
        plan.memory = buffer if is_small else warm_memory.take(plan.nbytes)


def _finished(plan: _Planned, rows: _Rows, offsets: _SharedOffsets) -> torch.Tensor:
    shape = plan.shape
    values = plan.values if plan.values is not None else _values(plan)
    if shape.ragged_dim == 0:
        return values
    if shape.length is not None:
        if shape.rest:
            values = values.view(rows.count * shape.length, *shape.rest)
        return offsets.equal(rows.count, shape.length).jagged(values, 1)
    assert plan.offsets is not None
    if shape.rest:
        values = values.view(int(plan.offsets.array[-1]), *shape.rest)
    if shape.ragged_dim > 1:
        turned = values.view(carrier_of(shape.dtype)).movedim(0, shape.ragged_dim - 1)
        values = turned.contiguous().view(shape.dtype)
    return plan.offsets.jagged(values, shape.ragged_dim)


def _values(plan: _Planned) -> torch.Tensor:
    """The elements where they were copied to, in a row."""
    dtype = plan.shape.dtype
    if plan.elements == 0:  # torch makes no tensor of a buffer without bytes,
        return torch.empty(0, dtype=carrier_of(dtype)).view(dtype)
    return torch.frombuffer(
        plan.memory, dtype=dtype, count=plan.elements, offset=plan.start
    )


# ---- Shapes ------------------------------------------------------------------------


@dataclass(slots=True)
class _Shape:
    """What the rows of a column have in common.

    rest        the shape of a row without its ragged dimension
    ragged_dim  which one that is; 0: rows have no dimensions
    length      its size where all rows have the same: then it is the first dimension,
                or there is none and this is 1; None where they differ
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
    if len(columns) > 1 and len({column.dtype for column in columns}) > 1:
        return None
    if not {column.kind for column in columns} <= {Kind.DENSE, Kind.RAGGED}:
        return None
    dtype = DTYPE_OF_NAME[columns[0].dtype]
    dense = {tuple(c.shape) for c in columns if c.kind == Kind.DENSE}
    ragged = {(c.ragged_dim, tuple(c.shape)) for c in columns if c.kind == Kind.RAGGED}
    if dense == {()} and not ragged:
        return _Shape(dtype, (), 0, 1)
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


class _SharedOffsets:
    """Equal offsets become one tensor: torch then knows that columns fit together."""

    def __init__(self) -> None:
        self._known: list[Offsets] = []
        self._equal: dict[tuple[int, int], Offsets] = {}

    def shared(self, array: np.ndarray, bounds: tuple[int, int]) -> Offsets:
        for known in self._known:
            if np.array_equal(known.array, array):
                return known
        self._known.append(Offsets(array, bounds))
        return self._known[-1]

    def equal(self, rows: int, length: int) -> Offsets:
        """Those of rows of one length."""
        found = self._equal.get((rows, length))
        if found is None:
            array = np.arange(rows + 1, dtype=np.int64) * length
            found = self.shared(array, (length, length) if rows > 0 else (0, 0))
            self._equal[rows, length] = found
        return found
