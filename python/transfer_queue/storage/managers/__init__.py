"""The backends that hold blocks."""

from __future__ import annotations

from transfer_queue.storage.managers.base import StorageManager, StorageManagerFactory
from transfer_queue.storage.managers.yuanrong_manager import YuanrongStorageManager

__all__ = ["StorageManager", "StorageManagerFactory", "YuanrongStorageManager"]
