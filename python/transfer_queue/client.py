"""The client of a process: one connection to the controller, one to the store."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transfer_queue import _kv
from transfer_queue._deadline import Deadline
from transfer_queue._pool import run_in_pool
from transfer_queue._queue import QueueClient
from transfer_queue.metadata import KVBatchMeta
from transfer_queue.storage.managers.base import StorageManager, StorageManagerFactory

if TYPE_CHECKING:
    from tensordict import TensorDict

_log = logging.getLogger("transfer_queue.client")

_PING_TIMEOUT_S = 5.0
_END_TIMEOUT_S = 5.0


class TransferQueueClient:
    """What init() makes for a process; get_client() returns it.

    Safe from any number of threads and event loops, and in forked children, which get
    connections of their own on first use. Every call ends within `timeout_s`.
    """

    def __init__(
        self,
        client_id: str,
        controller_info: str | QueueClient,
        timeout_s: float = 60.0,
    ) -> None:
        if controller_info is None:
            raise ValueError("controller_info cannot be None")
        if isinstance(controller_info, str):
            controller_info = QueueClient(controller_info)
        if not isinstance(controller_info, QueueClient):
            raise TypeError(
                "controller_info must be the address of a controller, such as "
                f"'unix:/path/to/socket', not {type(controller_info).__name__}"
            )
        self.client_id = client_id
        self._queue = controller_info
        self._timeout_s = timeout_s
        self._backend: _kv.Backend | None = None

    @property
    def controller_address(self) -> str:
        return self._queue.address

    @property
    def storage_manager(self) -> StorageManager:
        return self._require_backend().manager

    def initialize_storage_manager(
        self, manager_type: str, config: Mapping[str, Any]
    ) -> None:
        """Choose the backend by its registered name."""
        manager = StorageManagerFactory.create(
            manager_type, self.controller_address, config
        )
        self.use_storage_manager(manager_type, manager)

    def use_storage_manager(self, name: str, manager: StorageManager) -> None:
        """Use a manager that exists already."""
        self._backend = _kv.Backend(name, manager)

    def put_rows(
        self,
        keys: Sequence[str],
        partition_id: str,
        fields: TensorDict | None,
        tags: Sequence[Mapping[str, Any] | None] | None,
    ) -> KVBatchMeta:
        """Store `fields` and merge `tags` for rows by key; arguments are checked."""
        merged, names = _kv.put_rows(
            self._queue,
            self._require_backend(),
            partition_id,
            keys,
            fields,
            tags,
            Deadline.after(self._timeout_s),
        )
        return KVBatchMeta.taken(list(keys), merged, partition_id, names)

    def get_rows(
        self, keys: Sequence[str], partition_id: str, select: Sequence[str] | None
    ) -> TensorDict:
        """The rows that exist, in the order of `keys`."""
        return _kv.get_rows(
            self._queue,
            self._require_backend(),
            partition_id,
            keys,
            select,
            Deadline.after(self._timeout_s),
        )

    def clear_rows(self, keys: Sequence[str], partition_id: str) -> None:
        """Forget rows; unknown ones are no error."""
        _kv.clear_rows(
            self._queue,
            self._require_backend(),
            partition_id,
            keys,
            Deadline.after(self._timeout_s),
        )

    def kv_list(
        self, partition_id: str | None = None
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Partition -> key -> tags; all partitions for None."""
        return self._queue.kv_list(partition_id, Deadline.after(self._timeout_s))

    async def async_kv_list(
        self, partition_id: str | None = None
    ) -> dict[str, dict[str, dict[str, Any]]]:
        return await run_in_pool(lambda: self.kv_list(partition_id))

    def ping(self) -> None:
        """RuntimeError when the controller does not answer."""
        self._queue.stats(Deadline.after(min(_PING_TIMEOUT_S, self._timeout_s)))

    def end_queue_elsewhere(self) -> None:
        """End a controller that has gone on with the queue on another node; one that is
        where it was started is ended by who started it. Does not raise."""
        if not _listens(self.controller_address):
            with contextlib.suppress(Exception):
                self._queue.shutdown(Deadline.after(_END_TIMEOUT_S))

    def close(self) -> None:
        """Let go of this process's connections; the queue lives on. Idempotent."""
        self._queue.close()
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.manager.close()

    def _require_backend(self) -> _kv.Backend:
        if self._backend is None:
            raise RuntimeError("Storage manager not initialized")
        return self._backend


def _listens(address: str) -> bool:
    """Somebody is at this Unix socket."""
    kind, _, path = address.partition(":")
    if kind != "unix":
        return False
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.settimeout(_END_TIMEOUT_S)
        probe.connect(path)
        return True
    return False
