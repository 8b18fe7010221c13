"""Tags as MessagePack: what it carries exactly goes plain, the rest as stored values.

Tags are small dicts with str keys. A tuple, set, datetime, large int or any other
object in them travels as an extension value with the bytes that a stored value has, so
it comes back as what it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_STORED_VALUE = 81  # Extension code: mark (1 byte), then the payload of _values.
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1
_ATOMS = frozenset({type(None), bool, float, str, bytes})


def to_wire(tags: Sequence[Mapping[str, Any] | None]) -> list[dict[str, Any] | None]:
    """Each tag as containers that msgspec encodes without loss."""
    return [None if tag is None else _map_to_wire(tag) for tag in tags]


def ext_hook(code: int, data: memoryview) -> Any:
    """For msgspec: turns an extension value back into what it was."""
    if code != _STORED_VALUE:
        raise ValueError(f"a tag holds an extension value of unknown code {code}")
    from transfer_queue._values import decode_value

    return decode_value(data[0], data[1:])


def _map_to_wire(tag: Mapping[Any, Any]) -> dict[str, Any]:
    if not isinstance(tag, Mapping):
        raise TypeError(f"a tag must be a dict, not {type(tag).__name__}: {tag!r}")
    for key in tag:
        if type(key) is not str:
            raise TypeError(f"the keys of a tag must be strings, not {key!r}")
    return {key: _to_wire(value) for key, value in tag.items()}


def _to_wire(value: Any) -> Any:
    kind = type(value)
    if kind in _ATOMS or (kind is int and _INT_MIN <= value <= _INT_MAX):
        return value
    if kind is list:
        return [_to_wire(item) for item in value]
    if kind is dict and all(type(key) is str for key in value):
        return {key: _to_wire(item) for key, item in value.items()}
    return _as_stored_value(value)


def _as_stored_value(value: object) -> msgspec.msgpack.Ext:
    from transfer_queue._values import encode_value

    encoded = encode_value(value)
    parts = [bytes([encoded.mark]), *(bytes(chunk) for chunk in encoded.chunks)]
    return msgspec.msgpack.Ext(_STORED_VALUE, b"".join(parts))
