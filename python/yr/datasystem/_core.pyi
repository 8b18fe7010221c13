"""The C extension over libdatasystem (include/datasystem/datasystem.h has the contract).

Every call that may block or copy runs without the GIL, ends within its timeout, and reacts
to a signal such as Ctrl-C within 100 ms. All classes are safe to use from any thread.
"""

from collections.abc import Buffer as _BufferProtocol
from collections.abc import Sequence
from typing import final

__version__: str

class DatasystemError(RuntimeError):
    """What the library answered; str() is ``code: [<name>], msg: [<message>]``."""

    status: int  # enum ds_status
    code: int  # upstream's number, e.g. 3 for "Key not found"
    message: str

@final
class Buffer:
    """Bytes in shared memory; exports the buffer protocol (writable until sealed).

    An exported view keeps the object's bytes alive and unmoved, also after release().
    """

    size: int
    sealed: bool
    def release(self) -> None:
        """Give the bytes up as soon as no exported view is left. Idempotent."""
    def view(self) -> PrivateView | None:
        """A private writable mapping, or None where there can be none: copy instead."""

@final
class PrivateView:
    """A copy-on-write mapping of a sealed Buffer; exports a writable buffer."""

@final
class Client:
    """One connection pool to the node's worker."""

    def __init__(
        self,
        host: str,
        port: int,
        connect_timeout_ms: int,
        request_timeout_ms: int,
        no_shared_memory: bool = False,
    ) -> None:
        """Connects; raises DatasystemError."""
    uses_shared_memory: bool
    def close(self) -> None: ...
    def ping(self, timeout_ms: int) -> None: ...
    def stats(self) -> str: ...
    def put(
        self, key: str, value: _BufferProtocol, ttl_seconds: int, only_if_absent: bool,
        write_mode: int,
    ) -> None: ...
    def put_many(
        self, keys: Sequence[str], values: Sequence[_BufferProtocol], ttl_seconds: int,
        only_if_absent: bool, write_mode: int,
    ) -> None: ...
    def create(
        self, keys: Sequence[str], sizes: Sequence[int], ttl_seconds: int,
        only_if_absent: bool, write_mode: int,
    ) -> list[Buffer]: ...
    def seal(self, buffers: Sequence[Buffer]) -> None: ...
    def get(self, keys: Sequence[str], wait_ms: int) -> list[Buffer | None]: ...
    def get_bytes(self, keys: Sequence[str], wait_ms: int) -> list[bytes | None]: ...
    def get_range(self, key: str, offset: int, size: int, wait_ms: int) -> Buffer: ...
    def delete(self, keys: Sequence[str]) -> None: ...
    def exist(self, keys: Sequence[str]) -> list[bool]: ...
    def expire(self, keys: Sequence[str], ttl_seconds: int) -> list[bool]: ...
    def block_create(self, sizes: Sequence[int]) -> tuple[bytes, list[Buffer]]: ...
    def block_seal(self, parts: Sequence[Buffer]) -> None: ...
    def block_get(self, ids: Sequence[bytes], parts: Sequence[int]) -> list[Buffer | None]: ...
    def block_delete(self, ids: Sequence[bytes]) -> None: ...

@final
class QueueConnection:
    """A connection to a transfer_queue_controller (docs/queue_protocol.md)."""

    def __init__(self, address: str, connect_timeout_ms: int) -> None: ...
    def call(self, request: bytes, timeout_ms: int) -> bytes: ...
    def close(self) -> None: ...

def check_key(key: str) -> None:
    """Raises DatasystemError with the text users know if `key` is not a legal user key."""
