"""The key-value functions against a model of the controller and of the store."""

from __future__ import annotations

import asyncio
import datetime
import threading
from typing import Any

import pytest
import torch
from fake_blocks import FakeStore
from fake_queue import IO, TIMEOUT, FakeQueue
from tensordict import NonTensorStack, TensorDict

from yr.datasystem import DatasystemError


def columns(rows: int, **extra: Any) -> TensorDict:
    return TensorDict({"x": torch.arange(rows), **extra}, batch_size=[rows])


def keys_of(rows: int) -> list[str]:
    return [f"k{row}" for row in range(rows)]


# ---- Put and get ---------------------------------------------------------------------


def test_what_was_put_comes_back_in_the_order_asked_for(tq: Any) -> None:
    tq.kv_batch_put(keys_of(4), "train", columns(4))
    back = tq.kv_batch_get(["k3", "k0", "k2"], "train")
    assert back.batch_size == torch.Size([3])
    assert back["x"].tolist() == [3, 0, 2]


def test_a_put_is_one_block_and_one_request(
    tq: Any, queue: FakeQueue, store: FakeStore
) -> None:
    tq.kv_batch_put(keys_of(100), "train", columns(100, y=torch.ones(100, 3)))
    assert len(store.blocks) == 1
    assert queue.requests == ["kv_put"]
    assert all(part.sealed for parts in store.blocks.values() for part in parts)


def test_put_answers_with_keys_merged_tags_and_all_fields(tq: Any) -> None:
    tq.kv_batch_put(["a"], "p", columns(1), tags=[{"n": 1}])
    more = TensorDict({"b": torch.ones(1)}, batch_size=[1])
    meta = tq.kv_batch_put(keys=["a"], partition_id="p", fields=more, tags=[{"m": 2}])
    assert (meta.keys, meta.partition_id) == (["a"], "p")
    assert meta.tags == [{"n": 1, "m": 2}]
    assert meta.fields == ["b", "x"]
    assert meta.extra_info == {}


def test_put_without_tags_echoes_those_that_are_there(tq: Any) -> None:
    tq.kv_batch_put(["a", "b"], "p", tags=[{"is_prompt": True}, {"n": 2}])
    meta = tq.kv_batch_put(["b", "a", "c"], "p", columns(3))
    assert meta.tags == [{"n": 2}, {"is_prompt": True}, {}]


def test_writing_one_field_leaves_the_others(tq: Any) -> None:
    tq.kv_batch_put(["a", "b"], "p", columns(2))
    tq.kv_batch_put(["a", "b"], "p", TensorDict({"y": torch.ones(2)}, batch_size=[2]))
    tq.kv_batch_put(["b"], "p", TensorDict({"x": torch.tensor([9])}, batch_size=[1]))
    back = tq.kv_batch_get(["a", "b"], "p")
    assert back["x"].tolist() == [0, 9]
    assert back["y"].tolist() == [1, 1]


def test_overwritten_blocks_are_deleted_once_nothing_is_left_of_them(
    tq: Any, store: FakeStore
) -> None:
    tq.kv_batch_put(["a", "b"], "p", columns(2))
    tq.kv_batch_put(["a"], "p", columns(1))
    assert len(store.blocks) == 2
    tq.kv_batch_put(["b"], "p", columns(1))
    assert len(store.blocks) == 2
    tq.kv_clear(["a", "b"], "p")
    assert store.blocks == {}


def test_a_dict_of_one_row_keeps_each_value_whole(tq: Any) -> None:
    row = {"t": torch.ones(3), "s": "text", "l": [1, 2], "d": {"k": None}, "n": 7}
    tq.kv_put(key="a", partition_id="p", fields=row, tag={"status": "done"})
    back = tq.kv_batch_get("a", "p")
    assert back["t"][0].tolist() == [1, 1, 1]
    assert list(back["s"]) == ["text"]
    assert list(back["l"]) == [[1, 2]]
    assert list(back["d"]) == [{"k": None}]
    assert list(back["n"]) == [7]


def test_repeated_keys_in_a_get_repeat_their_rows(tq: Any) -> None:
    tq.kv_batch_put(keys_of(2), "p", columns(2))
    assert tq.kv_batch_get(["k1", "k1", "k0"], "p")["x"].tolist() == [1, 1, 0]


def test_unknown_keys_are_left_out_of_a_get(tq: Any) -> None:
    tq.kv_batch_put(keys_of(2), "p", columns(2))
    assert tq.kv_batch_get(["k1", "?", "k0"], "p")["x"].tolist() == [1, 0]


def test_unknown_selected_fields_are_dropped(tq: Any) -> None:
    tq.kv_batch_put(keys_of(2), "p", columns(2, y=torch.ones(2)))
    back = tq.kv_batch_get(keys_of(2), "p", select_fields=["y", "values"])
    assert list(back.keys()) == ["y"]


def test_nothing_left_of_the_selection_is_an_empty_result(
    tq: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tq.kv_batch_put(keys_of(2), "p", columns(2))
    back = tq.kv_batch_get(keys_of(2), "p", select_fields="values")
    assert back.batch_size == torch.Size([0])
    assert "values" in caplog.text


@pytest.mark.parametrize("key", ["a/b c", "\N{PARTY POPPER}", "x" * 65536, "\n"])
def test_any_text_can_be_a_key(tq: Any, key: str) -> None:
    tq.kv_put(key, "p", {"v": 1})
    assert list(tq.kv_list("p")["p"]) == [key]
    assert list(tq.kv_batch_get(key, "p")["v"]) == [1]


def test_a_batch_may_have_200000_rows(tq: Any) -> None:
    keys = keys_of(200_000)
    tq.kv_batch_put(keys, "p", columns(200_000))
    back = tq.kv_batch_get(keys, "p")
    assert torch.equal(back["x"], torch.arange(200_000))


def test_a_put_larger_than_a_block_may_be_is_split_along_rows(
    tq: Any, queue: FakeQueue, store: FakeStore
) -> None:
    store.arena_bytes = 1  # The least: blocks of at most 1 MiB.
    big = torch.arange(4 * 500_000, dtype=torch.uint8).reshape(4, 500_000)
    ragged = torch.nested.as_nested_tensor(
        [torch.full((n + 1,), n) for n in range(4)], layout=torch.jagged
    )
    fields = columns(4, big=big, r=ragged, s=NonTensorStack("a", "b", "c", "d"))
    tq.get_client().storage_manager.connect()
    meta = tq.kv_batch_put(keys_of(4), "p", fields, tags=[{"n": n} for n in range(4)])
    assert len(store.blocks) > 1
    assert store.waits_ms == [100]  # Their room is asked for in one request.
    assert queue.requests == ["kv_put"]  # One step, however many blocks.
    assert meta.tags == [{"n": n} for n in range(4)]
    assert meta.fields == ["big", "r", "s", "x"]
    back = tq.kv_batch_get(keys_of(4), "p")
    assert back["x"].tolist() == [0, 1, 2, 3]
    assert torch.equal(torch.stack(list(back["big"].unbind())), big)
    assert [row.tolist() for row in back["r"].unbind()] == [
        [0],
        [1, 1],
        [2] * 3,
        [3] * 4,
    ]
    assert list(back["s"]) == ["a", "b", "c", "d"]


def test_parts_are_opened_in_batches_that_the_store_takes(
    tq: Any, store: FakeStore
) -> None:
    from transfer_queue.storage.managers import yuanrong_manager

    ids = [tq.get_client().storage_manager.put(_OneByte()) for _ in range(3)]
    found = tq.get_client().storage_manager.get(ids * 4000, [0] * 12_000)
    assert len(found) == 12_000
    assert max(store.gets) == yuanrong_manager._BATCH_MAX


class _OneByte:
    part_sizes = (1,)

    def write_into(self, parts: list[memoryview]) -> None:
        parts[0][0] = 1


# ---- List, clear, by meta ------------------------------------------------------------


def test_list_has_keys_in_order_of_their_first_put(tq: Any) -> None:
    tq.kv_put("b", "p", {"v": 1})
    tq.kv_put("a", "p", tag={"n": 1})
    tq.kv_put("b", "p", tag={"n": 2})
    assert list(tq.kv_list("p")["p"].items()) == [("b", {"n": 2}), ("a", {"n": 1})]
    assert tq.kv_list(partition_id="absent") == {}
    assert set(tq.kv_list()) == {"p"}


def test_clearing_what_is_not_there_is_no_error(tq: Any) -> None:
    assert tq.kv_clear(keys=["a"], partition_id="absent") is None
    tq.kv_put("a", "p", {"v": 1})
    tq.kv_clear("a", "p")
    tq.kv_clear(["a", "b"], "p")
    assert tq.kv_list() == {"p": {}}


def test_get_by_meta_reads_what_the_meta_names(tq: Any) -> None:
    meta = tq.kv_batch_put(keys_of(2), "p", columns(2, y=torch.ones(2)))
    assert set(tq.kv_batch_get_by_meta(meta).keys()) == {"x", "y"}
    assert set(tq.kv_batch_get_by_meta(meta, "y").keys()) == {"y"}
    with pytest.raises(ValueError, match=r"select_fields.*not found"):
        tq.kv_batch_get_by_meta(meta, ["z"])
    meta.fields = None
    with pytest.raises(ValueError, match=r"select_fields.*not found"):
        tq.kv_batch_get_by_meta(meta, ["y"])
    meta.partition_id = None
    with pytest.raises(ValueError, match="Must provide partition_id in the input"):
        tq.kv_batch_get_by_meta(meta)


def test_tags_of_any_type_come_back_as_they_were(tq: Any) -> None:
    tag = {
        "text": "\N{PARTY POPPER}",
        "n": -(1 << 63),
        "wide": 1 << 80,
        "pair": (1, "a"),
        "list": [1, None, {"deep": (2,)}],
        "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        "raw": b"\x00",
        "set": {1},
        "yes": True,
        "half": 0.5,
    }
    assert tq.kv_put("a", "p", tag=tag).tags == [tag]
    assert tq.kv_list("p")["p"]["a"] == tag


def test_a_tag_must_be_a_dict_with_text_keys(tq: Any) -> None:
    with pytest.raises(TypeError, match="a tag must be a dict"):
        tq.kv_batch_put(["a"], "p", tags=["oops"])
    with pytest.raises(TypeError, match="keys of a tag must be strings"):
        tq.kv_put("a", "p", tag={1: 2})
    assert tq.kv_list() == {}


# ---- Arguments: texts that users match on --------------------------------------------


def raises(error: type[Exception], text: str) -> Any:
    class Exactly:
        def __enter__(self) -> None: ...

        def __exit__(self, kind: Any, value: Any, trace: Any) -> bool:
            assert kind is error, f"{kind}: {value}"
            assert str(value) == text
            return True

    return Exactly()


def test_put_texts(tq: Any) -> None:
    with raises(
        ValueError, "Please provide at least one parameter of `fields` or `tag`."
    ):
        tq.kv_put("a", "p")
    with raises(ValueError, "Please provide at least one parameter of fields or tag."):
        tq.kv_batch_put(["a"], "p")
    with raises(
        ValueError, "Length of `keys` (1) does not match `fields` batch size (2)."
    ):
        tq.kv_batch_put(["a"], "p", columns(2))
    with raises(
        ValueError, "Length of `keys` (2) does not match length of `tags` (1)."
    ):
        tq.kv_batch_put(["a", "b"], "p", columns(2), tags=[{}])
    with raises(ValueError, "`fields` can only be dict or TensorDict"):
        tq.kv_put("a", "p", [1])
    nested = torch.nested.as_nested_tensor([torch.ones(1)], layout=torch.jagged)
    with raises(ValueError, "Please use (async)kv_batch_put for batch operation"):
        tq.kv_put("a", "p", {"n": nested})
    with pytest.raises(ValueError, match="add_fields batch size mismatch"):
        tq.kv_put("a", "p", columns(2))
    assert tq.kv_list() == {}


def test_async_put_texts(tq: Any) -> None:
    def run(call: Any) -> None:
        asyncio.run(call)

    with raises(ValueError, "Please provide at least one parameter of fields or tag."):
        run(tq.async_kv_put("a", "p"))
    with raises(
        ValueError, "Please provide at least one parameter of `fields` or `tags`."
    ):
        run(tq.async_kv_batch_put(["a"], "p"))
    with raises(
        ValueError,
        "`keys` with length 1 does not match the `fields` TensorDict with batch_size 2",
    ):
        run(tq.async_kv_batch_put(["a"], "p", columns(2)))
    with raises(ValueError, "keys with length 2 does not match length of tags 1"):
        run(tq.async_kv_batch_put(["a", "b"], "p", columns(2), tags=[{}]))


def test_key_texts(tq: Any) -> None:
    with raises(ValueError, "Received an empty list as keys."):
        tq.kv_batch_put([], "p", tags=[])
    with raises(TypeError, "Not all elements in `keys` are strings."):
        tq.kv_batch_get(["a", 1], "p")
    with raises(TypeError, "Only string or list of strings are allowed as `keys`."):
        tq.kv_batch_get({"a"}, "p")
    with raises(ValueError, "Got duplicated keys."):
        tq.kv_batch_put(["a", "a"], "p", columns(2))
    with raises(ValueError, "keys or partition were not found!"):
        tq.kv_batch_get(["a"], "p")
    tq.kv_put("a", "p", tag={"n": 1})
    with raises(ValueError, "Some fields are not ready in all the requested keys!"):
        tq.kv_batch_get(["a"], "p")


def test_data_parser_is_for_another_backend(tq: Any) -> None:
    with pytest.raises(NotImplementedError, match="SimpleStorage"):
        tq.kv_put("a", "p", {"v": 1}, data_parser=lambda data: data)


# ---- Failures ------------------------------------------------------------------------


def test_a_refused_put_leaves_neither_row_nor_block(tq: Any, store: FakeStore) -> None:
    with pytest.raises(ValueError, match="kv_put: a key is empty"):
        tq.kv_batch_put(["a", ""], "p", columns(2))
    assert store.blocks == {}
    assert tq.kv_list().get("p", {}) == {}


def test_a_full_store_leaves_neither_row_nor_block(
    tq: Any, queue: FakeQueue, store: FakeStore
) -> None:
    store.capacity = 100
    with pytest.raises(DatasystemError, match="no space in arena"):
        tq.kv_batch_put(keys_of(1000), "p", columns(1000))
    assert store.blocks == {}
    assert "kv_put" not in queue.requests


def test_of_a_split_put_that_does_not_fit_nothing_stays(
    tq: Any, queue: FakeQueue, store: FakeStore
) -> None:
    store.arena_bytes = 1
    tq.get_client().storage_manager.connect()
    store.capacity = 3 << 20
    big = torch.zeros(8, 1_000_000, dtype=torch.uint8)
    with pytest.raises(DatasystemError, match="no space in arena"):
        tq.kv_batch_put(keys_of(8), "p", columns(8, big=big))
    assert store.blocks == {}
    assert "kv_put" not in queue.requests


def test_of_a_split_put_that_the_queue_refuses_nothing_stays(
    tq: Any, store: FakeStore
) -> None:
    store.arena_bytes = 1
    tq.get_client().storage_manager.connect()
    big = torch.zeros(8, 1_000_000, dtype=torch.uint8)
    with pytest.raises(ValueError, match="Got duplicated keys"):
        tq.kv_batch_put(["k"] * 8, "p", columns(8, big=big))
    assert store.blocks == {}


def test_a_block_stays_when_nobody_knows_whether_the_put_took_effect(
    tq: Any, queue: FakeQueue
) -> None:
    def lose_the_answer(request: list[Any]) -> None:
        queue.before = lambda _: None
        queue.apply(request)
        raise DatasystemError(TIMEOUT, "no answer")

    queue.before = lose_the_answer
    with pytest.raises(RuntimeError, match="did not answer kv_put in time"):
        tq.kv_batch_put(["a"], "p", columns(1))
    assert tq.kv_batch_get(["a"], "p")["x"].tolist() == [0]


def test_a_controller_that_is_gone_is_named(tq: Any, queue: FakeQueue) -> None:
    def gone(_request: list[Any]) -> None:
        raise DatasystemError(IO, "connection refused")

    queue.before = gone
    with pytest.raises(
        RuntimeError, match=r"unix:/nowhere cannot be reached \(kv_list"
    ):
        tq.kv_list()
    queue.before = lambda _: None
    assert tq.kv_list() == {}
    assert queue.connections == 1  # It knows the queue's name, and finds it again.


def test_a_get_asks_again_when_a_block_vanished_in_between(
    tq: Any, queue: FakeQueue
) -> None:
    tq.kv_batch_put(["a"], "p", columns(1))
    old = dict(queue.partitions["p"]["a"].cells)
    fresh = TensorDict({"x": torch.tensor([5])}, batch_size=[1])
    tq.kv_batch_put(["a"], "p", fresh)
    new = dict(queue.partitions["p"]["a"].cells)
    answers = iter([old, old, new])
    queue.before = lambda _: queue.partitions["p"]["a"].cells.update(next(answers))
    assert tq.kv_batch_get(["a"], "p")["x"].tolist() == [5]
    assert queue.requests[-3:] == ["kv_get"] * 3


def test_data_that_is_lost_is_reported_and_not_waited_for(
    tq: Any, store: FakeStore
) -> None:
    tq.kv_batch_put(["a"], "p", columns(1))
    store.blocks.clear()
    with pytest.raises(RuntimeError, match="Data of partition 'p' is lost"):
        tq.kv_batch_get(["a"], "p")


def test_data_of_another_backend_is_not_read(tq: Any, queue: FakeQueue) -> None:
    tq.kv_batch_put(["a"], "p", columns(1))
    queue.backends = dict.fromkeys(queue.backends, "Elsewhere")
    with pytest.raises(
        ValueError, match=r"^Cannot retrieve stored data because the backend"
    ):
        tq.kv_batch_get(["a"], "p")


# ---- Loops, threads, forks -----------------------------------------------------------


def test_async_twins_work_from_loops_that_come_and_go(tq: Any) -> None:
    async def use() -> list[int]:
        await tq.async_kv_put(key="a", partition_id="p", tag={"n": 1})
        await tq.async_kv_batch_put(keys=["a"], partition_id="p", fields=columns(1))
        meta = await tq.async_kv_put("a", "p", tag={"m": 2})
        assert meta.tags == [{"n": 1, "m": 2}]
        assert (await tq.async_kv_list("p"))["p"]["a"] == {"n": 1, "m": 2}
        back = await tq.async_kv_batch_get_by_meta(meta)
        again = await tq.async_kv_batch_get(["a"], "p", "x")
        await tq.async_kv_clear(["a"], "p")
        return back["x"].tolist() + again["x"].tolist()

    for _ in range(3):
        assert asyncio.run(use()) == [0, 0]


def test_many_loops_in_many_threads_use_one_client(tq: Any) -> None:
    failures: list[BaseException] = []

    async def use(name: str) -> None:
        for turn in range(20):
            await tq.async_kv_put(name, "p", {"v": turn})
            back = await tq.async_kv_batch_get(name, "p")
            assert list(back["v"]) == [turn]

    def run(name: str) -> None:
        try:
            asyncio.run(use(name))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(f"t{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
