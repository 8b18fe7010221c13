"""Opened blocks: checked access to the payloads of a column where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from transfer_queue._block import VIEW_BYTES_MIN, BlockReader, Segment
from transfer_queue._errors import BlockCorruptError


class OpenBlock:
    """An opened block: its reader and the parts that are needed of it."""

    def __init__(self, part0: Any) -> None:
        self.reader = BlockReader.open(part0)
        self.parts: dict[int, Any] = {0: part0}

    def add_part(self, number: int, part: Any) -> None:
        """Take one more part. Raises BlockCorruptError when it is not as it was."""
        expected = self.reader.part_sizes[number]
        if len(part) < expected:
            raise BlockCorruptError(
                f"block: part {number} has {len(part)} bytes, "
                f"its header tells of {expected}"
            )
        self.parts[number] = part

    def bytes_of(self, segment: Segment) -> np.ndarray:
        """A payload where it lies. May be changed by others: copy, check, use."""
        part: np.ndarray = np.frombuffer(self.parts[segment.part], np.uint8)
        return part[self.reader.place_of(segment)]

    def integers_of(self, segment: Segment) -> np.ndarray:
        """A copy of a payload of int64."""
        copied: np.ndarray = self.bytes_of(segment).copy().view(np.int64)
        return copied


class StoredColumn:
    """One column of an opened block."""

    def __init__(self, block: OpenBlock, name: str) -> None:
        self.block = block
        self.description = block.reader.column(name)
        self.rows = block.reader.rows

    def data(self) -> np.ndarray:
        """The rows, read-only, where they lie."""
        return self.block.bytes_of(self.description.data)

    def place(self, segment: Segment) -> tuple[Any, int]:
        """A payload as its part and where it begins there."""
        return self.block.parts[segment.part], self.block.reader.place_of(segment).start

    def private_view(self) -> Any | None:
        """A writable mapping of the rows, if they are worth it."""
        segment = self.description.data
        if segment.part == 0 or segment.nbytes < VIEW_BYTES_MIN:
            return None
        return self.block.parts[segment.part].view()

    def offsets(self, unit_bytes: int) -> np.ndarray:
        """Where rows begin, in units; checked against the size of the data."""
        assert self.description.offsets is not None
        offsets = self.block.integers_of(self.description.offsets)
        is_right = (
            offsets[0] == 0
            and bool(np.all(offsets[1:] >= offsets[:-1]))
            and int(offsets[-1]) * unit_bytes == self.description.data.nbytes
        )
        if not is_right:
            raise BlockCorruptError(
                f"block: the row offsets of field '{self.description.name}' are damaged"
            )
        return offsets

    def shapes(self, itemsize: int) -> tuple[np.ndarray, np.ndarray]:
        """The shape of each row, and how many elements it has; checked against the
        size of the data. Sums in floating point first: they cannot wrap around."""
        assert self.description.shapes is not None
        shapes = self.block.integers_of(self.description.shapes).reshape(self.rows, -1)
        rough = np.prod(np.maximum(shapes, 1), axis=1, dtype=np.float64)
        elements: np.ndarray = np.prod(shapes, axis=1)
        is_right = (
            bool(np.all(shapes >= 0))
            and bool(np.all(rough < 2.0**59))
            and float(np.sum(elements, dtype=np.float64)) < 2.0**59
            and int(elements.sum()) * itemsize == self.description.data.nbytes
        )
        if not is_right:
            raise BlockCorruptError(
                f"block: the row shapes of field '{self.description.name}' are damaged"
            )
        return shapes, elements
