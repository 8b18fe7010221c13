"""Where the queue's data lives: managers of blocks and clients of single values."""

from __future__ import annotations

from transfer_queue.storage.clients import YuanrongStorageClient
from transfer_queue.storage.managers import (
    StorageManager,
    StorageManagerFactory,
    YuanrongStorageManager,
)

__all__ = [
    "StorageManager",
    "StorageManagerFactory",
    "YuanrongStorageClient",
    "YuanrongStorageManager",
]
