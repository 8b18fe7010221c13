"""Stores of single values by key, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar


class StorageKVClient(ABC):
    """put, get and clear of values by key."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    @abstractmethod
    def put(self, keys: list[str], values: list[Any]) -> list[Any] | None:
        """Store values[i] under keys[i]; returns what get() and clear() ask for."""

    @abstractmethod
    def get(
        self,
        keys: list[str],
        shapes: list[Any] | None = None,
        dtypes: list[Any] | None = None,
        custom_backend_meta: list[Any] | None = None,
    ) -> list[Any]:
        """The values in the order of `keys`; None where there is none."""

    @abstractmethod
    def clear(
        self, keys: list[str], custom_backend_meta: list[Any] | None = None
    ) -> None:
        """Forget the values. Keys that are not there are no error."""


_Client = TypeVar("_Client", bound=type[StorageKVClient])


class StorageClientFactory:
    """Clients by name."""

    _registry: ClassVar[dict[str, type[StorageKVClient]]] = {}

    @classmethod
    def register(cls, name: str) -> Callable[[_Client], _Client]:
        """Class decorator."""

        def add(client: _Client) -> _Client:
            cls._registry[name] = client
            return client

        return add

    @classmethod
    def create(cls, name: str, config: Mapping[str, Any]) -> StorageKVClient:
        if name not in cls._registry:
            raise ValueError(f"Unknown StorageClient: {name}")
        return cls._registry[name](config)
