"""What the tests of the controller share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from queue_client import (
    Controller,
    FakeWorker,
    QueueClient,
    block_id,
    running_controller,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    private = tmp_path / "queue"
    private.mkdir(mode=0o700)
    return private


@pytest.fixture
def controller(folder: Path) -> Iterator[Controller]:
    with running_controller(folder) as running:
        yield running


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[FakeWorker]:
    fake = FakeWorker(tmp_path / "worker")
    yield fake
    fake.close()


def put(client: QueueClient, keys: list[str], counter: int, *fields: str) -> Any:
    block = [[block_id(counter)], "Yuanrong", list(fields), [64] * len(fields), []]
    return client.call("kv_put", "p", keys, block, None)
