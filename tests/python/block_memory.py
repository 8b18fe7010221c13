"""Blocks in plain memory, and what "the same" means for values."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from transfer_queue._block import VIEW_BYTES_MIN, encode_fields
from transfer_queue._gather import gather


class SealedPart(bytes):
    """Stands in for yr.datasystem._core.Buffer: read-only, with private views."""

    views = 0

    def view(self) -> bytearray:
        """A private copy takes the place of a copy-on-write mapping."""
        self.views += 1
        return bytearray(self)


class Unmappable(SealedPart):
    """A part of which there can be no private view."""

    def view(self) -> None:  # type: ignore[override]
        """Nothing: the reader has to copy."""


class Blocks:
    """Stored blocks by id."""

    def __init__(self, part_type: Callable[[bytearray], SealedPart] = SealedPart):
        self.parts: dict[bytes, list[SealedPart]] = {}
        self.opens: list[int] = []
        self._part_type = part_type

    def put(self, fields: TensorDictBase) -> bytes:
        """Store `fields` as one block."""
        block = encode_fields(fields, len(fields))
        assert sum(block.field_bytes) <= sum(block.part_sizes)
        # What was there before must not shine through.
        parts = [bytearray(b"\xaa" * size) for size in block.part_sizes]
        block.write_into([memoryview(part) for part in parts])
        block_id = len(self.parts).to_bytes(16, "little")
        self.parts[block_id] = [self._part_type(part) for part in parts]
        return block_id

    def open_parts(
        self, ids: Sequence[bytes], numbers: Sequence[int]
    ) -> list[SealedPart]:
        """What gather() asks for."""
        self.opens.append(len(ids))
        return [
            self.parts[block_id][part]
            for block_id, part in zip(ids, numbers, strict=True)
        ]

    def get(
        self, names: Sequence[str], ids: Sequence[bytes], runs: Sequence[int]
    ) -> TensorDict:
        """Rows whose fields all lie together."""
        blocks = [[block_id, "Yuanrong"] for block_id in ids]
        groups = [[list(range(len(names))), blocks, list(runs)]]
        return gather(names, groups, self.open_parts)


def column_of(*batches: Any) -> Any:
    """Column "x" after these batches, each a column, were put and read together."""
    blocks = Blocks()
    fields = [TensorDict({"x": batch}, batch_size=[_rows(batch)]) for batch in batches]
    ids = [blocks.put(some) for some in fields]
    runs = [n for i, some in enumerate(fields) for n in (i, 0, len(some))]
    return blocks.get(["x"], ids, runs)["x"]


def _rows(batch: Any) -> int:
    if isinstance(batch, torch.Tensor):
        return batch.size(0)
    return len(batch)


def jagged(rows: Sequence[torch.Tensor], ragged_dim: int = 1) -> torch.Tensor:
    """A jagged nested tensor with this ragged dimension."""
    lengths = [row.shape[ragged_dim - 1] for row in rows]
    offsets = torch.tensor([0, *np.cumsum(lengths).tolist()])
    values = torch.cat(list(rows), dim=ragged_dim - 1)
    return torch.nested.nested_tensor_from_jagged(
        values, offsets, jagged_dim=ragged_dim
    )


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The elements, bit for bit."""
    carrier = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if tensor.dtype.itemsize == 16:
        tensor = torch.view_as_real(tensor.resolve_conj())
    tensor = tensor.resolve_conj().resolve_neg()
    tensor = tensor.detach().view(carrier[tensor.dtype.itemsize]).contiguous()
    return tensor.numpy().tobytes()


def same(left: Any, right: Any) -> bool:
    """Of one type, and nothing can tell their contents apart."""
    if type(left) is not type(right):
        return False
    compare = _COMPARISONS.get(type(left))
    if compare is not None:
        return compare(left, right)
    if isinstance(left, np.generic):
        return bool(left.dtype == right.dtype and left.tobytes() == right.tobytes())
    return bool(left == right) and repr(left) == repr(right)


def _same_items(left: Any, right: Any) -> bool:
    return len(left) == len(right) and all(map(same, left, right))


def _same_sets(left: Any, right: Any) -> bool:
    left_over = list(right)
    for item in left:
        match = next(
            (n for n, other in enumerate(left_over) if same(item, other)), None
        )
        if match is None:
            return False
        del left_over[match]
    return not left_over


def _same_dicts(left: Any, right: Any) -> bool:
    return _same_items(list(left.items()), list(right.items()))


def _same_arrays(left: np.ndarray, right: np.ndarray) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.hasobject:
        return _same_items(left.reshape(-1).tolist(), right.reshape(-1).tolist())
    return left.tobytes() == right.tobytes()


def _same_tensors(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.is_nested != right.is_nested or left.dtype != right.dtype:
        return False
    if left.is_nested:
        return _same_items(left.unbind(), right.unbind())
    return left.shape == right.shape and tensor_bytes(left) == tensor_bytes(right)


def _same_tensordicts(left: TensorDict, right: TensorDict) -> bool:
    return left.batch_size == right.batch_size and _same_items(
        list(left.items()), list(right.items())
    )


_COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    float: lambda a, b: struct.pack("d", a) == struct.pack("d", b),
    complex: lambda a, b: same((a.real, a.imag), (b.real, b.imag)),
    list: _same_items,
    tuple: _same_items,
    dict: _same_dicts,
    set: _same_sets,
    frozenset: _same_sets,
    np.ndarray: _same_arrays,
    torch.Tensor: _same_tensors,
    TensorDict: _same_tensordicts,
}


def rows_of(column: Any) -> list[Any]:
    """The rows of a column as the user sees them."""
    if isinstance(column, torch.Tensor):
        return list(column.unbind())
    return list(column)


def random_bits(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """A tensor of any dtype with random bytes (0 or 1 where they are booleans)."""
    count = int(np.prod(shape)) * dtype.itemsize
    high = 2 if dtype is torch.bool else 256
    if count == 0:
        return torch.zeros(shape, dtype=dtype)
    raw = np.random.default_rng(seed).integers(0, high, count, np.uint8)
    return torch.from_numpy(raw).view(dtype).view(shape)


def large(rows: int) -> torch.Tensor:
    """A column of exactly the size from which a column is a private view."""
    return torch.arange(VIEW_BYTES_MIN // 4, dtype=torch.int32).view(rows, -1)
