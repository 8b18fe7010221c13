"""The interface of a storage backend, three calls, and the registry of backends.

A put writes one immutable block; what the queue remembers of it is its id and the name
of the backend that stored it. To plug in a backend of your own:

    @StorageManagerFactory.register("MyStore")
    class MyStorageManager(StorageManager):
        def put(self, block): ...
        def get(self, ids, parts): ...
        def delete(self, ids): ...

and set ``backend.storage_backend: MyStore``; ``backend.MyStore`` is then its `config`.
Every process that reads the data has to import the module that registers it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

Part = Any  # An object with the buffer protocol.


class Block(Protocol):
    """What a put hands to a backend: columns laid out in parts."""

    @property
    def part_sizes(self) -> Sequence[int]:
        """Bytes of each part, each at least 1."""

    def write_into(self, parts: Sequence[Part]) -> None:
        """Fill writable memory of exactly those sizes: a buffer for each part."""


class StorageManager(ABC):
    """Holds blocks. All calls may come from any thread at the same time."""

    # Larger blocks are split along their rows before put() sees them.
    block_bytes_max: int = 1 << 62

    # So long a put waits for room.
    put_wait_s: float = 0.0

    def __init__(self, controller_info: Any, config: Mapping[str, Any]) -> None:
        self.controller_info = controller_info
        self.config = dict(config)

    @abstractmethod
    def put(self, block: Block) -> bytes:
        """Store `block` and return its id of 16 bytes. On failure nothing is kept."""

    def put_all(
        self, blocks: Sequence[Block], wait_s: float | None = None
    ) -> list[bytes]:
        """Store all blocks of one put, in order, or none of them.

        A backend that can wait for room does so for `wait_s`, by default `put_wait_s`.
        """
        with self._all_or_none() as ids:
            for block in blocks:
                ids.append(self.put(block))
        return ids

    @contextlib.contextmanager
    def _all_or_none(self) -> Iterator[list[bytes]]:
        """A list for ids: if the caller fails, the blocks in it are deleted."""
        ids: list[bytes] = []
        try:
            yield ids
        except BaseException:
            if ids:
                with contextlib.suppress(RuntimeError):  # The first error counts.
                    self.delete(ids)
            raise

    @abstractmethod
    def get(self, ids: Sequence[bytes], parts: Sequence[int]) -> list[Part | None]:
        """Part parts[i] of block ids[i] as an object that exports its bytes.

        None where the block is gone: the caller then asks the queue again.
        """

    @abstractmethod
    def delete(self, ids: Sequence[bytes]) -> None:
        """Forget whole blocks. One that is gone already is no error."""

    def connect(self) -> None:
        """Reach the store now, so that a wrong configuration shows early. Optional."""
        return

    def close(self) -> None:
        """Let go of this process's connection; the data stays. Idempotent."""
        return


_Manager = TypeVar("_Manager", bound=type[StorageManager])


class StorageManagerFactory:
    """Backends by the name that ``backend.storage_backend`` gives."""

    _registry: ClassVar[dict[str, type[StorageManager]]] = {}

    @classmethod
    def register(cls, name: str) -> Callable[[_Manager], _Manager]:
        """Class decorator."""

        def add(manager: _Manager) -> _Manager:
            if not (isinstance(manager, type) and issubclass(manager, StorageManager)):
                raise TypeError(
                    f"{manager!r} cannot be registered as '{name}': it is not a "
                    "subclass of StorageManager"
                )
            cls._registry[name] = manager
            return manager

        return add

    @classmethod
    def check_known(cls, manager_type: str) -> None:
        if manager_type not in cls._registry:
            raise AssertionError(
                f"Unknown manager_type: {manager_type}. "
                f"Supported managers include: {sorted(cls._registry)}"
            )

    @classmethod
    def create(
        cls, manager_type: str, controller_info: Any, config: Mapping[str, Any]
    ) -> StorageManager:
        cls.check_known(manager_type)
        return cls._registry[manager_type](controller_info, config)
