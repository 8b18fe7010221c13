"""Clients of single values by key."""

from __future__ import annotations

from transfer_queue.storage.clients.base import StorageClientFactory, StorageKVClient
from transfer_queue.storage.clients.yuanrong_client import YuanrongStorageClient

__all__ = ["StorageClientFactory", "StorageKVClient", "YuanrongStorageClient"]
