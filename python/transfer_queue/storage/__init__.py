"""Where the queue's data lives: managers of blocks and clients of single values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer_queue.storage.managers import (
    StorageManager,
    StorageManagerFactory,
    YuanrongStorageManager,
)

if TYPE_CHECKING:
    from transfer_queue.storage.clients import YuanrongStorageClient

__all__ = [
    "StorageManager",
    "StorageManagerFactory",
    "YuanrongStorageClient",
    "YuanrongStorageManager",
]


def __getattr__(name: str) -> object:
    if name == "YuanrongStorageClient":  # With torch, which init() does not need.
        from transfer_queue.storage.clients import YuanrongStorageClient

        return YuanrongStorageClient
    raise AttributeError(f"module 'transfer_queue.storage' has no attribute {name!r}")
