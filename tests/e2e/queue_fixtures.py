"""What the tests of the controller share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from queue_client import FakeWorker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    private = tmp_path / "queue"
    private.mkdir(mode=0o700)
    return private


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[FakeWorker]:
    fake = FakeWorker(tmp_path / "worker")
    yield fake
    fake.close()
