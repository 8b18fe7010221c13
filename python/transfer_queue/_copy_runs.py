"""Copying many ranges of several sources into one place, without Python per range
where the ranges are short."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer_queue._columns import offsets_of

# Ranges of at least so many bytes on average are copied one by one,
_LOOP_BYTES_MIN = 1024
# and so are few ranges per source: an index costs as much as some tens of copies.
_LOOP_RANGES_MAX = 32


@dataclass(slots=True)
class Ranges:
    """Ranges [start, start + length) of source `block`, to be copied to `dest` on.

    Counted in units, whose size the user of this knows. In order of `dest`, without
    gaps. All four have the same length.
    """

    block: np.ndarray
    start: np.ndarray
    dest: np.ndarray
    length: np.ndarray


def copy_runs(
    out: np.ndarray, sources: dict[int, np.ndarray], ranges: Ranges, unit_bytes: int
) -> None:
    """Fill `out` from `sources`; both are bytes, and the ranges lie within them."""
    if len(out) == 0:
        return
    count = len(ranges.block)
    if count <= _LOOP_RANGES_MAX * len(sources) or len(out) >= count * _LOOP_BYTES_MIN:
        _copy_one_by_one(out, sources, ranges, unit_bytes)
    else:
        _copy_by_index(out, sources, ranges, unit_bytes)


def _copy_one_by_one(
    out: np.ndarray, sources: dict[int, np.ndarray], ranges: Ranges, unit_bytes: int
) -> None:
    starts = (ranges.start * unit_bytes).tolist()
    dests = (ranges.dest * unit_bytes).tolist()
    sizes = (ranges.length * unit_bytes).tolist()
    for block, start, dest, size in zip(
        ranges.block.tolist(), starts, dests, sizes, strict=True
    ):
        out[dest : dest + size] = sources[block][start : start + size]


def _copy_by_index(
    out: np.ndarray, sources: dict[int, np.ndarray], ranges: Ranges, unit_bytes: int
) -> None:
    unit = _unit_dtype(unit_bytes)
    out_units = out.view(unit)
    for number, source in sources.items():
        mine = ranges.block == number
        lengths = ranges.length[mine]
        within = np.arange(int(lengths.sum())) - np.repeat(
            offsets_of(lengths)[:-1], lengths
        )
        taken = source.view(unit)[np.repeat(ranges.start[mine], lengths) + within]
        if len(taken) == len(out_units):
            out_units[:] = taken  # The only source: everything is in order.
        else:
            out_units[np.repeat(ranges.dest[mine], lengths) + within] = taken


def _unit_dtype(unit_bytes: int) -> np.dtype[Any]:
    """Numbers are copied faster than opaque bytes."""
    if unit_bytes in (1, 2, 4, 8):
        return np.dtype(f"u{unit_bytes}")
    return np.dtype(f"V{unit_bytes}")
