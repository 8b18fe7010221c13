"""KVClient: values by key.

A key is 1 to 1024 characters of ``a-zA-Z0-9.-_!@#%^*()+=:;``, a value at least one
byte. Wrong types raise TypeError; everything else raises DatasystemError, a
RuntimeError whose text is ``code: [<name>], msg: [<message>]``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from yr.datasystem import _core
from yr.datasystem._core import FULL, INVALID, NOT_FOUND, NOT_READY, DatasystemError
from yr.datasystem.object_client import CacheType, WriteMode
from yr.datasystem.util import (
    INT32_MAX,
    Status,
    check_range,
    check_type,
    check_uint32,
)

if TYPE_CHECKING:
    from yr.datasystem._core import Buffer

_CONNECT_TIMEOUT_MS = 9000
_CONNECT_TIMEOUT_MS_MIN = 500
_FAST_TRANSPORT_BYTES = 256 << 20
_FAST_TRANSPORT_BYTES_MAX = 2 << 30
_PORT_MAX = 65535
_DEFAULT_MODE = WriteMode.NONE_L2_CACHE
_DEFAULT_MODE_VALUE = _DEFAULT_MODE.value  # An attribute of an Enum takes its time.

# Arguments of KVClient that only matter once there is authentication of tenants.
_CREDENTIALS = (
    "token",
    "client_public_key",
    "client_private_key",
    "server_public_key",
    "access_key",
    "secret_key",
    "tenant_id",
)


class ExistenceOpt(Enum):
    """NX keeps a value that is there already; that is a success."""

    NONE = 0
    NX = 1


class ReadParam(NamedTuple):
    """Bytes ``[offset, offset + size)`` of a value; size 0: to its end."""

    key: str
    offset: int
    size: int


class SetParam:
    """How values are set, for calls that take it all in one argument."""

    __slots__ = ("cache_type", "existence", "ttl_second", "write_mode")

    def __init__(self) -> None:
        self.write_mode = WriteMode.NONE_L2_CACHE
        self.ttl_second = 0
        self.existence = ExistenceOpt.NONE
        self.cache_type = CacheType.MEMEORY


class ReadOnlyBuffer:
    """A value in shared memory. Its bytes stay as they are while this or a view lives.

    Published bytes never change, so a latch never has anything to wait for.
    """

    __slots__ = ("_buffer",)

    def __init__(self, buffer: Buffer | None) -> None:
        self._buffer = buffer

    def immutable_data(
        self, with_latch: bool = False, timeout_sec: int = 60
    ) -> memoryview:
        """A read-only view of the bytes, without a copy."""
        check_type("with_latch", with_latch, bool)
        _check_latch_timeout(timeout_sec)
        return memoryview(self._held())

    def rlatch(self, timeout_sec: int = 60) -> None:
        _check_latch_timeout(timeout_sec)
        self._held()

    def unrlatch(self) -> None:
        self._held()

    def get_size(self) -> int:
        return self._held().size

    def _held(self) -> Buffer:
        if self._buffer is None:
            raise RuntimeError("The buffer is None, please create it first.")
        return self._buffer


class KVClient:
    """A client of the worker at `host`:`port`, or at the environment's
    DATASYSTEM_HOST:DATASYSTEM_PORT when neither is given.

    Connects in init(), or when a ``with`` block begins. May be used from any thread;
    waiting in one never stops another. A forked child makes a connection of its own.
    """

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        connect_timeout_ms: int = _CONNECT_TIMEOUT_MS,
        token: str = "",
        client_public_key: str = "",
        client_private_key: str = "",
        server_public_key: str = "",
        access_key: str = "",
        secret_key: str = "",
        tenant_id: str = "",
        enable_cross_node_connection: bool = False,
        req_timeout_ms: int = 0,
        fast_transport_mem_size: int = _FAST_TRANSPORT_BYTES,
        service_discovery: None = None,
    ) -> None:
        arguments = dict(locals())
        check_type("host", host, str)
        check_type("port", port, int)
        check_type("connect_timeout_ms", connect_timeout_ms, int)
        check_type("req_timeout_ms", req_timeout_ms, int)
        check_type("enable_cross_node_connection", enable_cross_node_connection, bool)
        check_type("fast_transport_mem_size", fast_transport_mem_size, int)
        for name in _CREDENTIALS:
            check_type(name, arguments[name], str)
        check_range("connect_timeout_ms", connect_timeout_ms, 0, INT32_MAX)
        check_range("req_timeout_ms", req_timeout_ms, -INT32_MAX - 1, INT32_MAX)
        check_range("port", port, 0, _PORT_MAX)
        check_range(
            "fast_transport_mem_size",
            fast_transport_mem_size,
            1,
            _FAST_TRANSPORT_BYTES_MAX,
        )
        if service_discovery is not None:
            raise TypeError(
                "The input of service_discovery has invalid type, valid type: [None]: "
                "service discovery is not built yet, give host and port instead"
            )
        if bool(host) != bool(port):
            raise RuntimeError(
                "host and port must be provided together, or use service_discovery"
            )
        _warn_of_options_without_effect(arguments)
        self._host = host
        self._port = port
        self._connect_timeout_ms = connect_timeout_ms
        self._given_request_timeout_ms = req_timeout_ms
        self._request_timeout_ms = 0
        self._client: _core.Client | None = None

    # ---- Life ----------------------------------------------------------------------

    def init(self) -> None:
        """Connect. Does nothing when connected; after close() it connects again."""
        if self._client is not None:
            return
        host, port = self._address()
        connect_timeout_ms = self._effective_connect_timeout_ms()
        request_timeout_ms = self._given_request_timeout_ms
        if request_timeout_ms <= 0:
            request_timeout_ms = connect_timeout_ms
        client = _core.Client(host, port, connect_timeout_ms, request_timeout_ms)
        self._request_timeout_ms = request_timeout_ms
        self._client = client

    def close(self) -> None:
        """Disconnect, and end the calls that other threads wait in. Idempotent.

        Buffers and views that were handed out stay right.
        """
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def __enter__(self) -> KVClient:
        self.init()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def health_check(self) -> Status:
        """Whether the worker serves. Never raises."""
        try:
            client = self._connected()
            client.ping(self._request_timeout_ms)
        except DatasystemError as error:
            return Status(error)
        return Status()

    # ---- Writing -------------------------------------------------------------------
    #
    # A get takes a microsecond and each Python call adds a third of one: so the methods
    # that are called most look at the types of their usual arguments in line, and ask
    # check_type() about the others.

    def set(
        self,
        key: str,
        val: bytes | bytearray | memoryview | str,
        write_mode: WriteMode = WriteMode.NONE_L2_CACHE,
        ttl_second: int = 0,
    ) -> None:
        """Store a copy of `val`, all its bytes, under `key`; replaces what is there."""
        if type(key) is not str:
            check_type("key", key, str)
        if type(val) is not bytes:
            check_type("val", val, bytes, bytearray, memoryview, str)
        options = _set_options(write_mode, ttl_second)
        (self._client or self._connected()).put(key, val, *options)

    def set_value(
        self,
        val: bytes | bytearray | memoryview | str,
        write_mode: WriteMode = WriteMode.NONE_L2_CACHE,
        ttl_second: int = 0,
    ) -> str:
        """set() under a new key, which is returned; "" when that fails."""
        check_type("val", val, bytes, bytearray, memoryview, str)
        _set_options(write_mode, ttl_second)
        key = self.generate_key()
        try:
            self.set(key, val, write_mode, ttl_second)
        except DatasystemError:
            return ""
        return key

    def mset(
        self,
        keys: list[str],
        vals: list[Any],
        write_mode: WriteMode = WriteMode.NONE_L2_CACHE,
        ttl_second: int = 0,
        existence_opt: ExistenceOpt = ExistenceOpt.NONE,
    ) -> list[str]:
        """Store copies of many values; returns the keys that failed.

        A value is a str or has the buffer protocol. Not one transaction: raises when
        every key fails or an argument is wrong. Of a repeated key the first one is
        stored and the others are reported as failed. With ExistenceOpt.NX, keys that
        exist keep their value and are not reported.
        """
        check_type("keys", keys, list)
        check_type("vals", vals, list)
        check_type("existence_opt", existence_opt, ExistenceOpt)
        options = _set_options(write_mode, ttl_second, existence_opt)
        client = self._connected()
        if "" in keys:
            raise DatasystemError(INVALID, "The key should not be empty.")
        if len(keys) != len(vals):
            raise DatasystemError(
                INVALID, "The number of key and value is not the same."
            )
        repeated: list[str] = []
        if len(set(keys)) < len(keys):
            keys, vals, repeated = _first_of_each(keys, vals)
        return _put_what_fits(client, keys, vals, options) + repeated

    def mcreate(
        self,
        keys: list[str],
        sizes: list[int],
        write_mode: WriteMode = WriteMode.NONE_L2_CACHE,
        ttl_second: int = 0,
    ) -> list[Buffer]:
        """Reserve values to be filled in place through ``buffer.MutableData()`` and
        published by mset_buffer(). All or nothing."""
        if type(keys) is not list or type(sizes) is not list:
            check_type("keys", keys, list)
            check_type("sizes", sizes, list)
        options = _set_options(write_mode, ttl_second)
        for size in sizes:
            if type(size) is not int:
                check_type("sizes", size, int)
        return (self._client or self._connected()).create(keys, sizes, *options)

    def mset_buffer(self, buffers: Sequence[Buffer | None]) -> None:
        """Publish what mcreate() reserved; None in the list is skipped."""
        if type(buffers) is not list:
            check_type("buffers", buffers, list)
        reserved = [buffer for buffer in buffers if buffer is not None]
        (self._client or self._connected()).seal(reserved)

    def expire(self, keys: list[str], ttl_second: int) -> list[str]:
        """Let values expire `ttl_second` from now, or never (0).

        Returns the keys that do not exist; raises when none does.
        """
        check_type("keys", keys, list)
        check_uint32("ttl_second", ttl_second)
        found = self._connected().expire(keys, ttl_second)
        return [key for key, exists in zip(keys, found, strict=True) if not exists]

    def delete(self, keys: list[str]) -> list[str]:
        """Forget values; a key that does not exist is a success.

        Returns the keys that failed, of which there are none when it does not raise.
        """
        if type(keys) is not list:
            check_type("keys", keys, list)
        (self._client or self._connected()).delete(keys)
        return []

    # ---- Reading -------------------------------------------------------------------

    def get(
        self, keys: list[str], convert_to_str: bool = False, sub_timeout_ms: int = 0
    ) -> list[bytes | str | None]:
        """Copies of values, as bytes or str; None for a key that does not exist.

        Waits up to `sub_timeout_ms`, and no longer than the client's request timeout,
        for missing keys to appear. Raises when no key exists.
        """
        check_type("keys", keys, list)
        check_type("convert_to_str", convert_to_str, bool)
        wait_ms = self._wait_ms("sub_timeout_ms", sub_timeout_ms)
        values: list[bytes | str | None]
        values = [*self._connected().get_bytes(keys, wait_ms)]
        if convert_to_str:
            return [v.decode() if isinstance(v, bytes) else v for v in values]
        return values

    def get_buffers(self, keys: list[str], timeout_ms: int = 0) -> list[Buffer | None]:
        """As get(), but views of the values, without a copy: objects with the buffer
        protocol and ``GetSize()``."""
        if type(keys) is not list:
            check_type("keys", keys, list)
        wait_ms = 0
        if timeout_ms != 0 or type(timeout_ms) is not int:
            wait_ms = self._wait_ms("timeout_ms", timeout_ms)
        return (self._client or self._connected()).get(keys, wait_ms)

    def get_read_only_buffers(
        self, keys: list[str], timeout_ms: int = 0
    ) -> list[ReadOnlyBuffer | None]:
        """As get_buffers(), wrapped as ReadOnlyBuffer."""
        buffers = self.get_buffers(keys, timeout_ms)
        return [None if b is None else ReadOnlyBuffer(b) for b in buffers]

    def read(self, read_params: list[ReadParam]) -> list[ReadOnlyBuffer | None]:
        """Parts of values, without a copy; None for a key that does not exist.

        Raises when no key exists, or when a part does not lie inside its value.
        """
        check_type("read_params", read_params, list)
        for param in read_params:
            check_type("read_params", param, ReadParam)
            check_type("key", param.key, str)
            check_type("offset", param.offset, int)
            check_type("size", param.size, int)
        client = self._connected()
        _check_read_params(read_params)
        parts = [_read_one(client, param) for param in read_params]
        if all(part is None for part in parts):
            raise DatasystemError(NOT_FOUND, "Cannot get objects from worker")
        return parts

    def exist(self, keys: list[str]) -> list[bool]:
        """Which of up to 100,000 keys exist."""
        check_type("keys", keys, list)
        return self._connected().exist(keys)

    @staticmethod
    def generate_key(prefix: str = "") -> str:
        """A new key of 36 characters; or `prefix` itself, if it is a legal key."""
        check_type("prefix", prefix, str)
        if prefix:
            _core.check_key(prefix)
            return prefix
        import uuid

        return str(uuid.uuid4())

    # ---- Inside --------------------------------------------------------------------

    def _connected(self) -> _core.Client:
        client = self._client
        if client is None:
            raise DatasystemError(
                NOT_READY, "The client has not been initialized yet: call init() first."
            )
        return client

    def _wait_ms(self, name: str, value: int) -> int:
        check_type(name, value, int)
        check_range(name, value, 0, INT32_MAX)
        return min(value, self._request_timeout_ms)

    def _address(self) -> tuple[str, int]:
        if self._host:
            return self._host, self._port
        host = os.environ.get("DATASYSTEM_HOST", "")
        port = os.environ.get("DATASYSTEM_PORT", "")
        if not host or not port:
            raise DatasystemError(
                INVALID,
                "ConnectOptions was not configured with a host and port or "
                "serviceDiscovery.",
            )
        return host, _environment_int("DATASYSTEM_PORT", 1, _PORT_MAX)

    def _effective_connect_timeout_ms(self) -> int:
        timeout_ms = self._connect_timeout_ms
        is_default = timeout_ms == _CONNECT_TIMEOUT_MS
        if is_default and os.environ.get("DATASYSTEM_CONNECT_TIME_MS"):
            timeout_ms = _environment_int("DATASYSTEM_CONNECT_TIME_MS", 0, INT32_MAX)
        if timeout_ms < _CONNECT_TIMEOUT_MS_MIN:
            raise DatasystemError(
                INVALID,
                f"The connectTimeoutMs({timeout_ms}) should be greater than or equal "
                f"to {_CONNECT_TIMEOUT_MS_MIN} milliseconds.",
            )
        return timeout_ms


def _environment_int(name: str, least: int, most: int) -> int:
    text = os.environ[name]
    if not text.isdecimal() or not least <= int(text) <= most:
        raise DatasystemError(
            INVALID, f"{name} is {text!r}, not a number in [{least},{most}]."
        )
    return int(text)


def _warn_of_options_without_effect(arguments: dict[str, Any]) -> None:
    given = [name for name in _CREDENTIALS if arguments[name]]
    given += [
        name
        for name in (f"DATASYSTEM_{option.upper()}" for option in _CREDENTIALS)
        if os.environ.get(name)
    ]
    if given:
        warnings.warn(
            f"{', '.join(given)}: authentication of tenants is not built yet. This has "
            "no effect; a worker serves every process of its user on its node, and "
            "others that prove its key (DATASYSTEM_AUTH_KEY_FILE).",
            RuntimeWarning,
            stacklevel=3,
        )
    if arguments["enable_cross_node_connection"]:
        warnings.warn(
            "enable_cross_node_connection: failover to the worker of another node is "
            "not built yet. This has no effect.",
            RuntimeWarning,
            stacklevel=3,
        )


def _set_options(
    write_mode: WriteMode,
    ttl_second: int,
    existence: ExistenceOpt = ExistenceOpt.NONE,
) -> tuple[int, bool, int]:
    """The arguments of _core for them: ttl_seconds, only_if_absent, write_mode."""
    only_if_absent = existence is ExistenceOpt.NX
    if ttl_second != 0 or type(ttl_second) is not int:
        check_uint32("ttl_second", ttl_second)
    if write_mode is _DEFAULT_MODE:
        return ttl_second, only_if_absent, _DEFAULT_MODE_VALUE
    check_type("write_mode", write_mode, WriteMode)
    return ttl_second, only_if_absent, write_mode.value


def _check_latch_timeout(timeout_sec: int) -> None:
    check_type("timeout_sec", timeout_sec, int)
    check_range("timeout_sec", timeout_sec, 1, INT32_MAX)


def _check_read_params(read_params: list[ReadParam]) -> None:
    if not read_params:
        raise DatasystemError(INVALID, "The keys are empty")
    if len({param.key for param in read_params}) < len(read_params):
        raise DatasystemError(
            INVALID, "The same key is read twice in one call; make one call for each."
        )
    for param in read_params:
        if param.offset < 0 or param.size < 0:
            raise DatasystemError(
                INVALID,
                f"The offset {param.offset} and size {param.size} of key {param.key} "
                "must not be negative.",
            )


def _read_one(client: _core.Client, param: ReadParam) -> ReadOnlyBuffer | None:
    try:
        return ReadOnlyBuffer(client.get_range(param.key, param.offset, param.size, 0))
    except DatasystemError as error:
        if error.status != NOT_FOUND:
            raise
        return None


def _first_of_each(
    keys: list[str], vals: list[Any]
) -> tuple[list[str], list[Any], list[str]]:
    """Keys without repeats, their values, and the repeats."""
    first: dict[str, Any] = {}
    repeated = []
    for key, value in zip(keys, vals, strict=True):
        if key in first:
            repeated.append(key)
        else:
            first[key] = value
    return list(first), list(first.values()), repeated


def _put_what_fits(
    client: _core.Client,
    keys: list[str],
    vals: list[Any],
    options: tuple[int, bool, int],
) -> list[str]:
    """Put all at once, or, where there is no room for all, one by one."""
    try:
        client.put_many(keys, vals, *options)
        return []
    except DatasystemError as error:
        if error.status != FULL or len(keys) == 1:
            raise
    failed: list[str] = []
    for at, key in enumerate(keys):
        try:
            client.put(key, vals[at], *options)
        except DatasystemError as error:
            lost = error.status != FULL  # The worker, and with it all that follow.
            failed += keys[at:] if lost else [key]
            if len(failed) == len(keys):
                raise
            if lost:
                break
    return failed
