"""Memory of results that are gone is used again, and only then."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
import torch

from transfer_queue._dtypes import allocate
from transfer_queue._warm_memory import WarmMemory, warm_memory

SIZE = 256 << 10


def test_memory_comes_back_when_the_last_tensor_on_it_goes() -> None:
    memory = WarmMemory()
    tensor = torch.from_numpy(memory.take(SIZE))
    part = tensor.view(torch.float32)[10:20]
    address = tensor.data_ptr()
    del tensor
    assert memory.idle_bytes == 0, "a part of it still lives"
    del part
    assert memory.idle_bytes == SIZE
    assert memory.take(SIZE).ctypes.data == address


@pytest.mark.parametrize("nbytes", [0, 1, 32 << 10, (32 << 10) + 1, 100_000, 1 << 24])
def test_all_of_it_can_be_written(nbytes: int) -> None:
    taken = warm_memory.take(nbytes)
    assert taken.shape == (nbytes,) and taken.dtype == np.uint8
    taken[:] = 7
    assert bool((taken == 7).all())


def test_no_more_than_the_limit_is_kept() -> None:
    memory = WarmMemory(idle_bytes_max=3 * SIZE)
    taken = [memory.take(SIZE) for _ in range(5)]
    taken.clear()
    assert memory.idle_bytes == 3 * SIZE


def test_very_large_memory_is_not_kept() -> None:
    memory = WarmMemory()
    del [memory.take((16 << 20) + 1)][0]
    assert memory.idle_bytes == 0


def test_living_tensors_never_share_memory() -> None:
    """Many threads take, check and drop; the bytes of each stay its own."""
    errors: list[str] = []

    def work(number: int) -> None:
        held: list[tuple[torch.Tensor, int]] = []
        for step in range(400):
            tensor, data = allocate((60_000 + 997 * (step % 90),), torch.int32)
            mark = number * 1000 + step
            data.view(np.int32)[:] = mark
            held.append((tensor, mark))
            if len(held) > 4:
                old, old_mark = held.pop(step % 4)
                if not bool((old == old_mark).all()):
                    errors.append(f"{number}: {old_mark} became {old.unique()}")
            if step % 50 == 0:
                gc.collect()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
