"""Gathering rows in C: what it is given wrongly is refused, never read or written."""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pytest

from yr.datasystem import DatasystemError, RowRuns
from yr.datasystem._core import CORRUPT, INVALID

DATA = b"aabbccdd"  # Four rows of two.
OFFSETS = np.array([0, 1, 1, 6, 8])


def even() -> Any:
    return (DATA, 0, 8, None, 0, 2)


def ragged(offsets: np.ndarray = OFFSETS) -> Any:
    return (DATA, 0, 8, offsets, 0, 0)


def refused(status: int, call: Any, *arguments: Any) -> str:
    with pytest.raises(DatasystemError) as caught:
        call(*arguments)
    assert caught.value.status == status
    return caught.value.message


def test_rows_are_counted_and_blocks_without_rows_are_left_out() -> None:
    runs = RowRuns([2, 1, 2, 0, 0, 1, 2, 3, 0], [3, 9, 4])
    assert (runs.rows, runs.used, runs.is_whole) == (3, [0, 2], False)
    assert RowRuns([1, 0, 9], [3, 9]).is_whole
    assert not RowRuns([1, 0, 4, 1, 4, 5], [3, 9]).is_whole
    assert (RowRuns([], []).rows, RowRuns([], []).used) == (0, [])


@pytest.mark.parametrize(
    "runs", [[0, 0, 5], [0, 4, 1], [0, 5, 0], [1, 0, 1], [0, 1], [0, 2**63, 2**63]]
)
def test_runs_that_make_no_sense_are_refused(runs: list[int]) -> None:
    refused(INVALID, RowRuns, runs, [4])


@pytest.mark.parametrize("number", [-1, 2**64])
def test_numbers_that_do_not_fit_are_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        RowRuns([0, 0, number], [4])
    with pytest.raises(OverflowError):
        RowRuns([0, 0, 1], [number])


def test_more_rows_than_memory_can_hold_are_refused() -> None:
    refused(INVALID, RowRuns, [0, 0, 2**62], [2**62])
    refused(INVALID, RowRuns, [0, 0, 2**59, 0, 0, 2**59], [2**59])


def test_columns_are_copied_to_their_places() -> None:
    runs = RowRuns([0, 3, 1, 1, 1, 2], [4, 4])
    offsets = np.empty(4, np.int64)
    assert runs.offsets([even(), ragged()], 1, offsets) == (0, 5)
    assert offsets.tolist() == [0, 2, 2, 7]
    out = bytearray(16)
    runs.copy(
        [
            ([even(), ragged()], 1, offsets, out, 1, 7),
            ([even(), even()], 1, None, out, 10, 6),
        ]
    )
    assert out == b"\0" + b"dd" + b"abbcc" + b"\0\0" + b"dd" + b"bbcc"


def test_long_columns_are_copied_too() -> None:
    data = np.arange(1 << 17, dtype=np.uint32)
    out = np.zeros(1 << 16, np.uint32)
    runs = RowRuns([0, 1 << 16, 1 << 16], [1 << 17])
    runs.copy([([(data, 0, data.nbytes, None, 0, 1)], 4, None, out, 0, out.nbytes)])
    assert np.array_equal(out, data[1 << 16 :])


@pytest.mark.parametrize(
    "source",
    [
        (DATA, 1, 8, None, 0, 2),
        (DATA, -1, 8, None, 0, 2),
        (DATA, 0, -8, None, 0, 2),
        (DATA, 0, 8, OFFSETS[:4], 0, 0),
        (DATA, 0, 8, OFFSETS, 8, 0),
        (DATA, 0, 8, OFFSETS, -8, 0),
    ],
)
def test_places_outside_of_their_parts_are_refused(source: Any) -> None:
    runs = RowRuns([0, 0, 4], [4])
    assert "outside of a part" in refused(
        CORRUPT, runs.offsets, [source], 1, np.empty(5, np.int64)
    )
    refused(CORRUPT, runs.copy, [([source], 1, None, bytearray(8), 0, 8)])


def test_a_part_that_is_too_short_for_its_rows_is_refused() -> None:
    runs = RowRuns([0, 0, 5], [5])
    refused(INVALID, runs.copy, [([even()], 1, None, bytearray(10), 0, 10)])


def test_damaged_offsets_are_refused() -> None:
    runs = RowRuns([0, 0, 4], [4])
    out = np.empty(5, np.int64)
    for place, value in [(0, 1), (1, 7), (2, -1), (3, 2**62), (4, 7), (4, 9)]:
        damaged = OFFSETS.copy()
        damaged[place] = value
        refused(CORRUPT, runs.offsets, [ragged(damaged)], 1, out)


@pytest.mark.parametrize(
    ("start", "size"), [(1, 8), (-1, 8), (0, 7), (0, -1), (2**62, 8), (9, 0)]
)
def test_results_without_room_are_refused(start: int, size: int) -> None:
    runs = RowRuns([0, 0, 4], [4])
    refused(INVALID, runs.copy, [([even()], 1, None, bytearray(8), start, size)])


def test_offsets_of_another_number_of_rows_are_refused() -> None:
    runs = RowRuns([0, 0, 4], [4])
    for count in (0, 4, 6):
        wrong = np.empty(count, np.int64)
        refused(INVALID, runs.offsets, [ragged()], 1, wrong)
        refused(INVALID, runs.copy, [([ragged()], 1, wrong, bytearray(8), 0, 8)])


@pytest.mark.parametrize(
    "column",
    [
        None,
        (),
        ([even()], 1, None, b"read-only", 0, 8),
        ([], 1, None, bytearray(8), 0, 8),
        ([None], 1, None, bytearray(8), 0, 8),
        ([()], 1, None, bytearray(8), 0, 8),
        ((even(),), 1, None, bytearray(8), 0, 8),
        ([even()], 1, "text", bytearray(8), 0, 8),
    ],
)
def test_other_types_are_refused(column: Any) -> None:
    with pytest.raises(TypeError):
        RowRuns([0, 0, 4], [4]).copy([column])


def test_other_types_than_lists_are_refused() -> None:
    runs: Any = RowRuns([0, 0, 4], [4])
    with pytest.raises(TypeError):
        runs.copy(None)
    with pytest.raises(TypeError):
        runs.offsets(None, 1, bytearray(40))


def test_nothing_is_held_after_a_call_however_it_ends() -> None:
    runs = RowRuns([0, 0, 4], [4])
    data, offsets, out = bytearray(DATA), bytearray(OFFSETS.tobytes()), bytearray(8)
    counts = [sys.getrefcount(item) for item in (data, offsets, out)]
    good: Any = (data, 0, 8, offsets, 0, 0)
    bad: Any = (data, 0, 8, offsets, 8, 0)
    for source in (good, bad):
        for _ in range(20):
            try:
                runs.offsets([source], 1, bytearray(40))
                runs.copy([([source], 1, offsets, out, 0, 8)])
            except DatasystemError:
                pass
    del good, bad, source
    gc.collect()
    assert [sys.getrefcount(item) for item in (data, offsets, out)] == counts
    for item in (data, offsets, out):
        item.append(0)  # BufferError if somebody still had it.
