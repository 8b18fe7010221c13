"""Any serialisable value by key in the datasystem, through its KVClient.

Each value is stored with a tag that says how: "2" is the general path, through host
memory. (Tag "1", for tensors on an NPU, comes with the NPU transport.) Keys are user
keys of the datasystem and obey its rules for them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from transfer_queue._values import Encoded, decode_value, encode_value
from transfer_queue.storage.clients.base import StorageClientFactory, StorageKVClient
from transfer_queue.utils.yuanrong_utils import (
    find_reachable_host,
    require_worker_host,
    worker_port_of,
)

try:
    from yr import datasystem

    YUANRONG_DATASYSTEM_IMPORTED = True
except ImportError:
    datasystem = None  # type: ignore[assignment]
    YUANRONG_DATASYSTEM_IMPORTED = False

__all__ = [
    "YUANRONG_DATASYSTEM_IMPORTED",
    "YuanrongStorageClient",
    "find_reachable_host",
]

_log = logging.getLogger("transfer_queue.storage.yuanrong")

_GENERAL = "2"
_KEYS_MAX = 10_000  # Of one call of KVClient.


@StorageClientFactory.register("YuanrongStorageClient")
class YuanrongStorageClient(StorageKVClient):
    """Values of any type that can be serialised."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        if not YUANRONG_DATASYSTEM_IMPORTED:
            raise ImportError("YuanRong DataSystem not installed.")
        super().__init__(config)
        port = worker_port_of(config)
        host = config.get("host") or require_worker_host(port)
        self._client = datasystem.KVClient(host, port)
        self._client.init()

    def put(self, keys: list[str], values: list[Any]) -> list[str]:
        if not isinstance(keys, list) or not isinstance(values, list):
            raise ValueError("keys and values must be lists")
        if len(keys) != len(values):
            raise ValueError(
                f"Number of keys ({len(keys)}) must match number of values "
                f"({len(values)})"
            )
        for first in range(0, len(keys), _KEYS_MAX):
            last = first + _KEYS_MAX
            self._put_some(keys[first:last], values[first:last])
        return [_GENERAL] * len(keys)

    def get(
        self,
        keys: list[str],
        shapes: list[Any] | None = None,
        dtypes: list[Any] | None = None,
        custom_backend_meta: list[Any] | None = None,
    ) -> list[Any]:
        if shapes is None or dtypes is None or custom_backend_meta is None:
            raise ValueError(
                "YuanrongStorageClient needs shapes, dtypes and custom_backend_meta "
                "for get(); custom_backend_meta is what put() returned"
            )
        if not len(keys) == len(shapes) == len(dtypes) == len(custom_backend_meta):
            raise ValueError(
                "Lengths of keys, shapes, dtypes and custom_backend_meta must be "
                f"equal, got {len(keys)}, {len(shapes)}, {len(dtypes)} and "
                f"{len(custom_backend_meta)}"
            )
        _check_tags(keys, custom_backend_meta)
        found: list[Any] = []
        for first in range(0, len(keys), _KEYS_MAX):
            found += self._get_some(keys[first : first + _KEYS_MAX])
        missing = found.count(None)
        if 0 < missing < len(found):
            _log.warning("%d of %d keys have no value", missing, len(keys))
        return [None if raw is None else _decode(raw) for raw in found]

    def clear(
        self, keys: list[str], custom_backend_meta: list[Any] | None = None
    ) -> None:
        if not isinstance(keys, list) or not isinstance(custom_backend_meta, list):
            raise ValueError("keys and custom_backend_meta must be lists")
        if len(keys) != len(custom_backend_meta):
            raise ValueError(
                f"Number of keys ({len(keys)}) must match number of "
                f"custom_backend_meta ({len(custom_backend_meta)})"
            )
        mine = []
        for key, tag in zip(keys, custom_backend_meta, strict=True):
            if tag == _GENERAL:
                mine.append(key)
            elif tag:
                _log.warning("key %r was stored by an unknown backend '%s'", key, tag)
        for first in range(0, len(mine), _KEYS_MAX):
            self._client.delete(mine[first : first + _KEYS_MAX])

    def close(self) -> None:
        """Let go of the connection; the values stay."""
        self._client.close()

    def _put_some(self, keys: list[str], values: list[Any]) -> None:
        encoded = [encode_value(value) for value in values]
        buffers = self._client.mcreate(keys, [_stored_bytes(item) for item in encoded])
        for item, buffer in zip(encoded, buffers, strict=True):
            with memoryview(buffer.MutableData()) as target:
                _write(item, target.cast("B"))
        self._client.mset_buffer(buffers)

    def _get_some(self, keys: list[str]) -> list[Any]:
        """Buffers, None where there is none; none at all is not an error here."""
        try:
            buffers: list[Any] = self._client.get_buffers(keys)
        except RuntimeError as error:
            if "Key not found" not in str(error):
                raise
            return [None] * len(keys)
        return buffers


def _check_tags(keys: Sequence[str], tags: Sequence[Any]) -> None:
    for key, tag in zip(keys, tags, strict=True):
        if not tag:
            raise ValueError(f"Key {key!r} has no backend metadata: it was never put")
        if tag != _GENERAL:
            raise ValueError(
                "Cannot retrieve stored data because the backend that originally "
                "stored it is unavailable in the current process or node. Please check "
                "that the configuration and NPU resource availability are consistent "
                "across all processes and nodes."
            )


def _stored_bytes(encoded: Encoded) -> int:
    return 1 + sum(len(chunk) for chunk in encoded.chunks)


def _write(encoded: Encoded, target: memoryview) -> None:
    target[0] = encoded.mark
    at = 1
    for chunk in encoded.chunks:
        target[at : at + len(chunk)] = memoryview(chunk).cast("B")
        at += len(chunk)


def _decode(raw: Any) -> Any:
    view = memoryview(raw).cast("B")
    return decode_value(view[0], view[1:])
