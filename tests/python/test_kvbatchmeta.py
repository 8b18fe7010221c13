"""What describes rows keeps keys, tags and order together."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from transfer_queue.metadata import KVBatchMeta


def meta(*keys: str, **others: Any) -> KVBatchMeta:
    return KVBatchMeta(list(keys), [{"of": key} for key in keys], **others)


def test_it_is_empty_by_default_and_each_has_its_own_dict() -> None:
    one, other = KVBatchMeta(), KVBatchMeta()
    assert (one.keys, one.tags, one.partition_id, one.fields) == ([], [], None, None)
    assert one.size == len(one) == 0 and one.extra_info == {}
    assert one.extra_info is not other.extra_info


def test_tags_and_extra_info_are_copies() -> None:
    tag, info = {"a": [1]}, {"b": [2]}
    batch = KVBatchMeta(["k"], [tag], extra_info=info)
    tag["a"].append(9)
    info["b"].append(9)
    assert batch.tags == [{"a": [1]}] and batch.extra_info == {"b": [2]}


def test_bad_lengths_and_duplicates_are_refused() -> None:
    with pytest.raises(ValueError, match="keys and tags must have same length"):
        KVBatchMeta(["a"], [])
    with pytest.raises(ValueError, match=r"Got duplicated keys\."):
        meta("a", "a")
    with pytest.raises(ValueError, match=r"Got duplicated fields\."):
        meta("a", fields=["f", "f"])


def test_one_field_may_be_given_as_a_str() -> None:
    assert str(meta("a", fields="rewards").fields) == "rewards"


def test_select_keys_returns_a_new_object_in_the_order_asked_for() -> None:
    batch = meta("a", "b", "c", partition_id="p", fields=["f"])
    some = batch.select_keys(["c", "a"])
    assert some.keys == ["c", "a"] and some.tags == [{"of": "c"}, {"of": "a"}]
    assert (some.partition_id, some.fields, some.size) == ("p", ["f"], 2)
    some.tags[0]["of"] = "changed"
    assert batch.tags[2] == {"of": "c"}


def test_select_keys_refuses_duplicates_and_strangers() -> None:
    with pytest.raises(ValueError, match=r"Contain duplicate keys\."):
        meta("a").select_keys(["a", "a"])
    with pytest.raises(RuntimeError, match=r"Keys \{'x'\} not found in current batch"):
        meta("a").select_keys(["x"])


def test_reorder_moves_tags_with_their_keys() -> None:
    batch = meta("a", "b", "c")
    batch.reorder([2, 0, 1])
    assert batch.keys == ["c", "a", "b"]
    assert [tag["of"] for tag in batch.tags] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("indexes", "text"),
    [
        ([0], "does not match the batch size"),
        ([0, 0], "Contain duplicate indexes"),
        ([0, 2], "in range"),
        ([0, -1], "in range"),
    ],
)
def test_reorder_refuses_what_is_no_permutation(indexes: list[int], text: str) -> None:
    batch = meta("a", "b")
    with pytest.raises(ValueError, match=text):
        batch.reorder(indexes)
    assert batch.keys == ["a", "b"]


def test_chunk_gives_the_first_pieces_one_row_more() -> None:
    pieces = meta("a", "b", "c", "d", "e", partition_id="p").chunk(3)
    assert [piece.keys for piece in pieces] == [["a", "b"], ["c", "d"], ["e"]]
    assert all(piece.partition_id == "p" for piece in pieces)
    assert [piece.size for piece in meta("a").chunk(2)] == [1, 0]


def test_chunk_needs_a_positive_number() -> None:
    with pytest.raises(ValueError, match="0 chunks"):
        meta("a").chunk(0)


def test_concat_undoes_chunk() -> None:
    batch = meta("a", "b", "c", partition_id="p", fields=["f"], extra_info={"n": 1})
    again = KVBatchMeta.concat([*batch.chunk(2), KVBatchMeta()])
    assert again == batch


def test_concat_of_nothing_is_empty() -> None:
    assert KVBatchMeta.concat([]) == KVBatchMeta()
    assert KVBatchMeta.concat([KVBatchMeta(partition_id="p")]) == KVBatchMeta()


def test_concat_without_extra_info_has_none() -> None:
    assert KVBatchMeta.concat([meta("a"), meta("b")]).extra_info is None


def test_concat_checks_fields_as_sets_and_the_partition() -> None:
    first, second = meta("a", fields=["f", "g"]), meta("b", fields=["g", "f"])
    assert KVBatchMeta.concat([first, second]).fields == ["f", "g"]
    assert KVBatchMeta.concat([meta("c"), first]).fields == ["f", "g"]
    with pytest.raises(ValueError, match="Field names do not match"):
        KVBatchMeta.concat([first, meta("b", fields=["f"])])
    with pytest.raises(ValueError, match="Partition do not match"):
        KVBatchMeta.concat([meta("a", partition_id="p"), meta("b", partition_id="q")])


@pytest.mark.parametrize(
    "value", [1, "a", [1], np.arange(2), torch.arange(2), float("nan"), None]
)
def test_concat_merges_equal_extra_info(value: Any) -> None:
    info = {"same": value}
    both = KVBatchMeta.concat([meta("a", extra_info=info), meta("b", extra_info=info)])
    assert both.extra_info is not None and set(both.extra_info) == {"same"}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 2),
        (1, True),
        (np.arange(2), np.arange(3)),
        (np.arange(2), np.arange(2.0)),
        (torch.arange(2), torch.arange(2) + 1),
        (torch.ones(1), torch.ones(1, dtype=torch.float64)),
        ([np.arange(2)], [np.arange(2)]),
    ],
)
def test_concat_refuses_conflicting_extra_info(left: Any, right: Any) -> None:
    first = meta("a", extra_info={"x": left})
    second = meta("b", extra_info={"x": right})
    with pytest.raises(ValueError, match="conflicting"):
        KVBatchMeta.concat([first, second])


def test_it_pickles_and_prints() -> None:
    batch = meta("a", partition_id="p", fields=["f"], extra_info={"t": 1.5})
    assert pickle.loads(pickle.dumps(batch)) == batch
    assert "size=1" in str(batch) and "'p'" in str(batch) and "'a'" in str(batch)
