"""Filling a block's parts in C: all pieces fit, or nothing is written."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from yr.datasystem import DatasystemError, copy_pieces


def test_sources_follow_each_other_at_their_places() -> None:
    first, second = bytearray(b"." * 8), bytearray(b"." * 4)
    numbers = np.array([0x6261, 0x6463], np.uint16)
    turned = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    copy_pieces(
        [(first, 1, [b"xy", b"", numbers]), (second, 4, []), (second, 0, [b"z"])]
    )
    assert (first, second) == (b".xyabcd.", b"z...")
    copy_pieces([(first, 2, [turned])])
    assert first == b".x" + turned.tobytes()


def test_long_sources_are_copied_too() -> None:
    source = np.arange(1 << 15, dtype=np.uint32)
    target = np.zeros((1 << 15) + 1, np.uint32)
    copy_pieces([(target, 4, [source])])
    assert target[0] == 0 and np.array_equal(target[1:], source)


@pytest.mark.parametrize("start", [-1, 6, 9, 2**62, -(2**62)])
def test_what_does_not_fit_leaves_everything_as_it_was(start: int) -> None:
    target = bytearray(8)
    with pytest.raises(DatasystemError, match="outside its target"):
        copy_pieces([(target, 0, [b"a"]), (target, start, [b"ab", b"c"])])
    assert target == bytes(8)


@pytest.mark.parametrize(
    "pieces",
    [
        None,
        [None],
        [(bytearray(4), 0)],
        [(b"read-only", 0, [b"a"])],
        [(bytearray(4), 0, None)],
        [(bytearray(4), 0, b"abcd")],
        [(bytearray(4), 0, [1])],
        [(bytearray(4), "0", [b"a"])],
    ],
)
def test_other_types_are_refused(pieces: Any) -> None:
    with pytest.raises(TypeError):
        copy_pieces(pieces)


def test_nothing_is_held_after_a_call_however_it_ends() -> None:
    source, target = bytearray(4), bytearray(8)
    before = sys.getrefcount(source), sys.getrefcount(target)
    for start in (0, 5):
        for _ in range(20):
            try:
                copy_pieces([(target, 0, [source]), (target, start, [source])])
            except DatasystemError:
                assert start == 5
    assert (sys.getrefcount(source), sys.getrefcount(target)) == before
    source.append(0)  # BufferError if somebody still had them.
    target.append(0)
