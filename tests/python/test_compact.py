"""Room from blocks that are mostly dead: copied rows are the same, bit for bit, and
what changes meanwhile is not undone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_blocks import FakeStore
from fake_queue import FakeQueue
from tensordict import NonTensorStack, TensorDict

from block_memory import Blocks, jagged, same
from transfer_queue._block import VIEW_BYTES_MIN
from transfer_queue._compact import copy_of_rows
from transfer_queue._errors import BlockCorruptError
from transfer_queue._stored import OpenBlock
from yr.datasystem import DatasystemError

ROWS = 8
COLUMNS: dict[str, Any] = {
    "scalars": torch.arange(ROWS),
    "dense": torch.arange(ROWS * 6).view(ROWS, 2, 3),
    "empty": torch.zeros(ROWS, 0),
    "bfloat16": torch.arange(ROWS * 2.0).view(ROWS, 2).bfloat16(),
    "jagged": jagged([torch.arange(n * 2.0).view(n, 2) for n in range(ROWS)]),
    "jagged_late": jagged([torch.ones(3, n + 1) * n for n in range(ROWS)], 2),
    "shaped": NonTensorStack(*(torch.full((n % 3, n), n) for n in range(ROWS))),
    "objects": NonTensorStack(*({"n": n, "text": "x" * n} for n in range(ROWS))),
    "mixed": NonTensorStack(*[7, torch.tensor(7), None, "ä"] * 2),
    "large": torch.arange(ROWS * VIEW_BYTES_MIN // 8).view(ROWS, -1),
}


def same_columns(left: Any, right: Any) -> bool:
    """Of one kind, and their rows are the same."""
    if type(left) is not type(right):
        return False
    if not isinstance(left, torch.Tensor) or not left.is_nested:
        return same(left, right)
    ragged = [getattr(column, "_ragged_idx", 0) for column in (left, right)]
    rows = zip(left.unbind(), right.unbind(), strict=True)
    return ragged[0] == ragged[1] and all(same(*pair) for pair in rows)


def copied(blocks: Blocks, block_id: bytes, names: list[str], rows: list[int]) -> bytes:
    """The id of a block with these rows alone."""
    opened = OpenBlock(blocks.parts[block_id][0])
    for number in opened.reader.parts_needed(names)[1:]:
        opened.add_part(number, blocks.parts[block_id][number])
    encoded = copy_of_rows(opened, names, rows)
    parts = [bytearray(b"\xaa" * size) for size in encoded.part_sizes]
    encoded.write_into([memoryview(part) for part in parts])
    new_id = len(blocks.parts).to_bytes(16, "little")
    blocks.parts[new_id] = [blocks._part_type(part) for part in parts]
    return new_id


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("rows", [[0], [7], [1, 2, 3], [0, 2, 3, 6], list(range(ROWS))])
def test_copied_rows_are_the_same(name: str, rows: list[int]) -> None:
    blocks = Blocks()
    old = blocks.put(TensorDict({name: COLUMNS[name]}, batch_size=[ROWS]))
    new = copied(blocks, old, [name], rows)
    runs = [number for row in rows for number in (0, row, 1)]
    before = blocks.get([name], [old], runs)[name]
    after = blocks.get([name], [new], [0, 0, len(rows)])[name]
    assert same_columns(before, after)


def test_some_columns_of_a_block_can_be_left_behind() -> None:
    blocks = Blocks()
    old = blocks.put(TensorDict(COLUMNS, batch_size=[ROWS]))
    names = ["jagged", "objects", "large"]
    new = copied(blocks, old, names, [1, 5])
    before = blocks.get(names, [old], [0, 1, 1, 0, 5, 1])
    after = blocks.get(names, [new], [0, 0, 2])
    assert all(same_columns(before[name], after[name]) for name in names)
    with pytest.raises(BlockCorruptError, match="no field 'dense'"):
        blocks.get(["dense"], [new], [0, 0, 2])


def test_rows_that_the_block_does_not_have_are_refused() -> None:
    blocks = Blocks()
    old = blocks.put(TensorDict({"x": torch.arange(4)}, batch_size=[4]))
    for rows in ([], [4], [0, 9]):
        with pytest.raises(BlockCorruptError, match="of a block of 4 rows"):
            copied(blocks, old, ["x"], rows)


# ---- When the store is full ----------------------------------------------------------


def fill(tq: Any, store: FakeStore) -> None:
    """One block of four rows, of which one is left; and no room for another one."""
    rows = TensorDict({"x": torch.arange(4 << 10).view(4, -1)}, batch_size=[4])
    tq.kv_batch_put(["a", "b", "c", "d"], "p", rows)
    tq.kv_clear(["a", "b", "d"], "p")
    store.capacity = 48 << 10


def another(tq: Any) -> None:
    rows = TensorDict({"x": torch.zeros(3, 1 << 10, dtype=torch.int64)}, batch_size=[3])
    tq.kv_batch_put(["e", "f", "g"], "p", rows)


def row_c(tq: Any) -> torch.Tensor:
    return tq.kv_batch_get(["c"], "p")["x"].values()


def test_a_put_that_finds_no_room_takes_that_of_cleared_rows(
    tq: Any, queue: FakeQueue, store: FakeStore
) -> None:
    fill(tq, store)
    another(tq)
    assert "kv_move" in queue.requests
    assert len(store.blocks) == 2
    assert torch.equal(row_c(tq).view(-1), torch.arange(2 << 10, 3 << 10))


def test_what_was_overwritten_meanwhile_stays(
    tq: Any, queue: FakeQueue, store: FakeStore
) -> None:
    fill(tq, store)
    new = TensorDict({"x": torch.ones(1, 4, dtype=torch.int64)}, batch_size=[1])

    def overwrite(request: list[Any]) -> None:
        if request[0] == "kv_move":
            queue.before = lambda _: None
            tq.kv_batch_put(["c"], "p", new)

    queue.before = overwrite
    another(tq)
    assert row_c(tq).tolist() == [1, 1, 1, 1]
    assert len(store.blocks) == 2  # What was copied for nothing is gone.


def test_what_is_cleared_meanwhile_stays_cleared(
    tq: Any, queue: FakeQueue, store: FakeStore
) -> None:
    fill(tq, store)

    def clear(request: list[Any]) -> None:
        if request[0] == "kv_move":
            queue.before = lambda _: None
            tq.kv_clear(["c"], "p")

    queue.before = clear
    another(tq)
    assert "c" not in tq.kv_list("p")["p"]
    assert len(store.blocks) == 1


def test_the_error_of_a_full_store_tells_of_dead_bytes(
    tq: Any, store: FakeStore
) -> None:
    rows = TensorDict({"x": torch.arange(4 << 10).view(4, -1)}, batch_size=[4])
    tq.kv_batch_put(["a", "b", "c", "d"], "p", rows)
    tq.kv_clear(["a"], "p")
    store.capacity = 48 << 10
    with pytest.raises(DatasystemError, match=r"25% are of rows that were cleared"):
        another(tq)
    assert sorted(tq.kv_list("p")["p"]) == ["b", "c", "d"]
    assert len(store.blocks) == 1


def test_no_room_for_the_copy_is_no_error_of_its_own(tq: Any, store: FakeStore) -> None:
    fill(tq, store)
    store.capacity = 33 << 10
    with pytest.raises(DatasystemError, match="Shared memory no space in arena"):
        another(tq)
    assert torch.equal(row_c(tq).view(-1), torch.arange(2 << 10, 3 << 10))
    assert len(store.blocks) == 1
