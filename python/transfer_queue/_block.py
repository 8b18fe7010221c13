"""The block: what one put writes, and the only place that knows its format.

A block is a few parts, all objects. Part 0 begins with the header. Each payload of
a column (_columns.py) stands in part 0, 64-byte aligned, or is a part of its own, so
that it can be fetched from another node, mapped and freed by itself: from 64 KiB on, in
a block of 1 MiB or more. A smaller one is a single part, which one message puts.

    part 0:  magic 8 | version u32 | header size u32 | header CRC-32 u32 | 0 u32
             header (MessagePack) | payloads, each 64-byte aligned
    part n:  one payload

All integers are little endian. A reader takes nothing on trust: clients of one user can
write to each other's blocks, by mistake too. The header is copied out, checked, then
used, and so are offsets and shapes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from tensordict import TensorDictBase

from transfer_queue._columns import (
    EncodedColumn,
    Kind,
    Payload,
    column_values,
    encode_column,
)
from transfer_queue._dtypes import DTYPE_OF_NAME
from transfer_queue._errors import BlockCorruptError
from yr.datasystem import copy_pieces

OWN_PART_BYTES_MIN = 64 << 10  # A payload of this size is a part of its own,
OWN_PARTS_FROM_BYTES = 1 << 20  # where those of a block have so many together.
VIEW_BYTES_MIN = 1 << 20  # From here on mapping a payload is faster than copying it.
PARTS_MAX = 4096  # Most parts of one block (DS_BLOCK_PARTS_MAX).

_MAGIC = b"TQBLOCK\0"
_VERSION = 1
_PREFIX = struct.Struct("<8sIIII")
_ALIGN_BYTES = 64
_HEADER_BYTES_MAX = 1 << 30
_DIMS_MAX = 64
_ELEMENTS_MAX = 1 << 59  # Keeps every byte count below 2**63.


class Segment(msgspec.Struct, array_like=True, frozen=True):
    """Where a payload stands: bytes [offset, offset + nbytes) of a part.

    In part 0, `offset` counts from the first aligned byte behind the header.
    """

    part: int
    offset: int
    nbytes: int


class Column(msgspec.Struct, array_like=True, frozen=True):
    """The stored form of an EncodedColumn, which explains the members."""

    name: str
    kind: int
    dtype: str
    shape: list[int]
    ragged_dim: int
    data: Segment
    offsets: Segment | None
    shapes: Segment | None
    marks: Segment | None

    def segments(self) -> list[Segment]:
        """All payloads of the column."""
        all_segments = (self.data, self.offsets, self.shapes, self.marks)
        return [segment for segment in all_segments if segment is not None]


class _Header(msgspec.Struct, array_like=True, frozen=True):
    rows: int
    part_sizes: list[int]  # Of parts 1, 2, ...
    columns: list[Column]


_HEADER_ENCODER = msgspec.msgpack.Encoder()
_HEADER_DECODER = msgspec.msgpack.Decoder(_Header)


# ---- Writing -----------------------------------------------------------------------


def encode_fields(fields: TensorDictBase, rows: int) -> EncodedBlock:
    """Lay out the columns of `fields`, which have `rows` rows each, as one block.

    Tensors are not copied yet: they are read by EncodedBlock.write_into().
    Raises ValueError (a column does not have `rows` rows), ValueNotStorableError or
    PickleRefusedError, each naming the field.
    """
    return EncodedBlock(
        rows,
        [encode_column(name, value, rows) for name, value in column_values(fields)],
    )


class EncodedBlock:
    """A block that only has to be copied into place.

    field_names   names of the columns
    field_bytes   bytes of each column, in the order of field_names
    part_sizes    sizes of the parts to be created, at least 1 byte each
    """

    def __init__(self, rows: int, columns: Sequence[EncodedColumn]) -> None:
        self.field_names = [column.name for column in columns]
        self.field_bytes = [column.nbytes for column in columns]
        layout = _Layout(sum(self.field_bytes) >= OWN_PARTS_FROM_BYTES)
        stored = [layout.place_column(column) for column in columns]
        header = _HEADER_ENCODER.encode(_Header(rows, layout.own_sizes, stored))
        prefix = _PREFIX.pack(_MAGIC, _VERSION, len(header), zlib.crc32(header), 0)
        self._head = prefix + header
        self._data_start = aligned(len(self._head))
        self._placed = layout.placed
        self.part_sizes = [self._data_start + layout.shared_bytes, *layout.own_sizes]

    def write_into(self, parts: Sequence[Any]) -> None:
        """Fill the parts: writable buffers of at least the sizes in part_sizes.

        The one copy of the data. A failure leaves parts that must not be sealed.
        """
        if len(parts) != len(self.part_sizes):
            raise ValueError(f"{len(parts)} parts given for {len(self.part_sizes)}")
        pieces: list[Any] = [(parts[0], 0, [self._head])]
        for segment, payload in self._placed:
            start = segment.offset + (self._data_start if segment.part == 0 else 0)
            if payload.write is None:
                pieces.append((parts[segment.part], start, payload.sources))
                continue
            with memoryview(parts[segment.part]) as part, part.cast("B") as view:
                payload.write(view[start : start + segment.nbytes])
        copy_pieces(pieces)


class _Layout:
    """Hands out places for payloads."""

    def __init__(self, has_own_parts: bool) -> None:
        self._has_own_parts = has_own_parts
        self.own_sizes: list[int] = []
        self.shared_bytes = 0
        self.placed: list[tuple[Segment, Payload]] = []

    def place_column(self, column: EncodedColumn) -> Column:
        return Column(
            name=column.name,
            kind=column.kind,
            dtype=column.dtype,
            shape=list(column.shape),
            ragged_dim=column.ragged_dim,
            data=self._place(column.data),
            offsets=self._place_optional(column.offsets),
            shapes=self._place_optional(column.shapes),
            marks=self._place_optional(column.marks),
        )

    def _place_optional(self, payload: Payload | None) -> Segment | None:
        return None if payload is None else self._place(payload)

    def _place(self, payload: Payload) -> Segment:
        size = payload.nbytes
        is_large = self._has_own_parts and size >= OWN_PART_BYTES_MIN
        if is_large and len(self.own_sizes) + 1 < PARTS_MAX:
            self.own_sizes.append(size)
            segment = Segment(len(self.own_sizes), 0, size)
        else:
            segment = Segment(0, aligned(self.shared_bytes), size)
            self.shared_bytes = segment.offset + size
        self.placed.append((segment, payload))
        return segment


def aligned(size: int) -> int:
    """The next place where a payload may begin."""
    return -(-size // _ALIGN_BYTES) * _ALIGN_BYTES


# ---- Reading -----------------------------------------------------------------------


class BlockReader:
    """The checked header of a block. Holds no memory of the block.

    rows         number of rows
    field_names  names of the columns
    part_sizes   sizes of all parts
    """

    def __init__(self, header: _Header, data_start: int, part_bytes: int) -> None:
        self.rows = header.rows
        self.field_names = [column.name for column in header.columns]
        self.part_sizes = [part_bytes, *header.part_sizes]
        self._data_start = data_start
        self._columns = {column.name: column for column in header.columns}
        for column in header.columns:
            self._check_column(column)
        if len(self._columns) != len(header.columns):
            raise BlockCorruptError("block: two columns have the same name")

    @classmethod
    def open(cls, part0: Any) -> BlockReader:
        """Read the header from part 0, any buffer. Raises BlockCorruptError."""
        view = memoryview(part0).cast("B")
        if len(view) < _PREFIX.size:
            raise BlockCorruptError(f"block: part 0 has only {len(view)} bytes")
        magic, version, size, crc, _ = _PREFIX.unpack(bytes(view[: _PREFIX.size]))
        if magic != _MAGIC:
            raise BlockCorruptError("block: part 0 does not begin like a block")
        if version != _VERSION:
            raise BlockCorruptError(
                f"block: its format is version {version}, this program reads "
                f"version {_VERSION}; use one version of TransferQueue everywhere"
            )
        head_end = _PREFIX.size + size
        if size > _HEADER_BYTES_MAX or head_end > len(view):
            raise BlockCorruptError("block: the header is longer than part 0")
        header = _decoded_header(bytes(view[_PREFIX.size : head_end]), crc)
        return cls(header, aligned(head_end), len(view))

    def column(self, name: str) -> Column:
        """The description of a column. Raises BlockCorruptError if there is none."""
        column = self._columns.get(name)
        if column is None:
            raise BlockCorruptError(f"block: it has no field '{name}'")
        return column

    def parts_needed(self, field_names: Iterable[str]) -> list[int]:
        """The parts, ascending and always with 0, in which these columns stand."""
        parts = {0}
        for name in field_names:
            parts.update(segment.part for segment in self.column(name).segments())
        return sorted(parts)

    def place_of(self, segment: Segment) -> slice:
        """The bytes of its part that a segment is; within the part's size."""
        start = segment.offset + (self._data_start if segment.part == 0 else 0)
        return slice(start, start + segment.nbytes)

    def _check_column(self, column: Column) -> None:
        for segment in column.segments():
            if not self._is_inside(segment):
                raise BlockCorruptError(
                    f"block: field '{column.name}' reaches outside its part"
                )
        if not _is_consistent(column, self.rows):
            raise BlockCorruptError(
                f"block: the description of field '{column.name}' makes no sense"
            )

    def _is_inside(self, segment: Segment) -> bool:
        if min(segment.part, segment.offset, segment.nbytes) < 0:
            return False
        if segment.part >= len(self.part_sizes):
            return False
        # An empty payload may stand where part 0 ends, or would without alignment.
        place = self.place_of(segment)
        return segment.nbytes == 0 or place.stop <= self.part_sizes[segment.part]


def _decoded_header(data: bytes, crc: int) -> _Header:
    if zlib.crc32(data) != crc:
        raise BlockCorruptError("block: the header is damaged")
    try:
        header = _HEADER_DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BlockCorruptError(f"block: the header cannot be read: {error}") from error
    if header.rows < 0 or any(size < 1 for size in header.part_sizes):
        raise BlockCorruptError("block: the header has a negative size")
    return header


def _is_consistent(column: Column, rows: int) -> bool:
    """Do the sizes of the payloads follow from kind, dtype and shape?"""
    if len(column.shape) > _DIMS_MAX or any(size < 0 for size in column.shape):
        return False
    has = (
        column.offsets is not None,
        column.shapes is not None,
        column.marks is not None,
    )
    if column.kind == Kind.OBJECT:
        return (
            has == (True, False, True)
            and _has_size(column.offsets, 8 * (rows + 1))
            and _has_size(column.marks, rows)
        )
    dtype = DTYPE_OF_NAME.get(column.dtype)
    if dtype is None:
        return False
    row_bytes = math.prod(column.shape) * dtype.itemsize
    # torch computes strides even of tensors without elements.
    if math.prod(max(size, 1) for size in (rows, *column.shape)) > _ELEMENTS_MAX:
        return False
    if column.kind == Kind.DENSE:
        return has == (False, False, False) and _has_size(column.data, rows * row_bytes)
    if column.kind == Kind.RAGGED:
        return (
            has == (True, False, False)
            and 1 <= column.ragged_dim <= len(column.shape) + 1
            and _has_size(column.offsets, 8 * (rows + 1))
        )
    return (
        column.kind == Kind.SHAPED
        and has == (False, True, False)
        and _has_size(column.shapes, 8 * rows * len(column.shape))
    )


def _has_size(segment: Segment | None, nbytes: int) -> bool:
    return segment is not None and segment.nbytes == nbytes
