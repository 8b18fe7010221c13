"""One Python value <-> bytes, exactly: what comes back has the type that went in.

A value is stored as a *mark* (how to read it) and a payload. Most are MessagePack, with
extension types for what MessagePack does not tell apart (a tuple from a list) or does
not have (wide integers, arrays). Bytes of arrays, tensors and long byte strings stand
behind the MessagePack as *attachments*: copied once, and of any size. What is left goes
by pickle, unless TQ_ALLOW_PICKLE=0.

    STR, BYTES   the text in UTF-8, the bytes
    MSGPACK      one MessagePack value
    ATTACHED     uint32 head size | head (one MessagePack value) | attachments
    PICKLE       a pickle
"""

from __future__ import annotations

import datetime
import math
import os
import pickle
import zoneinfo
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import torch
from msgspec.msgpack import Decoder, Encoder, Ext
from tensordict import TensorDict
from tensordict.utils import LinkedList

from transfer_queue._dtypes import (
    DTYPE_OF_NAME,
    NAME_OF_DTYPE,
    allocate,
    byte_array,
    is_plain,
    settled,
)
from transfer_queue._errors import (
    BlockCorruptError,
    PickleRefusedError,
    TransferQueueError,
    ValueNotStorableError,
    ValueUnreadableError,
)

# Byte strings from this size on are attachments.
ATTACH_BYTES_MIN = 4096

_SURROGATES = "surrogatepass"  # A str may hold lone surrogates; they must survive.


class Mark(IntEnum):
    """How a payload is to be read. Stored: never renumber."""

    MSGPACK = 0
    ATTACHED = 1
    STR = 2
    BYTES = 3
    PICKLE = 4


class Code:
    """MessagePack extension types (plain int, as msgspec wants). Never renumber."""

    TUPLE = 1
    SET = 2
    FROZENSET = 3
    DICT = 4
    INT = 5
    COMPLEX = 6
    BYTEARRAY = 7
    ATTACHED_BYTES = 8
    DATETIME = 9
    DATE = 10
    TIME = 11
    TIMEDELTA = 12
    TIMEZONE = 13
    ZONEINFO = 14
    ARRAY = 15
    OBJECT_ARRAY = 16
    SCALAR = 17
    NUMPY_STR = 18
    NUMPY_BYTES = 19
    TENSOR = 20
    SIZE = 21
    DTYPE = 22
    DEVICE = 23
    TENSORDICT = 24


class Encoded(NamedTuple):
    """One value as bytes: the payload is the chunks one after the other."""

    mark: Mark
    chunks: list[bytes | memoryview]


class _NeedsPickleError(Exception):
    """MessagePack cannot carry a value of the type named here."""


def encode_value(value: object) -> Encoded:
    """The bytes of `value`. Chunks may share memory with it.

    Raises ValueNotStorableError (not even pickle can) or PickleRefusedError.
    """
    kind = type(value)
    if kind is str:
        return Encoded(Mark.STR, [value.encode("utf-8", _SURROGATES)])  # type: ignore[attr-defined]
    if kind is bytes:
        return Encoded(Mark.BYTES, [value])  # type: ignore[list-item]
    packer = _Packer()
    try:
        head = _ENCODER.encode(packer.pack(value))
    except _NeedsPickleError as need:
        return _pickled(value, str(need))
    except (RecursionError, UnicodeEncodeError, OverflowError, ValueError):
        # Nested too deep or in itself, a lone surrogate, or over a limit of the format.
        return _pickled(value, kind.__qualname__)
    if not packer.attachments:
        return Encoded(Mark.MSGPACK, [head])
    size = len(head).to_bytes(4, "little")
    return Encoded(Mark.ATTACHED, [size + head, *packer.attachments])


def decode_value(mark: int, payload: memoryview) -> Any:
    """The value. It shares no memory with `payload`.

    Raises BlockCorruptError, PickleRefusedError or ValueUnreadableError.
    """
    try:
        reader = _READERS.get(mark)
        if reader is None:
            raise BlockCorruptError(f"stored value: unknown mark {mark}")
        return reader(payload)
    except TransferQueueError:
        raise
    except Exception as error:
        raise BlockCorruptError(
            f"stored value: its {len(payload)} bytes cannot be read: {error}"
        ) from error


def decode_msgpack_run(payload: bytes, count: int) -> list[Any]:
    """`count` MSGPACK payloads that follow each other, read in one go."""
    try:
        values = _DECODER.decode(b"\xdd" + count.to_bytes(4, "big") + payload)
    except TransferQueueError:
        raise
    except Exception as error:
        raise BlockCorruptError(
            f"stored values: {len(payload)} bytes are not {count} values: {error}"
        ) from error
    assert isinstance(values, list) and len(values) == count
    return values


def pickle_allowed() -> bool:
    """What TQ_ALLOW_PICKLE says now; pickle is allowed by default."""
    answer = os.environ.get("TQ_ALLOW_PICKLE", "1").strip().lower()
    return answer not in ("0", "false", "no", "off")


# ---- Encoding ----------------------------------------------------------------------


class _Packer:
    """Replaces what MessagePack cannot tell apart by extension values."""

    __slots__ = ("attached_bytes", "attachments")

    def __init__(self) -> None:
        self.attachments: list[bytes | memoryview] = []
        self.attached_bytes = 0

    def pack(self, value: Any) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        packer = _PACKERS.get(kind)
        if packer is not None:
            return packer(self, value)
        if isinstance(value, np.generic):
            return self.scalar(value)
        if isinstance(value, torch.nn.Parameter):
            return self.tensor(value)
        raise _NeedsPickleError(f"{kind.__module__}.{kind.__qualname__}")

    def attach(self, data: bytes | memoryview) -> int:
        """Where in the attachments `data` will stand."""
        offset = self.attached_bytes
        self.attachments.append(data)
        self.attached_bytes += len(data)
        return offset

    def items(self, values: Iterable[Any]) -> list[Any]:
        pack = self.pack
        return [v if type(v) in _ATOMS else pack(v) for v in values]

    def extension(self, code: int, content: Any) -> Ext:
        return Ext(code, _ENCODER.encode(content))

    def integer(self, value: int) -> int | Ext:
        if -(2**63) <= value < 2**64:
            return value
        size = value.bit_length() // 8 + 1
        return Ext(Code.INT, value.to_bytes(size, "little", signed=True))

    def byte_string(self, value: bytes) -> bytes | Ext:
        if len(value) < ATTACH_BYTES_MIN:
            return value
        place = [self.attach(value), len(value)]
        return self.extension(Code.ATTACHED_BYTES, place)

    def dictionary(self, value: dict[Any, Any]) -> dict[Any, Any] | Ext:
        if set(map(type, value)) <= _KEY_TYPES:
            return dict(zip(value, self.items(value.values()), strict=True))
        keys, values = self.items(value), self.items(value.values())
        return self.extension(Code.DICT, [keys, values])

    def array(self, value: np.ndarray) -> Ext:
        dtype = value.dtype
        if dtype.kind == "O":
            shape_and_items = [value.shape, self.items(value.reshape(-1).tolist())]
            return self.extension(Code.OBJECT_ARRAY, shape_and_items)
        if not _dtype_has_name(dtype) or (value.size > 0 and value.nbytes == 0):
            raise _NeedsPickleError(f"numpy.ndarray of dtype {dtype}")
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        content = [dtype.str, value.shape, self.attach(flat.data)]
        return self.extension(Code.ARRAY, content)

    def scalar(self, value: np.generic) -> Ext:
        if type(value) is np.str_:
            # str() would cut trailing NULs off.
            return self.extension(Code.NUMPY_STR, "".join(value))
        if type(value) is np.bytes_:
            return self.extension(Code.NUMPY_BYTES, bytes(value))
        if type(value) is np.void or not _dtype_has_name(value.dtype):
            raise _NeedsPickleError(f"numpy scalar of dtype {value.dtype}")
        return self.extension(Code.SCALAR, [value.dtype.str, value.tobytes()])

    def tensor(self, value: torch.Tensor) -> Ext:
        if not is_plain(value):
            raise _NeedsPickleError(f"torch.Tensor of {value.dtype}, {value.layout}")
        plain = settled(value)
        place = self.attach(byte_array(plain).data)
        content = [NAME_OF_DTYPE[plain.dtype], list(plain.shape), place]
        return self.extension(Code.TENSOR, content)

    def tensordict(self, value: TensorDict) -> Ext:
        names = [name if type(name) is str else None for name in value.keys()]
        if None in names:
            raise _NeedsPickleError("tensordict.TensorDict with keys that are not str")
        columns = [value[name] for name in names]
        content = [list(value.batch_size), names, self.items(columns)]
        return self.extension(Code.TENSORDICT, content)

    def zone(self, value: datetime.tzinfo | None) -> Ext | None:
        return None if value is None else self.pack(value)

    def of_datetime(self, v: datetime.datetime) -> Ext:
        day = [v.year, v.month, v.day]
        clock = [v.hour, v.minute, v.second, v.microsecond, self.zone(v.tzinfo)]
        return self.extension(Code.DATETIME, [*day, *clock, v.fold])

    def of_time(self, v: datetime.time) -> Ext:
        clock = [v.hour, v.minute, v.second, v.microsecond, self.zone(v.tzinfo)]
        return self.extension(Code.TIME, [*clock, v.fold])

    def of_timedelta(self, value: datetime.timedelta) -> Ext:
        parts = [value.days, value.seconds, value.microseconds]
        return self.extension(Code.TIMEDELTA, parts)

    def of_timezone(self, value: datetime.timezone) -> Ext:
        offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]
        return self.extension(Code.TIMEZONE, [self.of_timedelta(offset), *name])

    def of_zoneinfo(self, value: zoneinfo.ZoneInfo) -> Ext:
        if value.key is None:
            raise _NeedsPickleError("zoneinfo.ZoneInfo without a key")
        return self.extension(Code.ZONEINFO, value.key)


def _dtype_has_name(dtype: np.dtype[Any]) -> bool:
    """True if dtype.str says all about it (no fields, no foreign types)."""
    return not dtype.hasobject and np.dtype(dtype.str) == dtype and dtype.isbuiltin != 2


def _pickled(value: object, cause: str) -> Encoded:
    if not pickle_allowed():
        raise PickleRefusedError(
            f"{_described(value, cause)} needs pickle, which TQ_ALLOW_PICKLE=0 "
            "refuses; put tensors, arrays, numbers, text, bytes, lists or dicts of them"
        )
    try:
        return Encoded(Mark.PICKLE, [pickle.dumps(value, protocol=5)])
    except Exception as error:
        raise ValueNotStorableError(
            f"{_described(value, cause)} cannot be stored: {error}"
        ) from error


def _described(value: object, cause: str) -> str:
    kind = type(value)
    own_name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    if cause in (own_name, kind.__qualname__):
        return f"a value of type {own_name}"
    return f"a value of type {own_name} ({cause})"


_ENCODER = Encoder()
_ATOMS = frozenset({type(None), bool, float, str})
_KEY_TYPES = frozenset({str})
_PACKERS: dict[type, Callable[[_Packer, Any], Any]] = {
    int: _Packer.integer,
    bytes: _Packer.byte_string,
    list: _Packer.items,
    LinkedList: _Packer.items,  # The face of a NonTensorStack: a list to its user.
    dict: _Packer.dictionary,
    tuple: lambda packer, v: packer.extension(Code.TUPLE, packer.items(v)),
    set: lambda packer, v: packer.extension(Code.SET, packer.items(v)),
    frozenset: lambda packer, v: packer.extension(Code.FROZENSET, packer.items(v)),
    bytearray: lambda packer, v: packer.extension(
        Code.BYTEARRAY, packer.byte_string(bytes(v))
    ),
    complex: lambda packer, v: packer.extension(Code.COMPLEX, [v.real, v.imag]),
    datetime.datetime: _Packer.of_datetime,
    datetime.date: lambda packer, v: packer.extension(
        Code.DATE, [v.year, v.month, v.day]
    ),
    datetime.time: _Packer.of_time,
    datetime.timedelta: _Packer.of_timedelta,
    datetime.timezone: _Packer.of_timezone,
    zoneinfo.ZoneInfo: _Packer.of_zoneinfo,
    np.ndarray: _Packer.array,
    torch.Tensor: _Packer.tensor,
    torch.Size: lambda packer, v: packer.extension(Code.SIZE, list(v)),
    torch.dtype: lambda packer, v: packer.extension(
        Code.DTYPE, str(v).removeprefix("torch.")
    ),
    torch.device: lambda packer, v: packer.extension(Code.DEVICE, str(v)),
    TensorDict: _Packer.tensordict,
}


# ---- Decoding ----------------------------------------------------------------------


class _Unpacker:
    """Rebuilds extension values; `attachments` are the bytes behind the head."""

    __slots__ = ("attachments", "decoder")

    def __init__(self, attachments: memoryview) -> None:
        self.attachments = attachments
        self.decoder = Decoder(ext_hook=self.extension)

    def extension(self, code: int, data: memoryview) -> Any:
        unpacker = _UNPACKERS.get(code)
        if unpacker is None:
            raise BlockCorruptError(f"stored value: unknown extension {code}")
        return unpacker(self, data)

    def content(self, data: memoryview) -> Any:
        return self.decoder.decode(data)

    def attached(self, offset: int, size: int) -> memoryview:
        if offset < 0 or size < 0 or offset + size > len(self.attachments):
            raise BlockCorruptError("stored value: an attachment is outside the value")
        return self.attachments[offset : offset + size]

    def attached_bytes(self, data: memoryview) -> bytes:
        offset, size = self.content(data)
        return bytes(self.attached(offset, size))

    def dictionary(self, data: memoryview) -> dict[Any, Any]:
        keys, values = self.content(data)
        return dict(zip(keys, values, strict=True))

    def array(self, data: memoryview) -> np.ndarray:
        name, shape, offset = self.content(data)
        dtype = np.dtype(name)
        if dtype.hasobject:
            raise BlockCorruptError(f"stored value: an array of dtype {name}")
        source = self.attached(offset, _count(shape) * dtype.itemsize)
        array = np.empty(shape, dtype)
        if array.nbytes > 0:
            array.reshape(-1).view(np.uint8)[:] = source
        return array

    def object_array(self, data: memoryview) -> np.ndarray:
        shape, items = self.content(data)
        if _count(shape) != len(items):
            raise BlockCorruptError("stored value: an array's shape and items differ")
        array: np.ndarray = np.empty(len(items), object)
        for index, item in enumerate(items):  # A slice would spread nested lists.
            array[index] = item
        shaped: np.ndarray = array.reshape(shape)
        return shaped

    def scalar(self, data: memoryview) -> Any:
        name, raw = self.content(data)
        return np.frombuffer(raw, np.dtype(name), count=1)[0]

    def tensor(self, data: memoryview) -> torch.Tensor:
        name, shape, offset = self.content(data)
        dtype = DTYPE_OF_NAME[name]
        source = self.attached(offset, _count(shape) * dtype.itemsize)
        tensor, tensor_bytes = allocate(shape, dtype)
        tensor_bytes[:] = source
        return tensor

    def tensordict(self, data: memoryview) -> TensorDict:
        batch_size, names, columns = self.content(data)
        return TensorDict(dict(zip(names, columns, strict=True)), batch_size=batch_size)

    def of_datetime(self, data: memoryview) -> datetime.datetime:
        *parts, fold = self.content(data)
        return datetime.datetime(*parts).replace(fold=fold)

    def of_time(self, data: memoryview) -> datetime.time:
        *parts, fold = self.content(data)
        return datetime.time(*parts).replace(fold=fold)


def _count(shape: Sequence[int]) -> int:
    if any(size < 0 for size in shape):
        raise BlockCorruptError("stored value: a negative size")
    return math.prod(shape)


def _read_attached(payload: memoryview) -> Any:
    head_end = 4 + int.from_bytes(payload[:4], "little")
    if len(payload) < 4 or head_end > len(payload):
        raise BlockCorruptError("stored value: it ends within its head")
    return _Unpacker(payload[head_end:]).decoder.decode(payload[4:head_end])


def _read_pickle(payload: memoryview) -> Any:
    if not pickle_allowed():
        raise PickleRefusedError(
            "a stored value is a pickle, which TQ_ALLOW_PICKLE=0 refuses to load"
        )
    try:
        return pickle.loads(payload)
    except (ImportError, AttributeError) as error:
        raise ValueUnreadableError(
            f"a stored value needs what this process cannot import: {error}"
        ) from error


_DECODER = _Unpacker(memoryview(b"")).decoder
_READERS: dict[int, Callable[[memoryview], Any]] = {
    Mark.MSGPACK: lambda payload: _DECODER.decode(payload),
    Mark.ATTACHED: _read_attached,
    Mark.STR: lambda payload: str(payload, "utf-8", _SURROGATES),
    Mark.BYTES: bytes,
    Mark.PICKLE: _read_pickle,
}
_UNPACKERS: dict[int, Callable[[_Unpacker, memoryview], Any]] = {
    Code.TUPLE: lambda unpacker, data: tuple(unpacker.content(data)),
    Code.SET: lambda unpacker, data: set(unpacker.content(data)),
    Code.FROZENSET: lambda unpacker, data: frozenset(unpacker.content(data)),
    Code.DICT: _Unpacker.dictionary,
    Code.INT: lambda _, data: int.from_bytes(data, "little", signed=True),
    Code.COMPLEX: lambda unpacker, data: complex(*unpacker.content(data)),
    Code.BYTEARRAY: lambda unpacker, data: bytearray(unpacker.content(data)),
    Code.ATTACHED_BYTES: _Unpacker.attached_bytes,
    Code.DATETIME: _Unpacker.of_datetime,
    Code.DATE: lambda unpacker, data: datetime.date(*unpacker.content(data)),
    Code.TIME: _Unpacker.of_time,
    Code.TIMEDELTA: lambda unpacker, data: datetime.timedelta(*unpacker.content(data)),
    Code.TIMEZONE: lambda unpacker, data: datetime.timezone(*unpacker.content(data)),
    Code.ZONEINFO: lambda unpacker, data: zoneinfo.ZoneInfo(unpacker.content(data)),
    Code.ARRAY: _Unpacker.array,
    Code.OBJECT_ARRAY: _Unpacker.object_array,
    Code.SCALAR: _Unpacker.scalar,
    Code.NUMPY_STR: lambda unpacker, data: np.str_(unpacker.content(data)),
    Code.NUMPY_BYTES: lambda unpacker, data: np.bytes_(unpacker.content(data)),
    Code.TENSOR: _Unpacker.tensor,
    Code.SIZE: lambda unpacker, data: torch.Size(unpacker.content(data)),
    Code.DTYPE: lambda unpacker, data: getattr(torch, unpacker.content(data)),
    Code.DEVICE: lambda unpacker, data: torch.device(unpacker.content(data)),
    Code.TENSORDICT: _Unpacker.tensordict,
}

__all__ = [
    "ATTACH_BYTES_MIN",
    "Code",
    "Encoded",
    "Mark",
    "decode_msgpack_run",
    "decode_value",
    "encode_value",
    "pickle_allowed",
]
