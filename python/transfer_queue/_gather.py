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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from tensordict import LazyStackedTensorDict, NonTensorStack, TensorDict
from tensordict.base import is_tensor_collection

from transfer_queue._block import BlockReader, Column, Segment
from transfer_queue._columns import Kind, offsets_of, shapes_of_tensors, varying_dims
from transfer_queue._dtypes import DTYPE_OF_NAME, carrier_of, writable_bytes
from transfer_queue._errors import BlockCorruptError
from transfer_queue._values import Mark, decode_msgpack_run, decode_value

# Runs of at least so many bytes on average are copied one by one; shorter ones all
# together through an index.
_RUN_BYTES_LOOP_MIN = 1024
_RUNS_LOOP_MAX = 8

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


class _Block:
    """An opened block: its reader and the parts that are needed of it."""

    def __init__(self, part0: Any) -> None:
        self.reader = BlockReader.open(part0)
        self.parts: dict[int, Any] = {0: part0}

    def bytes_of(self, segment: Segment) -> np.ndarray:
        """A payload where it lies. May be changed by others: copy, check, use."""
        part = np.frombuffer(self.parts[segment.part], np.uint8)
        place = self.reader.place_of(segment)
        if segment.nbytes > 0 and place.stop > len(part):
            raise BlockCorruptError(
                f"block: part {segment.part} has {len(part)} bytes, "
                f"its header tells of {self.reader.part_sizes[segment.part]}"
            )
        return part[place]

    def integers_of(self, segment: Segment) -> np.ndarray:
        """A copy of a payload of int64."""
        return self.bytes_of(segment).copy().view(np.int64)

    def private_view(self, segment: Segment) -> Any | None:
        """A writable mapping of a payload that is a part by itself, or None."""
        if segment.part == 0:
            return None
        self.bytes_of(segment)  # Is the part long enough?
        return self.parts[segment.part].view()


def _opened_blocks(
    requests: Sequence[_Group], open_parts: OpenParts
) -> dict[bytes, _Block]:
    names: dict[bytes, set[str]] = {}
    for request in requests:
        for block_id in request.block_ids:
            names.setdefault(block_id, set()).update(request.names)
    ids = list(names)
    first_parts = open_parts(ids, [0] * len(ids)) if ids else []
    blocks = {
        block_id: _Block(part) for block_id, part in zip(ids, first_parts, strict=True)
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

    def __init__(self, request: _Group, blocks: list[_Block]) -> None:
        self.blocks = blocks
        self.block, self.first, self.count = request.runs.T
        self.dest = offsets_of(self.count)[:-1]
        self.rows = request.rows
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

    def used_blocks(self) -> list[int]:
        return [int(number) for number in np.unique(self.block)]


# ---- Columns -----------------------------------------------------------------------


def _column(name: str, runs: _Runs, offsets: _SharedOffsets) -> Any:
    parts = {number: _Part(runs.blocks[number], name) for number in runs.used_blocks()}
    shape = _common_shape([part.column for part in parts.values()])
    if shape is None:
        return column_from_rows(_rows_one_by_one(parts, runs))
    if shape.ragged_dim == 0:
        return _dense_column(shape, parts, runs)
    return _jagged_column(shape, parts, runs, offsets)


class _Part:
    """One column of one block."""

    def __init__(self, block: _Block, name: str) -> None:
        self.block = block
        self.column = block.reader.column(name)
        self.rows = block.reader.rows
        self._offsets: np.ndarray | None = None

    def data(self) -> np.ndarray:
        return self.block.bytes_of(self.column.data)

    def offsets(self, unit_bytes: int) -> np.ndarray:
        """Where rows begin, in units; checked against the size of the data."""
        if self._offsets is None:
            assert self.column.offsets is not None
            offsets = self.block.integers_of(self.column.offsets)
            is_right = (
                offsets[0] == 0
                and bool(np.all(offsets[1:] >= offsets[:-1]))
                and int(offsets[-1]) * unit_bytes == self.column.data.nbytes
            )
            if not is_right:
                raise BlockCorruptError(
                    f"block: the row offsets of field '{self.column.name}' are damaged"
                )
            self._offsets = offsets
        return self._offsets


@dataclass(slots=True)
class _Shape:
    """What the rows of a column have in common. `rest` is the shape of a row without
    the ragged dimension; `ragged_dim` 0 says that rows have no dimensions."""

    dtype: torch.dtype
    rest: tuple[int, ...]
    ragged_dim: int

    def unit_bytes(self) -> int:
        """Bytes of one step of the ragged dimension, or of a row without any."""
        return int(np.prod(self.rest, dtype=np.int64)) * self.dtype.itemsize

    def unit_elements(self) -> int:
        return self.unit_bytes() // self.dtype.itemsize


def _common_shape(columns: Sequence[Column]) -> _Shape | None:
    """The one shape into which all rows fit without a look at each, or None."""
    kinds = {column.kind for column in columns}
    if not kinds <= {Kind.DENSE, Kind.RAGGED}:
        return None
    if len({column.dtype for column in columns}) > 1:
        return None
    dtype = DTYPE_OF_NAME[columns[0].dtype]
    dense = {tuple(c.shape) for c in columns if c.kind == Kind.DENSE}
    ragged = {(c.ragged_dim, tuple(c.shape)) for c in columns if c.kind == Kind.RAGGED}
    if dense == {()} and not ragged:
        return _Shape(dtype, (), 0)
    if len(ragged) > 1 or len(set(map(len, dense))) > 1:
        return None
    if ragged:
        ragged_dim, rest = ragged.pop()
    else:
        varying = varying_dims([torch.Size(shape) for shape in dense])
        if len(varying) > 1:
            return None
        ragged_dim = varying[0] + 1 if varying else 1
        rest = _without(next(iter(dense)), ragged_dim)
    fits = all(len(s) == len(rest) + 1 and _without(s, ragged_dim) == rest for s in dense)
    return _Shape(dtype, rest, ragged_dim) if fits else None


def _without(shape: tuple[int, ...], ragged_dim: int) -> tuple[int, ...]:
    return shape[: ragged_dim - 1] + shape[ragged_dim:]


def _dense_column(shape: _Shape, parts: dict[int, _Part], runs: _Runs) -> torch.Tensor:
    if runs.is_whole_block():
        part = next(iter(parts.values()))
        view = part.block.private_view(part.column.data)
        if view is not None:
            return torch.frombuffer(view, dtype=shape.dtype, count=runs.rows)
    out = torch.empty(runs.rows, dtype=shape.dtype)
    sources = {number: part.data() for number, part in parts.items()}
    copy_runs(
        writable_bytes(out),
        sources,
        _Copy(runs.block, runs.first, runs.dest, runs.count),
        shape.dtype.itemsize,
    )
    return out


def _jagged_column(
    shape: _Shape, parts: dict[int, _Part], runs: _Runs, offsets: _SharedOffsets
) -> torch.Tensor:
    rows = {number: _ragged_rows(part, shape) for number, part in parts.items()}
    out_offsets = offsets_of(_gathered_lengths(rows, runs))
    values = _viewed_values(shape, parts, runs)
    if values is None:
        values = _gathered_values(shape, rows, runs, out_offsets)
    return torch.nested.nested_tensor_from_jagged(
        values, offsets.shared(out_offsets), jagged_dim=shape.ragged_dim
    )


@dataclass(slots=True)
class _RaggedRows:
    """A column's data with the ragged dimension first, and where rows begin in it."""

    data: np.ndarray
    offsets: np.ndarray


def _ragged_rows(part: _Part, shape: _Shape) -> _RaggedRows:
    if part.column.kind == Kind.RAGGED:
        return _RaggedRows(part.data(), part.offsets(shape.unit_bytes()))
    length = part.column.shape[shape.ragged_dim - 1]
    data = part.data()
    if shape.ragged_dim > 1:
        carrier = _numpy_carrier(shape.dtype)
        rows = data.view(carrier).reshape(part.rows, *part.column.shape)
        turned = np.moveaxis(rows, shape.ragged_dim, 1)
        data = np.ascontiguousarray(turned).reshape(-1).view(np.uint8)
    return _RaggedRows(data, np.arange(part.rows + 1, dtype=np.int64) * length)


def _gathered_lengths(rows: dict[int, _RaggedRows], runs: _Runs) -> np.ndarray:
    lengths = np.empty(runs.rows, np.int64)
    copy_runs(
        lengths.view(np.uint8),
        {number: np.diff(r.offsets).view(np.uint8) for number, r in rows.items()},
        _Copy(runs.block, runs.first, runs.dest, runs.count),
        lengths.itemsize,
    )
    return lengths


def _viewed_values(
    shape: _Shape, parts: dict[int, _Part], runs: _Runs
) -> torch.Tensor | None:
    """The values of a whole column in a private mapping, without a copy."""
    if shape.ragged_dim != 1 or not runs.is_whole_block():
        return None
    part = next(iter(parts.values()))
    view = part.block.private_view(part.column.data)
    if view is None:
        return None
    elements = part.column.data.nbytes // shape.dtype.itemsize
    values = torch.frombuffer(view, dtype=shape.dtype, count=elements)
    return values.view(-1, *shape.rest)


def _gathered_values(
    shape: _Shape, rows: dict[int, _RaggedRows], runs: _Runs, out_offsets: np.ndarray
) -> torch.Tensor:
    values = torch.empty((int(out_offsets[-1]), *shape.rest), dtype=shape.dtype)
    starts = np.empty(len(runs), np.int64)
    for number, block_rows in rows.items():
        mine = runs.block == number
        starts[mine] = block_rows.offsets[runs.first[mine]]
    dest = out_offsets[runs.dest]
    lengths = out_offsets[runs.dest + runs.count] - dest
    copy_runs(
        writable_bytes(values),
        {number: block_rows.data for number, block_rows in rows.items()},
        _Copy(runs.block, starts, dest, lengths),
        shape.unit_bytes(),
    )
    if shape.ragged_dim == 1:
        return values
    turned = values.view(carrier_of(shape.dtype)).movedim(0, shape.ragged_dim - 1)
    return turned.contiguous().view(shape.dtype)


class _SharedOffsets:
    """Equal offsets become one tensor: torch then knows that columns fit together."""

    def __init__(self) -> None:
        self._known: list[tuple[np.ndarray, torch.Tensor]] = []

    def shared(self, offsets: np.ndarray) -> torch.Tensor:
        for known, tensor in self._known:
            if np.array_equal(known, offsets):
                return tensor
        tensor = torch.from_numpy(offsets)
        self._known.append((offsets, tensor))
        return tensor


# ---- Copying -----------------------------------------------------------------------


@dataclass(slots=True)
class _Copy:
    """Unit ranges to copy: [start, start + length) of source `block` to `dest` on."""

    block: np.ndarray
    start: np.ndarray
    dest: np.ndarray
    length: np.ndarray


def copy_runs(
    out: np.ndarray, sources: dict[int, np.ndarray], plan: _Copy, unit_bytes: int
) -> None:
    """Fill `out` from `sources` (all of bytes) as `plan` says."""
    if len(out) == 0:
        return
    runs = len(plan.block)
    if runs <= _RUNS_LOOP_MAX or len(out) >= runs * _RUN_BYTES_LOOP_MIN:
        _copy_one_by_one(out, sources, plan, unit_bytes)
    else:
        _copy_by_index(out, sources, plan, unit_bytes)


def _copy_one_by_one(
    out: np.ndarray, sources: dict[int, np.ndarray], plan: _Copy, unit_bytes: int
) -> None:
    starts = (plan.start * unit_bytes).tolist()
    dests = (plan.dest * unit_bytes).tolist()
    sizes = (plan.length * unit_bytes).tolist()
    for block, start, dest, size in zip(
        plan.block.tolist(), starts, dests, sizes, strict=True
    ):
        out[dest : dest + size] = sources[block][start : start + size]


def _copy_by_index(
    out: np.ndarray, sources: dict[int, np.ndarray], plan: _Copy, unit_bytes: int
) -> None:
    unit = _unit_dtype(unit_bytes)
    out_units = out.view(unit)
    for number, source in sources.items():
        mine = plan.block == number
        lengths = plan.length[mine]
        within = np.arange(int(lengths.sum())) - np.repeat(
            offsets_of(lengths)[:-1], lengths
        )
        taken = source.view(unit)[np.repeat(plan.start[mine], lengths) + within]
        if len(taken) == len(out_units):
            out_units[:] = taken  # One block: its rows are already in order.
        else:
            out_units[np.repeat(plan.dest[mine], lengths) + within] = taken


def _unit_dtype(unit_bytes: int) -> np.dtype[Any]:
    """Numbers are copied faster than opaque bytes."""
    if unit_bytes in (1, 2, 4, 8):
        return np.dtype(f"u{unit_bytes}")
    return np.dtype(f"V{unit_bytes}")


def _numpy_carrier(dtype: torch.dtype) -> np.dtype[Any]:
    if dtype.itemsize == 16:
        return np.dtype(np.complex128)
    return np.dtype(f"u{dtype.itemsize}")


# ---- Row by row --------------------------------------------------------------------


def column_from_rows(values: Sequence[Any]) -> Any:
    """The column that the user gets for these rows, which are his already."""
    shapes = shapes_of_tensors(values)
    if shapes is not None:
        return _column_from_tensors(list(values), shapes)
    if values and all(map(is_tensor_collection, values)):
        return LazyStackedTensorDict.lazy_stack(list(values))
    return NonTensorStack(*values)


def _column_from_tensors(
    tensors: list[torch.Tensor], shapes: Sequence[torch.Size]
) -> Any:
    dtype = tensors[0].dtype
    carrier = carrier_of(dtype)
    if len(shapes[0]) == 0:
        return torch.stack([t.view(carrier) for t in tensors]).view(dtype)
    varying = varying_dims(shapes)
    if len(varying) > 1:
        return _strided_nested(tensors)
    dim = varying[0] if varying else 0
    values = torch.cat([t.view(carrier) for t in tensors], dim=dim).view(dtype)
    offsets = torch.from_numpy(offsets_of([shape[dim] for shape in shapes]))
    return torch.nested.nested_tensor_from_jagged(values, offsets, jagged_dim=dim + 1)


def _strided_nested(tensors: list[torch.Tensor]) -> Any:
    try:
        return torch.nested.nested_tensor(tensors)
    except (RuntimeError, NotImplementedError):
        return NonTensorStack(*tensors)  # torch has no such tensor of this dtype.


def _rows_one_by_one(parts: dict[int, _Part], runs: _Runs) -> list[Any]:
    readers = {number: _READERS[part.column.kind](part) for number, part in parts.items()}
    values: list[Any] = []
    for block, first, count in zip(
        runs.block.tolist(), runs.first.tolist(), runs.count.tolist(), strict=True
    ):
        values += readers[block](first, count)
    return values


_RowReader: TypeAlias = Callable[[int, int], list[Any]]


def _dense_rows(part: _Part) -> _RowReader:
    shape, dtype = part.column.shape, DTYPE_OF_NAME[part.column.dtype]
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = part.data()

    def read(first: int, count: int) -> list[Any]:
        out = torch.empty((count, *shape), dtype=dtype)
        writable_bytes(out)[:] = data[first * nbytes : (first + count) * nbytes]
        return list(out.view(carrier_of(dtype)).unbind())

    return lambda first, count: [row.view(dtype) for row in read(first, count)]


def _ragged_rows_one_by_one(part: _Part) -> _RowReader:
    column, dtype = part.column, DTYPE_OF_NAME[part.column.dtype]
    unit = _Shape(dtype, tuple(column.shape), column.ragged_dim).unit_bytes()
    offsets, data = part.offsets(unit), part.data()

    def row(index: int) -> torch.Tensor:
        start, end = int(offsets[index]), int(offsets[index + 1])
        out = torch.empty((end - start, *column.shape), dtype=dtype)
        writable_bytes(out)[:] = data[start * unit : end * unit]
        turned = out.view(carrier_of(dtype)).movedim(0, column.ragged_dim - 1)
        return turned.contiguous().view(dtype)

    return lambda first, count: [row(index) for index in range(first, first + count)]


def _shaped_rows(part: _Part) -> _RowReader:
    column, dtype = part.column, DTYPE_OF_NAME[part.column.dtype]
    assert column.shapes is not None
    shapes = part.block.integers_of(column.shapes).reshape(part.rows, -1)
    sizes = _checked_row_elements(column, shapes, dtype.itemsize)
    offsets, data = offsets_of(sizes) * dtype.itemsize, part.data()

    def row(index: int) -> torch.Tensor:
        out = torch.empty(shapes[index].tolist(), dtype=dtype)
        writable_bytes(out)[:] = data[offsets[index] : offsets[index + 1]]
        return out

    return lambda first, count: [row(index) for index in range(first, first + count)]


def _checked_row_elements(
    column: Column, shapes: np.ndarray, itemsize: int
) -> np.ndarray:
    """Elements per row. Sums in floating point first: they cannot wrap around."""
    rough = np.prod(np.maximum(shapes, 1), axis=1, dtype=np.float64)
    elements = np.prod(shapes, axis=1)
    is_right = (
        bool(np.all(shapes >= 0))
        and bool(np.all(rough < 2.0**59))
        and float(np.sum(elements, dtype=np.float64)) < 2.0**59
        and int(elements.sum()) * itemsize == column.data.nbytes
    )
    if not is_right:
        raise BlockCorruptError(
            f"block: the row shapes of field '{column.name}' are damaged"
        )
    return elements


def _object_rows(part: _Part) -> _RowReader:
    assert part.column.marks is not None
    offsets = part.offsets(1)
    marks = part.block.bytes_of(part.column.marks).copy()
    data = part.data()

    def read(first: int, count: int) -> list[Any]:
        bounds = offsets[first : first + count + 1].tolist()
        if count > 1 and not marks[first : first + count].any():
            assert Mark.MSGPACK == 0
            return decode_msgpack_run(data[bounds[0] : bounds[-1]].tobytes(), count)
        payload = memoryview(data)
        return [
            decode_value(mark, payload[start:end])
            for mark, start, end in zip(
                marks[first : first + count].tolist(), bounds, bounds[1:], strict=False
            )
        ]

    return read


_READERS: dict[int, Callable[[_Part], _RowReader]] = {
    Kind.DENSE: _dense_rows,
    Kind.RAGGED: _ragged_rows_one_by_one,
    Kind.SHAPED: _shaped_rows,
    Kind.OBJECT: _object_rows,
}
