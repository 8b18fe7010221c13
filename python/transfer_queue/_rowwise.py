"""Columns row by row: for values that are not tensors, and for tensors that do not fit
into one without a look at each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from tensordict import LazyStackedTensorDict, NonTensorStack
from tensordict.base import is_tensor_collection

from transfer_queue._columns import Kind, offsets_of, shapes_of_tensors, varying_dims
from transfer_queue._dtypes import DTYPE_OF_NAME, allocate, carrier_of
from transfer_queue._jagged import Offsets
from transfer_queue._stored import StoredColumn
from transfer_queue._values import Mark, decode_msgpack_run, decode_value


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
    offsets = Offsets(offsets_of([shape[dim] for shape in shapes]))
    return offsets.jagged(values, dim + 1)


def _strided_nested(tensors: list[torch.Tensor]) -> Any:
    try:
        return torch.nested.nested_tensor(tensors)
    except (RuntimeError, NotImplementedError):
        return NonTensorStack(*tensors)  # torch has no such tensor of this dtype.


RowReader: TypeAlias = Callable[[int, int], list[Any]]


def row_reader(column: StoredColumn) -> RowReader:
    """What returns rows [first, first + count) of a stored column, as copies."""
    return _READERS[column.description.kind](column)


def _dense_rows(stored: StoredColumn) -> RowReader:
    shape, dtype = stored.description.shape, DTYPE_OF_NAME[stored.description.dtype]
    nbytes = math.prod(shape) * dtype.itemsize
    data = stored.data()

    def read(first: int, count: int) -> list[Any]:
        out, out_bytes = allocate((count, *shape), dtype)
        out_bytes[:] = data[first * nbytes : (first + count) * nbytes]
        return list(out.view(carrier_of(dtype)).unbind())

    return lambda first, count: [row.view(dtype) for row in read(first, count)]


def _ragged_rows_one_by_one(stored: StoredColumn) -> RowReader:
    column, dtype = stored.description, DTYPE_OF_NAME[stored.description.dtype]
    unit = math.prod(column.shape) * dtype.itemsize
    offsets, data = stored.offsets(unit), stored.data()

    def row(index: int) -> torch.Tensor:
        start, end = int(offsets[index]), int(offsets[index + 1])
        out, out_bytes = allocate((end - start, *column.shape), dtype)
        out_bytes[:] = data[start * unit : end * unit]
        turned = out.view(carrier_of(dtype)).movedim(0, column.ragged_dim - 1)
        return turned.contiguous().view(dtype)

    return lambda first, count: [row(index) for index in range(first, first + count)]


def _shaped_rows(stored: StoredColumn) -> RowReader:
    dtype = DTYPE_OF_NAME[stored.description.dtype]
    shapes, elements = stored.shapes(dtype.itemsize)
    offsets, data = offsets_of(elements) * dtype.itemsize, stored.data()

    def row(index: int) -> torch.Tensor:
        out, out_bytes = allocate(shapes[index].tolist(), dtype)
        out_bytes[:] = data[offsets[index] : offsets[index + 1]]
        return out

    return lambda first, count: [row(index) for index in range(first, first + count)]


def _object_rows(stored: StoredColumn) -> RowReader:
    assert stored.description.marks is not None
    offsets = stored.offsets(1)
    marks = stored.block.bytes_of(stored.description.marks).copy()
    data = stored.data()

    def read(first: int, count: int) -> list[Any]:
        bounds = offsets[first : first + count + 1].tolist()
        if count > 1 and np.all(marks[first : first + count] == Mark.MSGPACK):
            return decode_msgpack_run(data[bounds[0] : bounds[-1]].tobytes(), count)
        payload = data.data
        return [
            decode_value(mark, payload[start:end])
            for mark, start, end in zip(
                marks[first : first + count].tolist(), bounds, bounds[1:], strict=False
            )
        ]

    return read


_READERS: dict[int, Callable[[StoredColumn], RowReader]] = {
    Kind.DENSE: _dense_rows,
    Kind.RAGGED: _ragged_rows_one_by_one,
    Kind.SHAPED: _shaped_rows,
    Kind.OBJECT: _object_rows,
}
