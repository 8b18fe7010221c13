"""A value comes back as what it was: type, content, bits."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import threading
import zoneinfo
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tensordict import NonTensorData, NonTensorStack, TensorDict
from tensordict.utils import LinkedList

from block_memory import same
from transfer_queue import _values
from transfer_queue._errors import (
    BlockCorruptError,
    PickleRefusedError,
    ValueNotStorableError,
    ValueUnreadableError,
)
from transfer_queue._values import Mark, decode_value, encode_value


def stored(value: object) -> tuple[int, bytes]:
    """The mark and the payload."""
    encoded = encode_value(value)
    return encoded.mark, b"".join(encoded.chunks)


def round_trip(value: object) -> Any:
    mark, payload = stored(value)
    return decode_value(mark, memoryview(payload))


class Point:
    """Something that only pickle carries."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    def __hash__(self) -> int:
        return hash(self.x)

    def __repr__(self) -> str:
        return f"Point({self.x})"


TASHKENT = zoneinfo.ZoneInfo("Asia/Tashkent")
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=30), "east")

EXACT = {
    "none": None,
    "true": True,
    "one": 1,
    "zero_float": -0.0,
    "nan": float("nan"),
    "smallest_msgpack_int": -(2**63),
    "largest_msgpack_int": 2**64 - 1,
    "wide_int": 2**64,
    "wide_negative_int": -(2**63) - 1,
    "very_wide_int": -(3**500),
    "empty_str": "",
    "str": "Grüße \U0001f600",
    "lone_surrogate": "\ud800",
    "bytes": b"\x00\xff",
    "long_bytes": b"ab" * 5000,
    "bytes_in_list": [b"ab" * 5000, b"", b"x"],
    "bytearray": bytearray(b"ab"),
    "long_bytearray": bytearray(9000),
    "complex": complex(1.5, float("-inf")),
    "tuple": (1, (2, [3, (4,)])),
    "empty_containers": [[], (), {}, set(), frozenset()],
    "set": {1, "a", (2, 3), None},
    "frozenset": frozenset({b"x", 2**70}),
    "dict_of_str": {"a": [1, 2.5, None], "b": {"c": (True,)}},
    "dict_of_anything": {1: "a", (2, "b"): {b"c": 3}, None: 2**65, 1.5: False},
    "datetime": datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
    "datetime_utc": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
    "datetime_zone": datetime.datetime(2026, 1, 2, 3, tzinfo=TASHKENT, fold=1),
    "datetime_named_offset": datetime.datetime(1, 1, 2, tzinfo=EAST),
    "date": datetime.date(9999, 12, 31),
    "time": datetime.time(23, 59, 59, 999999, tzinfo=EAST, fold=1),
    "timedelta": datetime.timedelta(days=-3, microseconds=7),
    "numpy_float16": np.float16(1.5),
    "numpy_bool": np.bool_(True),
    "numpy_datetime64": np.datetime64("2026-01-02T03:04", "m"),
    "numpy_str": np.str_("a\0"),
    "numpy_bytes": np.bytes_(b"a\0"),
    "array": np.arange(6, dtype=">i2").reshape(2, 3),
    "array_without_dims": np.array(1.5),
    "array_of_nothing": np.zeros((3, 0), np.float32),
    "array_of_dates": np.array(["2026-01-02", "NaT"], "M8[D]"),
    "array_of_text": np.array(["a", "bcd"]),
    "array_of_bytes": np.array([b"a\0b", b""]),
    "array_of_objects": np.array([{"a": 1}, (2,), [3], None], dtype=object),
    "array_of_records": np.zeros(2, [("a", "i4"), ("b", "f8")]),
    "strided_array": np.arange(12).reshape(3, 4)[:, ::2],
    "tensor": torch.arange(6).view(2, 3),
    "tensor_without_dims": torch.tensor(1.5, dtype=torch.bfloat16),
    "tensor_of_nothing": torch.zeros(2, 0, 3),
    "strided_tensor": torch.arange(12).view(3, 4).t(),
    "size": torch.Size([2, 3]),
    "dtype": torch.float8_e4m3fn,
    "device": torch.device("cpu"),
    "tensordict": TensorDict({"a": torch.ones(2, 3), "b": {"c": torch.ones(2)}}, [2]),
    "tensors_in_dict": {"image": torch.ones(3, 4, dtype=torch.uint8), "text": "a"},
    "decimal": decimal.Decimal("1.10"),
    "ellipsis": ...,
    "class": dict,
    "object": Point(3),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_value_comes_back_exactly(name: str) -> None:
    assert same(round_trip(EXACT[name]), EXACT[name])


# Everything in EXACT but these is carried without pickle.
NEED_PICKLE = ("array_of_records", "decimal", "ellipsis", "class", "object")


@pytest.mark.parametrize("name", [name for name in EXACT if name not in NEED_PICKLE])
def test_known_types_do_not_need_pickle(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_ALLOW_PICKLE", "0")
    assert same(round_trip(EXACT[name]), EXACT[name])


@pytest.mark.parametrize("name", NEED_PICKLE)
def test_pickle_can_be_refused_on_the_way_in(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_ALLOW_PICKLE", "0")
    with pytest.raises(PickleRefusedError, match="TQ_ALLOW_PICKLE=0"):
        encode_value(EXACT[name])


def test_refusal_names_the_type_that_is_hidden_in_a_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TQ_ALLOW_PICKLE", "0")
    with pytest.raises(PickleRefusedError, match=r"type dict \(.*Point\)"):
        encode_value({"a": [Point(1)]})


def test_pickle_can_be_refused_on_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    mark, payload = stored(Point(1))
    assert mark == Mark.PICKLE
    monkeypatch.setenv("TQ_ALLOW_PICKLE", "0")
    with pytest.raises(PickleRefusedError, match="TQ_ALLOW_PICKLE=0"):
        decode_value(mark, memoryview(payload))


def test_a_value_that_nothing_carries_is_named() -> None:
    with pytest.raises(ValueNotStorableError, match="lock"):
        encode_value([threading.Lock()])


def test_a_class_that_is_gone_is_not_called_damage() -> None:
    mark, payload = stored(Point(1))
    payload = payload.replace(b"Point", b"Tnoip")
    with pytest.raises(ValueUnreadableError, match="Tnoip"):
        decode_value(mark, memoryview(payload))


def test_a_list_that_holds_itself_comes_back() -> None:
    value: list[Any] = [1]
    value.append(value)
    back = round_trip(value)
    assert back[0] == 1 and back[1] is back


def test_a_very_deep_list_is_stored_or_refused_cleanly() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueNotStorableError):
        encode_value(value)


def test_the_face_of_a_stack_is_stored_as_a_list() -> None:
    assert same(round_trip({"a": LinkedList([1, "b"])}), {"a": [1, "b"]})


def test_tensordict_wrappers_within_a_value_survive() -> None:
    back = round_trip([NonTensorData("a"), NonTensorStack("b", 1)])
    assert back[0].data == "a" and back[1].tolist() == ["b", 1]


def test_nested_tensors_within_a_value_survive() -> None:
    rows = [torch.ones(2), torch.ones(3)]
    back = round_trip([torch.nested.nested_tensor(rows, layout=torch.jagged)])
    assert same(list(back[0].unbind()), rows)


def test_a_parameter_comes_back_as_its_data() -> None:
    back = round_trip({"a": torch.nn.Parameter(torch.ones(2))})
    assert same(back, {"a": torch.ones(2)})


def test_a_decoded_value_shares_no_memory_with_the_store() -> None:
    mark, payload = stored({"a": np.zeros(3), "t": torch.zeros(3)})
    memory = bytearray(payload)
    back = decode_value(mark, memoryview(memory))
    back["a"] += 1
    back["t"] += 1
    assert bytes(memory) == payload


def test_attachments_are_not_copied_by_encoding() -> None:
    array = np.zeros(1000)
    chunk = encode_value([array]).chunks[1]
    array[:] = 1
    assert bytes(chunk) == array.tobytes()


def test_a_run_of_values_is_read_in_one_go() -> None:
    values = [{"a": 1}, (2,), None, 2**70]
    payload = b"".join(stored(value)[1] for value in values)
    assert same(_values.decode_msgpack_run(payload, 4), values)


def test_a_damaged_run_of_values_is_refused() -> None:
    with pytest.raises(BlockCorruptError):
        _values.decode_msgpack_run(b"\x01\x02", 3)


# ---- At random ---------------------------------------------------------------------

numbers = st.one_of(
    st.integers(), st.integers(-(2**70), 2**70), st.floats(), st.complex_numbers()
)
moments = st.one_of(
    st.datetimes(timezones=st.none() | st.timezones()),
    st.dates(),
    st.times(),
    st.timedeltas(),
)
hashables = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(), st.binary(), moments),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.frozensets(inner, max_size=4)
    ),
    max_leaves=6,
)
arrays = npst.arrays(
    dtype=st.one_of(
        npst.scalar_dtypes(), npst.byte_string_dtypes(), npst.unicode_string_dtypes()
    ),
    shape=npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
values = st.recursive(
    hashables | arrays | arrays.map(lambda array: array.reshape(-1)[:1].tolist()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashables, inner, max_size=4),
        st.sets(hashables, max_size=4),
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_any_value_comes_back_exactly(value: Any) -> None:
    assert same(round_trip(value), value)


@settings(max_examples=150, deadline=None)
@given(values, st.data())
def test_damaged_bytes_are_refused_or_are_a_value(value: Any, data: Any) -> None:
    mark, payload = stored(value)
    if mark == Mark.PICKLE or not payload:
        return  # A damaged pickle may do anything; that is why it can be refused.
    damaged = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(damaged)))
    with contextlib.suppress(BlockCorruptError):
        decode_value(mark, memoryview(damaged)[:end])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([0, 1, 2, 3, 5, 255]), st.binary(max_size=60))
def test_random_bytes_are_refused_or_are_a_value(mark: int, payload: bytes) -> None:
    with contextlib.suppress(BlockCorruptError):
        decode_value(mark, memoryview(payload))


def test_a_hostile_size_allocates_nothing() -> None:
    content = msgspec.msgpack.encode(["float64", [2**40], 0])
    head = msgspec.msgpack.encode(msgspec.msgpack.Ext(_values.Code.TENSOR, content))
    payload = len(head).to_bytes(4, "little") + head
    with pytest.raises(BlockCorruptError, match="outside"):
        decode_value(Mark.ATTACHED, memoryview(payload))
