"""A column of a TensorDict -> its description and the bytes to be stored.

Row i of a column is one run of bytes, whatever the kind, and rows follow each other:

    DENSE    rows of one shape
    RAGGED   rows whose shapes differ in one dimension; a row is stored with that
             dimension first. offsets[i] is where row i begins, counted in steps of it
    SHAPED   rows whose shapes differ in several dimensions; shapes[i] is that of row i
    OBJECT   anything else, one encoded value per row (_values.py); marks[i] says how
             to read row i, offsets[i] where it begins
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDictBase
from tensordict.base import is_tensor_collection
from torch.nested._internal.nested_tensor import NestedTensor

from transfer_queue._dtypes import (
    NAME_OF_DTYPE,
    carrier_of,
    is_plain,
    memory_of,
    settled,
)
from transfer_queue._errors import ValueNotStorableError
from transfer_queue._values import encode_value


class Kind(IntEnum):
    """How a column's rows are laid out. Stored: never renumber."""

    DENSE = 1
    RAGGED = 2
    SHAPED = 3
    OBJECT = 4


@dataclass(slots=True)
class Payload:
    """Bytes of known size: those of `sources`, one after the other, or what `write`
    fills exactly `nbytes` bytes with.

    The user's values are borrowed: they must not change until they are copied.
    """

    nbytes: int
    sources: Sequence[Any] = ()
    write: Callable[[memoryview], None] | None = None


@dataclass(slots=True)
class EncodedColumn:
    """One column, ready to be written.

    `shape` is the shape of a row; without the ragged dimension for RAGGED, and only as
    long as that of a row for SHAPED. `ragged_dim` counts as torch does for the whole
    column: 1 is the first dimension of a row; 0 where there is none.
    """

    name: str
    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    ragged_dim: int
    data: Payload
    offsets: Payload | None = None
    shapes: Payload | None = None
    marks: Payload | None = None

    @property
    def nbytes(self) -> int:
        """What the column takes in the store, without alignment."""
        payloads = (self.data, self.offsets, self.shapes, self.marks)
        return sum(payload.nbytes for payload in payloads if payload is not None)


def encode_column(name: str, value: Any, rows: int) -> EncodedColumn:
    """Describe column `name` of a TensorDict with `rows` rows.

    Raises ValueError when it does not have one value per row, and
    ValueNotStorableError, naming the field, when a value cannot be stored.
    """
    if isinstance(value, torch.Tensor):
        _check_rows(name, rows, value.size(0) if value.dim() > 0 else 0)
        return _encode_tensor(name, value)
    values = _values_of(value, rows)
    _check_rows(name, rows, len(values))
    return encode_rows(name, values)


def encode_rows(name: str, values: Sequence[Any]) -> EncodedColumn:
    """Describe a column given by its rows."""
    shapes = shapes_of_tensors(values)
    if shapes is None:
        return _encode_objects(name, values)
    tensors = [settled(value) for value in values]
    varying = varying_dims(shapes)
    if not varying:
        return _encode_same_shape(name, tensors)
    if len(varying) == 1:
        return _encode_ragged_rows(name, tensors, varying[0])
    return _encode_shaped(name, tensors)


def shapes_of_tensors(values: Sequence[Any]) -> list[torch.Size] | None:
    """The shapes, if all values are plain tensors of one dtype and dimension count."""
    if len(values) == 0 or not all(isinstance(v, torch.Tensor) for v in values):
        return None
    first = values[0]
    shapes = []
    for value in values:
        if not is_plain(value) or value.dtype is not first.dtype:
            return None
        shapes.append(value.shape)
    if any(len(shape) != len(shapes[0]) for shape in set(shapes)):
        return None
    return shapes


def varying_dims(shapes: Sequence[torch.Size]) -> list[int]:
    """The dimensions, counted from 0, in which these shapes differ."""
    sizes_by_dim = zip(*set(shapes), strict=True)
    return [dim for dim, sizes in enumerate(sizes_by_dim) if len(set(sizes)) > 1]


def _check_rows(name: str, expected: int, found: int) -> None:
    if found != expected:
        raise ValueError(
            f"Inconsistent batch dimension for field '{name}': "
            f"expected {expected}, got {found}"
        )


def _values_of(value: Any, rows: int) -> list[Any]:
    """The rows of a column that is not a tensor."""
    if isinstance(value, NonTensorStack):
        return list(value.tolist())
    if isinstance(value, NonTensorData):
        data = value.data
        if isinstance(data, (list, tuple)) or (
            isinstance(data, np.ndarray) and data.ndim > 0
        ):
            return list(data)  # One value per row, as TensorDict makes of an array.
        return [data] * rows
    if is_tensor_collection(value):
        return [value[row] for row in range(len(value))]
    return list(value)


# ---- Tensors -----------------------------------------------------------------------


def _encode_tensor(name: str, value: torch.Tensor) -> EncodedColumn:
    if isinstance(value, NestedTensor) and value.lengths() is None:  # type: ignore[no-untyped-call]
        return _encode_jagged(name, value)
    if value.is_nested:
        return encode_rows(name, value.unbind())
    if not is_plain(value):
        return encode_rows(name, [value[row] for row in range(len(value))])
    return EncodedColumn(
        name=name,
        kind=Kind.DENSE,
        dtype=NAME_OF_DTYPE[value.dtype],
        shape=tuple(value.shape[1:]),
        ragged_dim=0,
        data=_tensor_payload(value),
    )


def _encode_jagged(name: str, value: NestedTensor) -> EncodedColumn:
    """A jagged nested tensor without holes: its buffer as it is."""
    ragged_dim = value._ragged_idx
    begins, values = value.offsets(), value.values()  # type: ignore[no-untyped-call]
    offsets = begins.cpu().numpy().astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    steps = values.movedim(ragged_dim - 1, 0)[first:last]
    return EncodedColumn(
        name=name,
        kind=Kind.RAGGED,
        dtype=NAME_OF_DTYPE[value.dtype],
        shape=tuple(steps.shape[1:]),
        ragged_dim=ragged_dim,
        data=_tensor_payload(steps),
        offsets=_array_payload(offsets - first),
    )


def _encode_same_shape(name: str, tensors: list[torch.Tensor]) -> EncodedColumn:
    first = tensors[0]
    return EncodedColumn(
        name=name,
        kind=Kind.DENSE,
        dtype=NAME_OF_DTYPE[first.dtype],
        shape=tuple(first.shape),
        ragged_dim=0,
        data=_joined_payload([tensor.unsqueeze(0) for tensor in tensors]),
    )


def _encode_ragged_rows(
    name: str, tensors: list[torch.Tensor], dim: int
) -> EncodedColumn:
    steps = tensors if dim == 0 else [tensor.movedim(dim, 0) for tensor in tensors]
    return EncodedColumn(
        name=name,
        kind=Kind.RAGGED,
        dtype=NAME_OF_DTYPE[tensors[0].dtype],
        shape=tuple(steps[0].shape[1:]),
        ragged_dim=dim + 1,
        data=_joined_payload(steps),
        offsets=_array_payload(offsets_of([step.shape[0] for step in steps])),
    )


def _encode_shaped(name: str, tensors: list[torch.Tensor]) -> EncodedColumn:
    carrier = carrier_of(tensors[0].dtype)
    shapes = np.array([tensor.shape for tensor in tensors], np.int64)
    return EncodedColumn(
        name=name,
        kind=Kind.SHAPED,
        dtype=NAME_OF_DTYPE[tensors[0].dtype],
        shape=(0,) * tensors[0].dim(),
        ragged_dim=0,
        data=_joined_payload([t.view(carrier).reshape(-1) for t in tensors]),
        shapes=_array_payload(shapes),
    )


def _tensor_payload(tensor: torch.Tensor) -> Payload:
    """The elements of one tensor, in the order of its dimensions."""
    nbytes = tensor.numel() * tensor.dtype.itemsize
    if tensor.device.type in ("cpu", "meta"):
        tensor = settled(tensor)
        if tensor.is_contiguous():
            return Payload(nbytes, [memory_of(tensor)])
        tensor = tensor.view(carrier_of(tensor.dtype))
    else:
        tensor = tensor.detach()  # Copied straight from its device into place.
    if nbytes == 0:
        return Payload(0)

    def write(target: memoryview) -> None:
        place = torch.frombuffer(target, dtype=tensor.dtype)
        place.view(tensor.shape).copy_(tensor)

    return Payload(nbytes, write=write)


def _joined_payload(tensors: list[torch.Tensor]) -> Payload:
    """Settled tensors of one dtype, one after the other along dimension 0."""
    nbytes = sum(tensor.numel() for tensor in tensors) * tensors[0].dtype.itemsize
    return Payload(nbytes, [memory_of(tensor.contiguous()) for tensor in tensors])


def _array_payload(array: np.ndarray) -> Payload:
    return Payload(array.nbytes, [array])


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each row begins, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


# ---- Objects -----------------------------------------------------------------------


def _encode_objects(name: str, values: Sequence[Any]) -> EncodedColumn:
    marks = np.empty(len(values), np.uint8)
    lengths = np.empty(len(values), np.int64)
    chunks: list[bytes | memoryview] = []
    for row, value in enumerate(values):
        try:
            encoded = encode_value(value)
        except ValueNotStorableError as error:
            message = f"field '{name}', row {row}: {error}"
            raise type(error)(message) from error
        marks[row] = encoded.mark
        lengths[row] = sum(map(len, encoded.chunks))
        chunks += encoded.chunks
    return EncodedColumn(
        name=name,
        kind=Kind.OBJECT,
        dtype="",
        shape=(),
        ragged_dim=0,
        data=Payload(int(lengths.sum()), chunks),
        offsets=_array_payload(offsets_of(lengths)),
        marks=_array_payload(marks),
    )


def column_values(fields: TensorDictBase) -> list[tuple[str, Any]]:
    """Names and columns of a TensorDict, in its order.

    A lazy stack whose rows differ in shape has no tensor for them: its rows are taken.
    """
    columns = []
    for name in fields.keys():
        try:
            columns.append((name, fields.get(name)))
        except RuntimeError:
            rows = [fields[row].get(name) for row in range(len(fields))]
            columns.append((name, NonTensorStack(*rows)))
    return columns
