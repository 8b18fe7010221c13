"""The element types a tensor may have, by name, and how their bytes are moved.

Tensors are copied bit for bit. Many types lack a copy kernel for one operation or the
other (float8, the small integers), so bytes travel in a *carrier*: an ordinary type of
the same size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from transfer_queue._warm_memory import warm_memory

_CARRIERS = {
    1: torch.uint8,
    2: torch.int16,
    4: torch.int32,
    8: torch.int64,
    16: torch.complex128,
}

# Those that numpy can hold as they are, the usual ones.
_NUMPY_HAS = frozenset(
    {torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8, torch.bool}
)


def _plain_dtypes() -> dict[str, torch.dtype]:
    """Every dtype whose elements are bits and nothing else.

    Quantized types are left out: their meaning needs a scale that is not in the bytes.
    """
    found = {}
    for attribute in dir(torch):
        dtype = getattr(torch, attribute)
        if isinstance(dtype, torch.dtype):
            name = str(dtype).removeprefix("torch.")
            if not name.startswith(("q", "uint1x")) and dtype.itemsize in _CARRIERS:
                found[name] = dtype
    return found


DTYPE_OF_NAME = _plain_dtypes()
NAME_OF_DTYPE = {dtype: name for name, dtype in DTYPE_OF_NAME.items()}


def carrier_of(dtype: torch.dtype) -> torch.dtype:
    """A type of the same size that every operation supports."""
    return _CARRIERS[dtype.itemsize]


def is_plain(tensor: torch.Tensor) -> bool:
    """True if shape, dtype and element bytes are all there is to this tensor."""
    return (
        tensor.layout is torch.strided
        and not tensor.is_nested
        and tensor.dtype in NAME_OF_DTYPE
    )


def settled(tensor: torch.Tensor) -> torch.Tensor:
    """The same elements as a plain CPU tensor without history or lazy conjugation."""
    if tensor.device.type == "meta":
        raise ValueError("a tensor on device 'meta' has no data; put a real one")
    if tensor.requires_grad:
        tensor = tensor.detach()
    if type(tensor) is not torch.Tensor:
        tensor = tensor.detach().as_subclass(torch.Tensor)
    if not tensor.is_cpu:
        tensor = tensor.cpu()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    return tensor


def memory_of(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a settled, contiguous tensor."""
    if tensor.dtype not in _NUMPY_HAS:
        tensor = tensor.view(carrier_of(tensor.dtype))
    return tensor.numpy()


def byte_array(tensor: torch.Tensor) -> np.ndarray:
    """The bytes of a settled tensor; shared with it where it is contiguous."""
    flat = tensor.view(carrier_of(tensor.dtype)).contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def allocate(
    shape: Sequence[int], dtype: torch.dtype
) -> tuple[torch.Tensor, np.ndarray]:
    """A contiguous CPU tensor, and its bytes to be filled in."""
    array = warm_memory.take(math.prod(shape) * dtype.itemsize)
    if len(array) == 0:  # Without elements there is no view of another size.
        return torch.empty(shape, dtype=carrier_of(dtype)).view(dtype), array
    return torch.from_numpy(array).view(dtype).view(tuple(shape)), array
