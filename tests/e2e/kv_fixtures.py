"""What the tests of KVClient share: one worker per module, a client per test."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from worker_process import WorkerProcess, running_worker

from yr.datasystem import (
    KVClient,
)

MB = 1 << 20
ARENA_MB = 64


@pytest.fixture(scope="module")
def kv_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    home = tmp_path_factory.mktemp("worker")
    with running_worker(home, shared_memory_size_mb=ARENA_MB) as worker:
        yield worker


@pytest.fixture
def client(kv_worker: WorkerProcess) -> Iterator[KVClient]:
    with KVClient(kv_worker.host, kv_worker.port, connect_timeout_ms=5000) as client:
        yield client


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A legal key of the test's own."""
    return str(request.node.name).partition("[")[0]


def run_python(code: str, worker: WorkerProcess) -> subprocess.CompletedProcess[str]:
    """`code` in an interpreter of its own, with `client` connected to the worker."""
    start = (
        "import os, signal, sys, threading, time\n"
        "from yr.datasystem import KVClient, DatasystemError\n"
        f"client = KVClient({worker.host!r}, {worker.port})\n"
        "client.init()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
