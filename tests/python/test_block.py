"""Columns go into blocks and come back: type, dtype, shape, bytes, ragged dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import (
    LazyStackedTensorDict,
    NonTensorData,
    NonTensorStack,
    TensorDict,
)
from tensordict.utils import LinkedList

from block_memory import (
    Blocks,
    SealedPart,
    Unmappable,
    column_of,
    jagged,
    large,
    random_bits,
    rows_of,
    same,
)
from transfer_queue import _block
from transfer_queue._block import (
    OWN_PART_BYTES_MIN,
    OWN_PARTS_FROM_BYTES,
    VIEW_BYTES_MIN,
    BlockReader,
    encode_fields,
)
from transfer_queue._dtypes import DTYPE_OF_NAME
from transfer_queue._errors import (
    PickleRefusedError,
    ValueNotStorableError,
)
from transfer_queue._gather import gather

# ---- Dense tensors -----------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DTYPE_OF_NAME))
def test_every_dtype_comes_back_bit_for_bit(name: str) -> None:
    rows = random_bits((4, 3), DTYPE_OF_NAME[name], 1)
    assert same(list(column_of(rows).values().view(4, 3).unbind()), list(rows.unbind()))


@pytest.mark.parametrize("name", sorted(DTYPE_OF_NAME))
def test_every_dtype_comes_back_from_single_rows_out_of_order(name: str) -> None:
    rows = random_bits((100, 2), DTYPE_OF_NAME[name], 2)
    blocks = Blocks()
    block = blocks.put(TensorDict({"x": rows}, [100]))
    runs = [number for row in range(99, -1, -1) for number in (0, row, 1)]
    back = blocks.get(["x"], [block], runs)["x"].values().view(100, 2)
    assert same(list(back.unbind()), list(rows.unbind())[::-1])


def test_rows_without_dimensions_come_back_dense() -> None:
    column = column_of(torch.arange(5))
    assert not column.is_nested
    assert same(column, torch.arange(5))


def test_rows_of_one_shape_come_back_jagged() -> None:
    rows = torch.arange(24).view(2, 3, 4)
    column = column_of(rows)
    assert column.is_nested and column.layout is torch.jagged
    assert column._ragged_idx == 1
    assert column.offsets().tolist() == [0, 3, 6]
    assert same(list(column.unbind()), list(rows.unbind()))


def test_equal_shapes_share_their_offsets() -> None:
    """So that columns can be combined, as in `data["logp"] * data["mask"]`."""
    blocks = Blocks()
    fields = TensorDict({"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, [2])
    back = blocks.get(["a", "b"], [blocks.put(fields)], [0, 0, 2])
    assert (back["a"] * back["b"]).values().tolist() == [1.0] * 6


@pytest.mark.parametrize("shape", [(2, 0), (2, 0, 3), (2, 3, 0)])
def test_rows_without_elements_keep_their_shape(shape: tuple[int, ...]) -> None:
    rows = torch.zeros(shape, dtype=torch.int16)
    assert same(rows_of(column_of(rows)), list(rows.unbind()))


@pytest.mark.parametrize(
    "view",
    [
        torch.arange(24).view(4, 6).t(),
        torch.arange(24).view(4, 6)[:, ::2],
        torch.arange(3).expand(4, 3),
        torch.complex(torch.ones(2, 2), torch.ones(2, 2)).conj(),
        torch.complex(torch.ones(2, 2), torch.ones(2, 2)).conj().imag,
        torch.ones(2, 2, requires_grad=True) * 2,
    ],
    ids=["transposed", "strided", "expanded", "conjugated", "negated", "with_history"],
)
def test_any_kind_of_view_is_stored_by_value(view: torch.Tensor) -> None:
    column = column_of(view)
    assert not column.requires_grad
    assert same(rows_of(column), list(view.detach().unbind()))


def test_a_tensor_without_data_is_refused() -> None:
    with pytest.raises(ValueError, match="meta"):
        column_of(torch.empty(2, 2, device="meta"))


# ---- Ragged tensors ----------------------------------------------------------------


def test_jagged_comes_back_jagged() -> None:
    rows = [torch.arange(3), torch.arange(0), torch.arange(5)]
    column = column_of(jagged(rows))
    assert column.layout is torch.jagged and column._ragged_idx == 1
    assert same(rows_of(column), rows)


def test_the_ragged_dimension_that_was_put_comes_back() -> None:
    """Also with equal lengths, where torch would choose 1 (verl #7899)."""
    for lengths in ((4, 7), (5, 5)):
        rows = [torch.randn(3, length) for length in lengths]
        column = column_of(jagged(rows, ragged_dim=2))
        assert column._ragged_idx == 2
        assert column.values().shape == (3, sum(lengths))
        assert column.values().is_contiguous()
        assert same(rows_of(column), rows)


def test_the_ragged_dimension_survives_selecting_equal_rows() -> None:
    rows = [torch.randn(3, length) for length in (4, 7, 4)]
    blocks = Blocks()
    block = blocks.put(TensorDict({"x": NonTensorStack(*rows)}, [3]))
    column = blocks.get(["x"], [block], [0, 2, 1, 0, 0, 1])["x"]
    assert column._ragged_idx == 2
    assert same(rows_of(column), [rows[2], rows[0]])


@pytest.mark.parametrize("ragged_dim", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128, torch.bfloat16])
def test_single_rows_of_any_ragged_dimension(
    ragged_dim: int, dtype: torch.dtype
) -> None:
    def shape(length: int) -> tuple[int, ...]:
        return (*(2, 3)[: ragged_dim - 1], length, *(2, 3)[ragged_dim - 1 :])

    rows = [random_bits(shape(1 + n % 4), dtype, n) for n in range(100)]
    blocks = Blocks()
    block = blocks.put(TensorDict({"x": jagged(rows, ragged_dim)}, [100]))
    runs = [number for row in range(99, -1, -1) for number in (0, row, 1)]
    column = blocks.get(["x"], [block], runs)["x"]
    assert column._ragged_idx == ragged_dim
    assert same(rows_of(column), rows[::-1])


@pytest.mark.parametrize("lengths", [(1, 3, 2), (3, 3), (0, 0), (0, 4)])
@pytest.mark.parametrize("ragged_dim", [1, 2])
@pytest.mark.parametrize("whole", [True, False])
def test_what_comes_back_can_be_padded(
    lengths: tuple[int, ...], ragged_dim: int, whole: bool
) -> None:
    """torch pads to the sum of all lengths unless it is told the longest."""
    rows = [torch.ones((n, 2) if ragged_dim == 1 else (2, n)) for n in lengths]
    batch = jagged(rows, ragged_dim) if whole else NonTensorStack("a", *rows)
    blocks = Blocks()
    block = blocks.put(TensorDict({"x": batch}, batch_size=[len(batch)]))
    column = blocks.get(["x"], [block], [0, 0 if whole else 1, len(rows)])["x"]
    padded = column.to_padded_tensor(0)
    assert max(padded.shape[1:]) == max(2, *lengths)
    assert padded.sum().item() == 2 * sum(lengths)


def test_uniform_rows_can_be_padded() -> None:
    assert same(column_of(torch.ones(4, 3)).to_padded_tensor(0), torch.ones(4, 3))


def test_jagged_with_holes_is_stored_by_its_rows() -> None:
    source = torch.arange(20).view(2, 10)
    starts, lengths = torch.tensor([1, 2]), torch.tensor([3, 4])
    holes = torch.nested.narrow(source, 1, starts, lengths, layout=torch.jagged)
    assert same(rows_of(column_of(holes)), [source[0, 1:4], source[1, 2:6]])


def test_a_part_of_a_jagged_buffer_is_stored_without_the_rest() -> None:
    values, offsets = torch.arange(10), torch.tensor([2, 4, 7])
    column = column_of(torch.nested.nested_tensor_from_jagged(values, offsets))
    assert same(rows_of(column), [torch.arange(2, 4), torch.arange(4, 7)])
    assert column.offsets().tolist() == [0, 2, 5]


def test_tensors_with_one_varying_dimension_come_back_jagged() -> None:
    rows = [torch.ones(2, 3), torch.ones(2, 5)]
    for column in (column_of(torch.nested.nested_tensor(rows)), column_of(rows)):
        assert column.layout is torch.jagged and column._ragged_idx == 2
        assert same(rows_of(column), rows)


def test_tensors_with_two_varying_dimensions_come_back_strided_nested() -> None:
    rows = [torch.ones(2, 3), torch.zeros(4, 5), torch.ones(0, 1)]
    column = column_of(torch.nested.nested_tensor(rows))
    assert column.is_nested and column.layout is torch.strided
    assert same(rows_of(column), rows)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float8_e5m2])
def test_what_cannot_be_nested_comes_back_as_a_list(dtype: torch.dtype) -> None:
    rows = [random_bits((2, 3), dtype, 1), random_bits((4, 5), dtype, 2)]
    column = column_of(NonTensorStack(*rows))
    assert isinstance(column, LinkedList)
    assert same(list(column), rows)


def test_tensors_of_different_dimension_counts_come_back_as_a_list() -> None:
    rows = [torch.ones(2), torch.ones(2, 3), torch.tensor(1.0)]
    column = column_of(NonTensorStack(*rows))
    assert isinstance(column, LinkedList)
    assert same(list(column), rows)


def test_a_sparse_column_comes_back_as_a_list() -> None:
    column = column_of(torch.eye(2).to_sparse())
    assert [row.to_dense().tolist() for row in column] == [[1, 0], [0, 1]]


# ---- Rows of several puts ----------------------------------------------------------


def test_dense_rows_of_two_lengths_come_back_jagged() -> None:
    column = column_of(torch.zeros(2, 3), torch.ones(1, 5))
    assert column._ragged_idx == 1
    assert same(rows_of(column), [torch.zeros(3), torch.zeros(3), torch.ones(5)])


def test_dense_rows_that_differ_in_their_second_dimension() -> None:
    first, second = torch.randn(2, 3, 4), torch.randn(2, 3, 6)
    column = column_of(first, second)
    assert column._ragged_idx == 2
    assert same(rows_of(column), [*first.unbind(), *second.unbind()])


def test_dense_rows_take_the_ragged_dimension_of_the_others() -> None:
    ragged = [torch.randn(3, length) for length in (4, 7)]
    dense = torch.randn(2, 3, 5)
    column = column_of(jagged(ragged, 2), dense)
    assert column._ragged_idx == 2
    assert same(rows_of(column), [*ragged, *dense.unbind()])


def test_rows_that_differ_in_two_dimensions_over_two_puts() -> None:
    column = column_of(torch.ones(2, 3, 4), torch.ones(1, 5, 6))
    assert column.layout is torch.strided
    assert [tuple(row.shape) for row in column.unbind()] == [(3, 4), (3, 4), (5, 6)]


def test_ragged_rows_with_different_ragged_dimensions() -> None:
    first = [torch.randn(n, 3) for n in (1, 2)]
    second = [torch.randn(3, n) for n in (3, 4)]
    column = column_of(jagged(first, 1), jagged(second, 2))
    assert column.layout is torch.strided
    assert same(rows_of(column), [*first, *second])


def test_different_dtypes_are_not_converted() -> None:
    column = column_of(torch.tensor([1, 2]), torch.tensor([1.5]))
    assert same(list(column), [torch.tensor(1), torch.tensor(2), torch.tensor(1.5)])


def test_tensors_and_other_values_in_one_field_come_back_as_a_list() -> None:
    column = column_of(
        torch.ones(1, 2), NonTensorStack("a"), jagged([torch.ones(1), torch.ones(2)])
    )
    expected = [torch.ones(2), "a", torch.ones(1), torch.ones(2)]
    assert same(list(column), expected)


def test_tensors_among_other_values_come_back_as_tensors_when_read_alone() -> None:
    blocks = Blocks()
    rows = NonTensorStack("a", torch.ones(2), torch.ones(3))
    block = blocks.put(TensorDict({"x": rows}, [3]))
    column = blocks.get(["x"], [block], [0, 1, 2])["x"]
    assert same(rows_of(column), [torch.ones(2), torch.ones(3)])


# ---- Other values ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (NonTensorStack("a", {"b": 1}, None), ["a", {"b": 1}, None]),
        (NonTensorStack([1, 2], (3,), 2**70), [[1, 2], (3,), 2**70]),
        (NonTensorStack(1.5, True, b"x"), [1.5, True, b"x"]),
        (np.array([b"a", b"bc"]), [np.bytes_(b"a"), np.bytes_(b"bc")]),
        (np.array(["a", "bc"]), [np.str_("a"), np.str_("bc")]),
        (np.array(["2026"] * 2, "M8[Y]"), [np.datetime64("2026", "Y")] * 2),
        (np.array(["a", {"b": 1}], dtype=object), ["a", {"b": 1}]),
        (NonTensorStack(np.ones(2), np.ones((1, 3))), [np.ones(2), np.ones((1, 3))]),
        (
            NonTensorStack(NonTensorStack("a", 1), NonTensorStack("b")),
            [["a", 1], ["b"]],
        ),
        (["a", "b"], ["a", "b"]),
        ([torch.Size([1]), torch.Size([])], [torch.Size([1]), torch.Size([])]),
    ],
)
def test_rows_of_any_type_come_back_in_a_list(batch: Any, expected: list[Any]) -> None:
    column = column_of(batch)
    assert isinstance(column, LinkedList)
    assert same(column.tolist(), expected) and same(list(column), expected)


def test_numbers_become_tensors_as_tensordict_makes_them() -> None:
    assert same(column_of([1, 2]), torch.tensor([1, 2]))
    assert same(column_of(np.ones(2, np.uint16)), torch.ones(2, dtype=torch.uint16))


def test_one_value_for_all_rows_is_a_value_of_each() -> None:
    fields = TensorDict({"x": "abc", "y": NonTensorData({"a": 1})}, batch_size=[2])
    blocks = Blocks()
    back = blocks.get(["x", "y"], [blocks.put(fields)], [0, 0, 2])
    assert back["x"].tolist() == ["abc"] * 2 and back["y"].tolist() == [{"a": 1}] * 2


def test_a_list_held_as_one_value_has_one_item_per_row() -> None:
    held = NonTensorData(["a", "b"], batch_size=[2])
    blocks = Blocks()
    block = blocks.put(TensorDict({"x": held}, batch_size=[2]))
    assert blocks.get(["x"], [block], [0, 1, 1])["x"].tolist() == ["b"]


def test_a_list_of_the_wrong_length_is_refused() -> None:
    held = NonTensorData(["a", "b", "c"], batch_size=[2])
    with pytest.raises(ValueError, match="Inconsistent batch dimension for field 'x'"):
        encode_fields(TensorDict({"x": held}, batch_size=[2]), 2)


def test_tensordicts_within_a_tensordict_come_back_as_such() -> None:
    inner = TensorDict({"a": torch.arange(4).view(2, 2), "b": ["p", "q"]}, [2])
    column = column_of(inner)
    assert isinstance(column, LazyStackedTensorDict)
    assert column["a"].tolist() == [[0, 1], [2, 3]]
    assert column["b"].tolist() == ["p", "q"]


def test_a_lazy_stack_of_rows_of_different_shapes_is_stored() -> None:
    rows = [TensorDict({"x": torch.ones(n), "s": f"{n}"}) for n in (2, 3)]
    blocks = Blocks()
    block = blocks.put(LazyStackedTensorDict.lazy_stack(rows))
    back = blocks.get(["x", "s"], [block], [0, 0, 2])
    assert same(rows_of(back["x"]), [torch.ones(2), torch.ones(3)])
    assert back["s"].tolist() == ["2", "3"]


def test_a_refused_value_is_named_with_its_field_and_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TQ_ALLOW_PICKLE", "0")
    with pytest.raises(PickleRefusedError, match=r"field 'x', row 1: .*ellipsis"):
        column_of(NonTensorStack("a", ...))


def test_a_value_that_cannot_be_stored_is_named_with_its_field() -> None:
    with pytest.raises(ValueNotStorableError, match="field 'x', row 0"):
        column_of(NonTensorStack(lambda: 1))


def test_results_are_whole_tensordicts() -> None:
    """Slices, rows and selections of what is returned work as users write them."""
    blocks = Blocks()
    fields = TensorDict({"a": torch.ones(3, 2), "s": ["x", "y", "z"]}, batch_size=[3])
    back = blocks.get(["a", "s"], [blocks.put(fields)], [0, 0, 3])
    assert back.batch_size == torch.Size([3])
    assert back[1]["s"] == "y" and same(back[1]["a"], torch.ones(2))
    assert back.select("s")["s"].tolist() == ["x", "y", "z"]


# ---- Where bytes stand, and whose they are -----------------------------------------


def test_large_columns_are_parts_of_their_own() -> None:
    fields = TensorDict({"small": torch.ones(4), "large": large(4)}, batch_size=[4])
    block = encode_fields(fields, 4)
    assert block.part_sizes[1:] == [VIEW_BYTES_MIN]
    assert block.field_names == ["small", "large"]
    assert block.field_bytes == [16, VIEW_BYTES_MIN]


@pytest.mark.parametrize(
    ("columns", "own_parts"),
    [
        ([OWN_PART_BYTES_MIN] * 15, 0),  # Together less than what is divided.
        ([OWN_PART_BYTES_MIN] * 16, 16),
        ([OWN_PART_BYTES_MIN - 4] * 17, 0),  # Each too small.
        ([OWN_PARTS_FROM_BYTES - OWN_PART_BYTES_MIN, OWN_PART_BYTES_MIN, 4], 2),
    ],
)
def test_columns_of_a_large_block_are_parts_of_their_own(
    columns: list[int], own_parts: int
) -> None:
    blocks = Blocks()
    fields = {f"f{i}": torch.arange(n // 4) for i, n in enumerate(columns)}
    rows = {name: column.int().view(1, -1) for name, column in fields.items()}
    block = blocks.put(TensorDict(rows, batch_size=[1]))
    assert len(blocks.parts[block]) == 1 + own_parts
    back = blocks.get(list(rows), [block], [0, 0, 1])
    for name, column in rows.items():
        assert same(rows_of(back[name]), list(column.unbind()))
    assert all(part.views == 0 for part in blocks.parts[block])


def test_parts_needed_are_those_of_the_fields() -> None:
    blocks = Blocks()
    fields = TensorDict({"a": large(4), "b": torch.ones(4), "c": large(4)}, [4])
    reader = BlockReader.open(blocks.parts[blocks.put(fields)][0])
    assert reader.rows == 4 and reader.field_names == ["a", "b", "c"]
    assert reader.parts_needed(["a", "b"]) == [0, 1]
    assert reader.parts_needed(["c"]) == [0, 2]
    assert reader.parts_needed([]) == [0]


@pytest.mark.parametrize("ragged", [False, True])
def test_a_whole_large_column_is_a_private_view(ragged: bool) -> None:
    blocks = Blocks()
    rows = large(4)
    column = jagged(list(rows.unbind())) if ragged else rows
    block = blocks.put(TensorDict({"x": column}, batch_size=[4]))
    back = blocks.get(["x"], [block], [0, 0, 4])["x"]
    assert blocks.parts[block][1].views == 1
    assert same(rows_of(back), list(rows.unbind()))


def test_a_large_dense_vector_is_a_private_view() -> None:
    blocks = Blocks()
    block = blocks.put(TensorDict({"x": large(1)[0]}, [VIEW_BYTES_MIN // 4]))
    back = blocks.get(["x"], [block], [0, 0, VIEW_BYTES_MIN // 4])["x"]
    assert blocks.parts[block][1].views == 1 and same(back, large(1)[0])


@pytest.mark.parametrize("runs", [[0, 0, 3], [0, 2, 2, 0, 0, 2], [0, 0, 4, 0, 0, 4]])
def test_less_or_more_than_a_large_column_is_copied(runs: list[int]) -> None:
    blocks = Blocks()
    block = blocks.put(TensorDict({"x": large(4)}, batch_size=[4]))
    back = blocks.get(["x"], [block], runs)["x"]
    triples = zip(runs[::3], runs[1::3], runs[2::3], strict=True)
    expected = [
        large(4)[first + n] for _, first, count in triples for n in range(count)
    ]
    assert blocks.parts[block][1].views == 0
    assert same(rows_of(back), expected)


def test_where_there_is_no_private_view_the_column_is_copied() -> None:
    blocks = Blocks(Unmappable)
    block = blocks.put(TensorDict({"x": large(4)}, batch_size=[4]))
    back = blocks.get(["x"], [block], [0, 0, 4])["x"]
    assert same(rows_of(back), list(large(4).unbind()))


@pytest.mark.parametrize("part_type", [SealedPart, Unmappable])
def test_what_is_returned_can_be_changed_and_nobody_sees_it(
    part_type: Callable[[bytearray], SealedPart],
) -> None:
    """The stored parts are read-only bytes: writing through would fail or show."""
    blocks = Blocks(part_type)
    fields = TensorDict(
        {
            "vector": torch.arange(4),
            "small": torch.ones(4, 3),
            "large": large(4),
            "turned": jagged([torch.ones(2, n) for n in (1, 2, 3, 4)], 2),
            "object": NonTensorStack(*[{"t": torch.ones(2)} for _ in range(4)]),
        },
        batch_size=[4],
    )
    block = blocks.put(fields)
    names = [str(name) for name in fields.keys()]
    once = blocks.get(names, [block], [0, 0, 4])
    once["vector"].zero_()
    for name in ("small", "large", "turned"):
        once[name].values().zero_()
    once["object"][0]["t"].zero_()
    again = blocks.get(names, [block], [0, 0, 4])
    for name in names:
        assert same(rows_of(again[name]), rows_of(fields[name]))


def test_parts_are_asked_for_in_two_calls() -> None:
    blocks = Blocks()
    ids = [blocks.put(TensorDict({"x": large(4)}, [4])) for _ in range(3)]
    blocks.get(["x"], ids, [0, 0, 4, 1, 0, 4, 2, 0, 4])
    assert blocks.opens == [3, 3]


def test_fields_of_different_groups_are_put_together() -> None:
    blocks = Blocks()
    first = blocks.put(TensorDict({"a": torch.arange(4)}, [4]))
    second = blocks.put(TensorDict({"b": ["p", "q"]}, [2]))
    groups = [[[1], [[first, "y"]], [0, 1, 2]], [[0], [[second, "y"]], [0, 0, 2]]]
    back = gather(["b", "a"], groups, blocks.open_parts)
    assert list(back.keys()) == ["b", "a"]
    assert back["a"].tolist() == [1, 2] and back["b"].tolist() == ["p", "q"]


def test_nothing_asked_for_is_an_empty_tensordict() -> None:
    back = gather([], [], Blocks().open_parts)
    assert list(back.keys()) == [] and back.batch_size == torch.Size([0])


def test_what_open_parts_raises_passes_through() -> None:
    def gone(ids: object, parts: object) -> Any:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        gather(["x"], [[[0], [[b"i" * 16, "y"]], [0, 0, 1]]], gone)


def test_a_block_has_at_most_so_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_block, "PARTS_MAX", 2)
    blocks = Blocks()
    block = blocks.put(TensorDict({"a": large(4), "b": large(4)}, [4]))
    assert len(blocks.parts[block]) == 2
    back = blocks.get(["a", "b"], [block], [0, 0, 4])
    assert same(rows_of(back["b"]), list(large(4).unbind()))


def test_200000_rows_are_no_matter() -> None:
    count = 200_000
    blocks = Blocks()
    block = blocks.put(TensorDict({"x": torch.arange(count)}, [count]))
    order = np.random.default_rng(3).permutation(count)
    runs = np.stack([np.zeros_like(order), order, np.ones_like(order)], 1)
    back = blocks.get(["x"], [block], runs.reshape(-1).tolist())["x"]
    assert np.array_equal(back.numpy(), order)
