"""Fixtures of the tests that need no other process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fake_blocks import FakeStore
from fake_queue import FakeQueue


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def tq(
    queue: FakeQueue, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[object]:
    """transfer_queue, attached to the fake queue and the fake store."""
    import transfer_queue
    from transfer_queue import interface
    from transfer_queue._queue import QueueClient
    from transfer_queue.client import TransferQueueClient
    from transfer_queue.storage.managers import YuanrongStorageManager

    client = TransferQueueClient("test", QueueClient("unix:/nowhere", queue.open), 5.0)
    section = {"worker_port": 31501, "host": "127.0.0.1"}
    manager = YuanrongStorageManager("unix:/nowhere", section, store.open)
    client.use_storage_manager("Yuanrong", manager)
    monkeypatch.setattr(interface, "_TQ_CLIENT", client)
    yield transfer_queue
    transfer_queue.close()
