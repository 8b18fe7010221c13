"""Memory of results that are gone, for the results to come.

The first touch of a page costs several times what the copy into it does, and malloc
gives blocks of this size back to the kernel when they are freed. So the memory of a
result is kept when its last tensor goes, up to a limit for the process.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

# Smaller ones malloc keeps by itself; larger ones would be all of the limit.
_BYTES_MIN = 64 << 10
_BYTES_MAX = 16 << 20
_IDLE_BYTES_MAX = 64 << 20


class WarmMemory:
    """Idle buffers by size, a power of two.

    Any thread may take memory and drop it. There is no lock: one could be wanted while
    it is held, as memory comes back wherever the garbage collector runs. The steps on a
    deque are atomic, so at worst some more than the limit is kept for a while.
    """

    def __init__(self, idle_bytes_max: int = _IDLE_BYTES_MAX) -> None:
        sizes = range(_BYTES_MIN.bit_length() - 1, _BYTES_MAX.bit_length())
        self._idle: dict[int, deque[np.ndarray]] = {1 << n: deque() for n in sizes}
        self._idle_bytes_max = idle_bytes_max

    @property
    def idle_bytes(self) -> int:
        return sum(size * len(buffers) for size, buffers in self._idle.items())

    def take(self, nbytes: int) -> np.ndarray:
        """Bytes to be written first: what is in them is anything."""
        if not _BYTES_MIN // 2 < nbytes <= _BYTES_MAX:
            return np.empty(nbytes, np.uint8)
        size = max(_BYTES_MIN, 1 << (nbytes - 1).bit_length())
        try:
            buffer = self._idle[size].pop()
        except IndexError:
            buffer = np.empty(size, np.uint8)
        return np.asarray(_Lease(self, buffer, nbytes))

    def give_back(self, buffer: np.ndarray) -> None:
        if self.idle_bytes + len(buffer) <= self._idle_bytes_max:
            self._idle[len(buffer)].append(buffer)


class _Lease:
    """What the arrays and tensors on a buffer keep alive. Owner of the buffer."""

    __slots__ = ("__array_interface__", "_buffer", "_home")

    def __init__(self, home: WarmMemory, buffer: np.ndarray, nbytes: int) -> None:
        self._home = home
        self._buffer = buffer
        self.__array_interface__: dict[str, Any] = {
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": buffer.__array_interface__["data"],
            "version": 3,
        }

    def __del__(self) -> None:
        self._home.give_back(self._buffer)


warm_memory = WarmMemory()
