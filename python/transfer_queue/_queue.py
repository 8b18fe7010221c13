"""The queue's operations over one connection: docs/queue_protocol.md as functions.

A reply that refuses a request becomes the ValueError that users know; a controller that
is gone or does not answer becomes a RuntimeError that names it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from transfer_queue import _tags
from transfer_queue._deadline import Deadline

if TYPE_CHECKING:
    from yr.datasystem import DatasystemError

_log = logging.getLogger("transfer_queue.queue")

# enum ds_status of include/datasystem/status.h, as far as it matters here.
_INVALID, _NOT_FOUND, _TIMEOUT, _NOT_READY, _IO = 1, 2, 5, 6, 7

_CONNECT_TIMEOUT_S = 5.0


class Connection(Protocol):
    """What this module needs of yr.datasystem.QueueConnection."""

    def call(self, request: bytes, timeout_ms: int) -> bytes: ...
    def place(self) -> tuple[str, str]: ...
    def close(self) -> None: ...


OpenConnection = Callable[[str, int], Connection]


class OutcomeUnknownError(RuntimeError):
    """No answer came: the request may have taken effect or not."""


@dataclass(frozen=True, slots=True)
class BlocksRef:
    """The stored blocks of one put as the controller records them.

    field_bytes  sizes of the first block's columns, then of the second's
    firsts       positions of the first rows of all blocks but the first
    """

    block_ids: Sequence[bytes]
    backend: str
    field_names: Sequence[str]
    field_bytes: Sequence[int]
    firsts: Sequence[int]

    def to_wire(self) -> list[Any]:
        return [
            list(self.block_ids),
            self.backend,
            list(self.field_names),
            list(self.field_bytes),
            list(self.firsts),
        ]


@dataclass(frozen=True, slots=True)
class PutReply:
    """`dead` are blocks that the caller has to delete."""

    tags: list[dict[str, Any]]
    field_names: list[str]
    dead: list[bytes]


@dataclass(frozen=True, slots=True)
class GetReply:
    """`found` has the positions of keys that exist; None means all of them."""

    found: list[int] | None
    field_names: list[str]
    groups: list[Any]


def open_queue_connection(
    address: str,
    connect_timeout_ms: int,
    worker: tuple[str, int] | None = None,
    secret: bytes | None = None,
    name: str | None = None,
) -> Connection:
    """The real connection, over libdatasystem. `worker` (host, port) is asked where the
    queue is now when nobody is at its address any more, at first only if its `name` is
    given. `secret` makes the key that is proven to a controller at a TCP address."""
    from yr.datasystem import QueueConnection

    host, port = worker or (None, 0)
    return QueueConnection(address, connect_timeout_ms, host, port, secret, name)


class QueueClient:
    """Typed requests to the controller at `address`. Connects on first use.

    Safe from any thread. After a fork, the child connects anew and leaves the parent's
    connection untouched.
    """

    def __init__(
        self, address: str, open_connection: OpenConnection = open_queue_connection
    ) -> None:
        self.address = address
        self._open_connection = open_connection
        self._connection: Connection | None = None
        self._start_afresh()

    def kv_put(
        self,
        partition_id: str,
        keys: Sequence[str],
        blocks: BlocksRef | None,
        tags: Sequence[Mapping[str, Any] | None] | None,
        deadline: Deadline,
    ) -> PutReply:
        wire_blocks = None if blocks is None else blocks.to_wire()
        wire_tags = None if tags is None else _tags.to_wire(tags)
        reply = self._call(
            ["kv_put", partition_id, list(keys), wire_blocks, wire_tags], deadline
        )
        return PutReply(*reply)

    def kv_get(
        self,
        partition_id: str,
        keys: Sequence[str],
        select: Sequence[str] | None,
        deadline: Deadline,
    ) -> GetReply:
        wanted = None if select is None else list(select)
        reply = self._call(["kv_get", partition_id, list(keys), wanted], deadline)
        return GetReply(*reply)

    def kv_list(
        self, partition_id: str | None, deadline: Deadline
    ) -> dict[str, dict[str, dict[str, Any]]]:
        reply: dict[str, dict[str, dict[str, Any]]]
        reply = self._call(["kv_list", partition_id], deadline)
        return reply

    def kv_clear(
        self, partition_id: str, keys: Sequence[str], deadline: Deadline
    ) -> list[bytes]:
        dead: list[bytes]
        (dead,) = self._call(["kv_clear", partition_id, list(keys)], deadline)
        return dead

    def kv_move(
        self,
        partition_id: str,
        keys: Sequence[str],
        block: BlocksRef,
        source: bytes,
        deadline: Deadline,
    ) -> list[bytes]:
        """The rows' cells in block `source` are in `block` from now on. Returns blocks
        that the caller has to delete; ValueError when nothing is there to be moved."""
        dead: list[bytes]
        (dead,) = self._call(
            ["kv_move", partition_id, list(keys), block.to_wire(), source], deadline
        )
        return dead

    def sparse_blocks(
        self, wanted_bytes: int, backend: str, deadline: Deadline
    ) -> list[list[Any]]:
        """Live rows of blocks of which most is dead (docs/queue_protocol.md)."""
        groups: list[list[Any]]
        groups = self._call(["sparse_blocks", wanted_bytes, backend], deadline)
        return groups

    def config_set(self, config: bytes, deadline: Deadline) -> None:
        self._call(["config_set", config], deadline)

    def config_get(self, wait_s: float, deadline: Deadline) -> bytes | None:
        config: bytes | None
        config = self._call(["config_get", int(wait_s * 1000)], deadline)
        return config

    def stats(self, deadline: Deadline) -> dict[str, Any]:
        stats: dict[str, Any] = self._call(["stats"], deadline)
        return stats

    def shutdown(self, deadline: Deadline) -> None:
        """Ask the controller to forget everything and end."""
        self._call(["shutdown"], deadline)

    def place(self, deadline: Deadline) -> tuple[str, str | None]:
        """The queue's name, perhaps '', and where processes on other nodes reach it;
        None: nowhere."""
        from yr.datasystem import DatasystemError

        try:
            name, tcp_address = self._connected(deadline).place()
            return name, tcp_address or None
        except DatasystemError as error:
            raise self._translate(error, "HELLO") from error

    def close(self) -> None:
        """Idempotent; a later call would connect again."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None and self._pid == os.getpid():
            connection.close()

    def _call(self, request: list[Any], deadline: Deadline) -> Any:
        from yr.datasystem import DatasystemError

        body = _encode(request)
        try:
            reply = self._connected(deadline).call(body, deadline.remaining_ms)
        except DatasystemError as error:
            raise self._translate(error, str(request[0])) from error
        return _decoder.decode(reply)

    def _connected(self, deadline: Deadline) -> Connection:
        if self._pid != os.getpid():
            self._inherited = (
                self._connection
            )  # Kept: its end is the parent's business.
            self._start_afresh()
        with self._lock:
            if self._connection is None:
                wait_s = min(_CONNECT_TIMEOUT_S, deadline.remaining_s)
                wait_ms = max(1, int(wait_s * 1000))
                self._connection = self._open_connection(self.address, wait_ms)
            return self._connection

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection = None

    def _translate(self, error: DatasystemError, operation: str) -> Exception:
        if error.status in (_INVALID, _NOT_FOUND, _NOT_READY):
            return ValueError(error.message)
        if error.status == _TIMEOUT:
            return OutcomeUnknownError(
                f"the TransferQueue controller at {self.address} did not answer "
                f"{operation} in time: {error.message}. It may have taken effect; "
                "controller.timeout_s in the configuration sets the limit."
            )
        if error.status == _IO:
            return OutcomeUnknownError(
                f"the TransferQueue controller at {self.address} cannot be reached "
                f"({operation}): {error.message}. If it has ended, call tq.close() and "
                "then tq.init() again."
            )
        return error


def _encode(request: list[Any]) -> bytes:
    try:
        return _encoder.encode(request)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"keys, partitions and tags must be text that UTF-8 can carry: {error}"
        ) from error


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ext_hook=_tags.ext_hook)
