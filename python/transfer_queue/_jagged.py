"""Jagged nested tensors, made as torch makes the results of its own operations."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch


class Offsets:
    """Where the rows of a jagged tensor begin, for all columns with the same ones.

    array      int64, rows + 1 of them, from 0 on, not falling; taken
    tensor     the same: torch knows by it that columns fit together
    shortest   the length of the shortest row, and
    longest    that of the longest; `bounds`, where they are known already
    """

    def __init__(
        self, array: np.ndarray, bounds: tuple[int, int] | None = None
    ) -> None:
        self.array = array
        self.tensor = torch.from_numpy(array)
        if bounds is None:
            lengths = np.diff(array)
            bounds = int(lengths.min(initial=array[-1])), int(lengths.max(initial=0))
        self.shortest, self.longest = bounds
        self._known_to_torch: dict[str, torch.Tensor] | None = None

    def jagged(self, values: torch.Tensor, ragged_dim: int) -> torch.Tensor:
        """The rows that lie one after the other in `values`, whose ragged dimension is
        `ragged_dim`, counted with the rows as dimension 0. Takes `values`."""
        if _can_construct():
            return self._constructed(values, ragged_dim)
        return self._asked_for(values, ragged_dim)

    def _asked_for(self, values: torch.Tensor, ragged_dim: int) -> torch.Tensor:
        """The bounds of the lengths must be given: torch does not look for them, and
        pads to the length of all rows together when they are missing."""
        return torch.nested.nested_tensor_from_jagged(
            values,
            self.tensor,
            jagged_dim=ragged_dim,
            min_seqlen=self.shortest,
            max_seqlen=self.longest,
        )

    def _constructed(self, values: torch.Tensor, ragged_dim: int) -> torch.Tensor:
        """The same in a fifth of the time: the public function records a view for
        autograd, which a tensor without history does not need, and the constructor
        marks the bounds as dynamic for each tensor anew."""
        from torch.nested._internal import nested_tensor

        if self._known_to_torch is None:
            self._known_to_torch = {
                "min_seqlen": _bound(self.shortest),
                "max_seqlen": _bound(self.longest),
            }
        made: Any = nested_tensor.NestedTensor(
            values, self.tensor, _ragged_idx=ragged_dim
        )
        made._metadata_cache = dict(self._known_to_torch)
        tensor: torch.Tensor = made
        return tensor


@lru_cache(maxsize=1024)
def _bound(length: int) -> torch.Tensor:
    """A length as torch keeps it: as the shape of a tensor without elements."""
    from torch.nested._internal import nested_tensor

    bound: torch.Tensor = nested_tensor._store_val_in_tensor(length)
    torch._dynamo.mark_dynamic(bound, 0)
    return bound


@cache
def _can_construct() -> bool:
    """Does this torch have that constructor, and does it mean what we think?"""
    values, offsets = torch.arange(6.0).view(2, 3), Offsets(np.array([0, 1, 3]))
    torchs: Any = offsets._asked_for(values, 2)
    try:
        ours: Any = offsets._constructed(values, 2)
        return bool(
            ours._ragged_idx == torchs._ragged_idx
            and ours.shape[1:2] == torchs.shape[1:2]
            and (ours._get_min_seqlen(), ours._get_max_seqlen())
            == (torchs._get_min_seqlen(), torchs._get_max_seqlen())
            and all(map(torch.equal, ours.unbind(), torchs.unbind()))
        )
    except (ImportError, AttributeError, TypeError, RuntimeError):
        return False
