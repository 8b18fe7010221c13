"""Blocks at random and blocks that are damaged."""

from __future__ import annotations

import contextlib
import functools
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import (
    NonTensorStack,
    TensorDict,
)

from block_memory import (
    Blocks,
    SealedPart,
    jagged,
    large,
    random_bits,
    rows_of,
    same,
)
from transfer_queue._block import BlockReader
from transfer_queue._dtypes import DTYPE_OF_NAME
from transfer_queue._errors import (
    BlockCorruptError,
)

# ---- At random ---------------------------------------------------------------------


@st.composite
def batches(draw: st.DrawFn) -> list[Any]:
    """The rows of one put: of one kind, which may differ from put to put."""
    count = draw(st.integers(1, 5))
    seed = draw(st.integers(0, 1000))
    dtype = DTYPE_OF_NAME[
        draw(st.sampled_from(["int64", "bool", "bfloat16", "uint16"]))
    ]
    sizes = st.integers(0, 3)
    kind = draw(st.sampled_from(["scalar", "dense", "ragged", "shaped", "object"]))
    if kind == "object":
        value = st.one_of(st.none(), st.integers(), st.text(), st.binary())
        return [draw(value) for _ in range(count)]
    rank = {"scalar": 0, "shaped": 2}.get(kind, draw(st.integers(1, 3)))
    shape = [draw(sizes) for _ in range(rank)]
    vary = {"ragged": [draw(st.integers(0, max(rank - 1, 0)))], "shaped": [0, 1]}
    rows = []
    for row in range(count):
        for dim in vary.get(kind, []):
            shape[dim] = draw(sizes)
        rows.append(random_bits(tuple(shape), dtype, seed + row))
    return rows


@settings(max_examples=150, deadline=None)
@given(st.lists(batches(), min_size=1, max_size=3), st.data())
def test_any_rows_of_any_puts_come_back_exactly(puts: list[Any], data: Any) -> None:
    blocks = Blocks()
    ids = [
        blocks.put(TensorDict({"x": NonTensorStack(*rows)}, batch_size=[len(rows)]))
        for rows in puts
    ]
    runs: list[int] = []
    expected: list[Any] = []
    for _ in range(data.draw(st.integers(1, 6))):
        number = data.draw(st.integers(0, len(puts) - 1))
        first = data.draw(st.integers(0, len(puts[number]) - 1))
        count = data.draw(st.integers(1, len(puts[number]) - first))
        runs += [number, first, count]
        expected += puts[number][first : first + count]
    assert same(rows_of(blocks.get(["x"], ids, runs)["x"]), expected)


# ---- Damage ------------------------------------------------------------------------


def sample() -> TensorDict:
    """One column of every kind."""
    return TensorDict(
        {
            "vector": torch.arange(3),
            "dense": torch.arange(12.0).view(3, 4),
            "ragged": jagged([torch.arange(n) for n in (1, 0, 2)]),
            "turned": jagged([torch.ones(2, n) for n in (1, 2, 3)], 2),
            "shaped": NonTensorStack(*[torch.ones(n, n + 1) for n in range(3)]),
            "object": NonTensorStack("a", {"b": (1, 2**70)}, np.arange(3)),
        },
        batch_size=[3],
    )


@functools.cache
def stored_sample() -> bytes:
    """Its only part."""
    blocks = Blocks()
    (part0,) = blocks.parts[blocks.put(sample())]
    return bytes(part0)


class Damaged:
    """A stored sample whose part 0 can be changed."""

    def __init__(self) -> None:
        self.blocks = Blocks()
        self.block = b"sixteen bytes id"
        self.part0 = bytearray(stored_sample())

    def read(self, runs: list[int] | None = None) -> TensorDict:
        self.blocks.parts[self.block] = [SealedPart(self.part0)]
        names = ["vector", "dense", "ragged", "turned", "shaped", "object"]
        return self.blocks.get(names, [self.block], runs or [0, 0, 3])

    def header(self) -> Any:
        size = int.from_bytes(self.part0[12:16], "little")
        return msgspec.msgpack.decode(self.part0[24 : 24 + size])

    def set_header(self, header: Any) -> None:
        """Write a header with the right checksum, of the same place and alignment."""
        old = int.from_bytes(self.part0[12:16], "little")
        data = msgspec.msgpack.encode(header)
        payloads = self.part0[-(-(24 + old) // 64) * 64 :]
        start = -(-(24 + len(data)) // 64) * 64
        prefix = self.part0[:12] + len(data).to_bytes(4, "little")
        prefix += zlib.crc32(data).to_bytes(4, "little") + bytes(4)
        self.part0 = (prefix + data).ljust(start, b"\0") + payloads


def test_an_undamaged_sample_reads_well() -> None:
    damaged = Damaged()
    damaged.set_header(damaged.header())
    back = damaged.read()
    for name, column in sample().items():
        expected = rows_of(sample()[name])
        assert column is not None and same(rows_of(back[name]), expected)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (0, "begin like a block"),
        (8, "version"),
        (12, "damaged|longer"),
        (30, "damaged"),
    ],
)
def test_a_damaged_head_is_refused(place: int, text: str) -> None:
    damaged = Damaged()
    damaged.part0[place] ^= 0x40
    with pytest.raises(BlockCorruptError, match=text):
        damaged.read()


@pytest.mark.parametrize("size", [0, 10, 24, 100])
def test_a_cut_part_is_refused(size: int) -> None:
    damaged = Damaged()
    del damaged.part0[size:]
    with pytest.raises(BlockCorruptError):
        damaged.read()


def test_a_part_that_is_shorter_than_its_header_says_is_refused() -> None:
    blocks = Blocks()
    block = blocks.put(TensorDict({"x": large(4)}, [4]))
    blocks.parts[block][1] = SealedPart(blocks.parts[block][1][:-1])
    with pytest.raises(BlockCorruptError, match="part 1"):
        blocks.get(["x"], [block], [0, 0, 4])


@pytest.mark.parametrize(
    "change",
    [
        lambda column: column.__setitem__(1, 9),
        lambda column: column.__setitem__(2, "no_such_dtype"),
        lambda column: column.__setitem__(3, [-1]),
        lambda column: column.__setitem__(3, [2**62, 2**62]),
        lambda column: column.__setitem__(3, [0, 2**62]),
        lambda column: column.__setitem__(5, [0, 0, 2**40]),
        lambda column: column.__setitem__(5, [0, -8, 96]),
        lambda column: column.__setitem__(5, [7, 0, 96]),
        lambda column: column.__setitem__(6, [0, 0, 32]),
        lambda column: column.__setitem__(0, "vector"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    change: Callable[[Any], None],
) -> None:
    damaged = Damaged()
    header = damaged.header()
    change(header[2][1])
    damaged.set_header(header)
    with pytest.raises(BlockCorruptError):
        damaged.read()


def payload_start(damaged: Damaged, field: str, member: int) -> int:
    """Where a payload of a field stands in part 0."""
    size = int.from_bytes(damaged.part0[12:16], "little")
    column = next(c for c in damaged.header()[2] if c[0] == field)
    return -(-(24 + size) // 64) * 64 + int(column[member][1])


@pytest.mark.parametrize(
    ("field", "member", "text"),
    [("ragged", 6, "offsets"), ("object", 6, "offsets"), ("shaped", 7, "shapes")],
)
@pytest.mark.parametrize("value", [-1, 2**40, 2**63 - 1, -(2**63)])
def test_damaged_row_places_are_refused(
    field: str, member: int, text: str, value: int
) -> None:
    damaged = Damaged()
    place = payload_start(damaged, field, member) + 16
    damaged.part0[place : place + 8] = value.to_bytes(8, "little", signed=True)
    with pytest.raises(BlockCorruptError, match=f"row {text} of field '{field}'"):
        damaged.read()


@pytest.mark.parametrize(
    "runs", [[0, 0, 4], [0, 3, 1], [0, -1, 1], [0, 1, -1], [1, 0, 1], [-1, 0, 1]]
)
def test_runs_outside_their_block_are_refused(runs: list[int]) -> None:
    with pytest.raises(BlockCorruptError, match="reply"):
        Damaged().read(runs)


def test_a_field_that_the_block_does_not_have_is_refused() -> None:
    blocks = Blocks()
    block = blocks.put(sample())
    with pytest.raises(BlockCorruptError, match="no field 'other'"):
        blocks.get(["other"], [block], [0, 0, 3])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_hostile_bytes_are_refused_or_are_values(data: Any) -> None:
    """The checksum is made right again, so that every check behind it is reached."""
    damaged = Damaged()
    size = int.from_bytes(damaged.part0[12:16], "little")
    in_header = st.integers(24, 24 + size - 1)
    anywhere = st.integers(24, len(damaged.part0) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(in_header | anywhere)
        damaged.part0[place] = data.draw(
            st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
        )
    crc = zlib.crc32(damaged.part0[24 : 24 + size])
    damaged.part0[16:20] = crc.to_bytes(4, "little")
    with contextlib.suppress(BlockCorruptError):
        damaged.read(data.draw(st.sampled_from([[0, 0, 3], [0, 2, 1, 0, 0, 1]])))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_hostile_descriptions_are_refused_or_are_values(data: Any) -> None:
    damaged = Damaged()
    header = damaged.header()
    column = header[2][data.draw(st.integers(0, len(header[2]) - 1))]
    numbers = st.sampled_from([0, 1, 2, 3, 4, 5, 8, 24, 64, 2**31, 2**62, 2**63, -1])
    segment = st.none() | st.lists(numbers, min_size=3, max_size=3)
    members = {
        1: numbers,
        2: st.sampled_from(sorted(DTYPE_OF_NAME)),
        3: st.lists(numbers, max_size=4),
        4: numbers,
        **dict.fromkeys((5, 6, 7, 8), segment),
    }
    for member in data.draw(st.lists(st.sampled_from(sorted(members)), min_size=1)):
        column[member] = data.draw(members[member])
    header[0] = data.draw(st.sampled_from([3, 3, 0, 2, 2**62]))
    damaged.set_header(header)
    with contextlib.suppress(BlockCorruptError):
        damaged.read()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_no_block(junk: bytes) -> None:
    with pytest.raises(BlockCorruptError):
        BlockReader.open(junk)
