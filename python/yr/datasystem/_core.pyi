"""The C extension over libdatasystem; its contract is datasystem/datasystem.h.

Every call that may block or copy much runs without the GIL, ends within its timeout,
and reacts to a signal such as Ctrl-C within 100 ms. All classes are safe to use from
any thread. Integers that do not fit raise OverflowError, other wrong types TypeError,
everything else DatasystemError.
"""

from collections.abc import Sequence
from typing import final

from typing_extensions import Buffer as _BufferProtocol

__version__: str

# enum ds_status, as far as our own Python acts on it.
INVALID: int
NOT_FOUND: int
FULL: int
NOT_READY: int
CORRUPT: int

class DatasystemError(RuntimeError):
    """What the library answered; str() is ``code: [<name>], msg: [<message>]``."""

    def __init__(self, status: int, message: str) -> None: ...
    @property
    def status(self) -> int:
        """enum ds_status"""
    @property
    def code(self) -> int:
        """The number that users know, e.g. 3 for "Key not found"."""
    @property
    def message(self) -> str: ...

@final
class Buffer:
    """Bytes in shared memory; exports the buffer protocol (writable until sealed).

    An exported view keeps the object's bytes alive and unmoved, also after release()
    and after the client's close().
    """

    @property
    def size(self) -> int: ...
    @property
    def sealed(self) -> bool: ...
    def release(self) -> None:
        """Give the bytes up as soon as no exported view is left. Idempotent."""
    def view(self) -> PrivateView | None:
        """A private writable mapping, or None where there can be none: copy instead."""
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

    # The names of the existing SDK's buffers. Published bytes never change, so latches
    # have nothing to wait for.
    def MutableData(self) -> memoryview: ...
    def memory_copy(self, value: _BufferProtocol | str, /) -> None:
        """Fill the bytes, or the first of them. Faster than a slice of MutableData()
        for large values, and other threads run meanwhile."""
    def ImmutableData(
        self, with_latch: bool = False, timeout_s: int = 60
    ) -> memoryview: ...
    def GetSize(self) -> int: ...
    def RLatch(self, timeout_s: int = 60) -> None: ...
    def UnRLatch(self) -> None: ...

@final
class PrivateView:
    """A copy-on-write mapping of a sealed Buffer; exports a writable buffer.

    It is unmapped when the last view of it is gone.
    """

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

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
        room_wait_ms: int = 0,
        verify: bool = False,
        queue: str | None = None,
    ) -> None:
        """Connects. An empty host or port 0 is the environment's.

        create() and block_create() wait up to `room_wait_ms` when there is no room.
        verify: compare checksums of what is in shared memory on every get, too.
        queue: name of the queue that blocks made here are for.
        """
    @property
    def uses_shared_memory(self) -> bool: ...
    def close(self) -> None:
        """End the connection and every call that waits in it. Idempotent."""
    def ping(self, timeout_ms: int) -> None: ...
    def stats(self) -> str: ...
    def holders(self) -> str:
        """Who keeps room from being free, most first: a JSON array."""

    def members(self) -> str:
        """Who belongs to the cluster, asked of the metastore: a JSON object."""
    def leave(self, action: int, /) -> str:
        """Let the worker leave its cluster (1), stay (2), or tell how far it is (0)."""
    def put(
        self,
        key: str,
        value: _BufferProtocol | str,
        ttl_seconds: int,
        only_if_absent: bool,
        write_mode: int,
    ) -> None: ...
    def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[_BufferProtocol | str],
        ttl_seconds: int,
        only_if_absent: bool,
        write_mode: int,
    ) -> None:
        """All bytes of each value, whatever its item size and layout in memory."""
    def create(
        self,
        keys: Sequence[str],
        sizes: Sequence[int],
        ttl_seconds: int,
        only_if_absent: bool,
        write_mode: int,
    ) -> list[Buffer]: ...
    def seal(self, buffers: Sequence[Buffer]) -> None: ...
    def get(self, keys: Sequence[str], wait_ms: int) -> list[Buffer | None]: ...
    def get_bytes(self, keys: Sequence[str], wait_ms: int) -> list[bytes | None]: ...
    def get_range(self, key: str, offset: int, size: int, wait_ms: int) -> Buffer: ...
    def delete(self, keys: Sequence[str]) -> None: ...
    def exist(self, keys: Sequence[str]) -> list[bool]: ...
    def expire(self, keys: Sequence[str], ttl_seconds: int) -> list[bool]: ...
    def block_create(self, sizes: Sequence[int]) -> list[Buffer]: ...
    def blocks_create(
        self, sizes: Sequence[int], counts: Sequence[int], room_wait_ms: int
    ) -> list[Buffer]:
        """Reserve the blocks of one put, all or none; waits so long for room.

        Block i has counts[i] parts; `sizes` and the result are those of the first
        block, then of the second, up to 10,000. Each block is sealed by itself.
        """
    def block_seal(self, parts: Sequence[Buffer]) -> bytes: ...
    def block_get(
        self, ids: Sequence[bytes], parts: Sequence[int]
    ) -> list[Buffer | None]: ...
    def block_delete(self, ids: Sequence[bytes]) -> None: ...

@final
class QueueConnection:
    """A connection to a transfer_queue_controller (docs/queue_protocol.md)."""

    def __init__(
        self,
        address: str,
        connect_timeout_ms: int,
        worker_host: str | None = None,
        worker_port: int = 0,
        auth_secret: bytes | None = None,
        name: str | None = None,
    ) -> None:
        """A queue of that name is found also where another controller has gone on with
        it; None: any queue at `address`."""
    def call(self, request: _BufferProtocol, timeout_ms: int) -> bytes: ...
    def place(self) -> tuple[str, str]:
        """The queue's name, and where other nodes reach it, as its controller said
        last; '': none, nowhere."""

    def close(self) -> None:
        """End the connection and every call that waits in it. Idempotent."""

_Memory = object  # With the buffer protocol; numpy's arrays tell so from 3.12 on only.

# Rows of one block: data, where they begin there, their bytes; row offsets or None,
# where they begin; units of a row where there are no offsets.
_Source = tuple[_Memory, int, int, _Memory | None, int, int]

# One source per block (None for unused ones), bytes of a unit, what offsets() filled in
# or None, and the place of the result: memory, where to begin there, how many bytes.
_GatheredColumn = tuple[list[_Source | None], int, _Memory | None, _Memory, int, int]

@final
class RowRuns:
    """Rows of a result: runs of rows of blocks. Its columns are put together here.

    What lies in shared memory is not trusted: DatasystemError CORRUPT for offsets that
    are damaged, INVALID for what does not fit together otherwise.
    """

    def __init__(self, runs: Sequence[int], block_rows: Sequence[int]) -> None:
        """`runs` are flat triples: index of a block, first row, number of rows."""
    @property
    def rows(self) -> int: ...
    @property
    def is_whole(self) -> bool:
        """Whether they are one block as it is."""
    @property
    def used(self) -> list[int]:
        """The blocks that runs name, ascending."""
    def offsets(
        self, sources: list[_Source | None], unit_bytes: int, out: _Memory, /
    ) -> tuple[int, int]:
        """Fill in (int64) where each row of a column begins, in units, and where the
        last one ends. Answers with the units of its shortest and its longest row."""
    def copy(self, columns: list[_GatheredColumn], /) -> None:
        """Copy the rows of columns into place; other threads run meanwhile."""

def check_key(key: str) -> None:
    """Raises DatasystemError if `key` is not a legal user key."""

def key_position(key: bytes) -> int:
    """Where a key lies on the ring of positions, 0 to 2**32 - 1, that nodes share."""

def copy_bytes(target: _BufferProtocol, source: _BufferProtocol, /) -> None:
    """Copy the bytes of one contiguous buffer over those of another of the same size.

    As a slice assignment of memoryviews, but other threads run meanwhile, and from
    8 MiB up the copy bypasses the caches, which makes it up to 1.7 times as fast.
    """

def copy_pieces(pieces: Sequence[tuple[_Memory, int, Sequence[_Memory]]], /) -> None:
    """For each (target, start, sources): the bytes of the sources, one after the other,
    to target[start:]. Other threads run meanwhile. Nothing is copied where one piece
    does not fit: DatasystemError."""

def set_trace_id(trace_id: str) -> None:
    """Name the calls that follow in this thread; at most 36 bytes of ASCII."""
