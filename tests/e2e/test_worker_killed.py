"""The worker is killed under load: nothing is lost, comes back or hangs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from worker_process import WorkerProcess, running_worker

from yr.datasystem import BlockClient, KVClient

LOAD = Path(__file__).parents[1] / "support" / "store_load.py"
CLIENTS = 4
KILLS = 3  # The supervisor gives up after five within a minute.


def stats_of(worker: WorkerProcess) -> dict[str, Any]:
    """What the worker tells about itself."""
    client = BlockClient(worker.host, worker.port, 5000, 5000)
    stats: dict[str, Any] = json.loads(client.stats())
    client.close()
    return stats


def start_load(worker: WorkerProcess, seed: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        str(LOAD),
        worker.host,
        str(worker.port),
        "12",
        str(seed),
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def test_objects_survive_kills_of_the_worker_under_load(tmp_path: Path) -> None:
    with running_worker(tmp_path, shared_memory_size_mb=640) as worker:
        loads = [start_load(worker, seed) for seed in range(CLIENTS)]
        for _ in range(KILLS):
            time.sleep(3)
            worker.kill_child()
        for load in loads:
            out, err = load.communicate(timeout=120)
            assert load.returncode == 0, err
            assert json.loads(out)["operations"] > 100
        stats = stats_of(worker)
        assert stats["restarts"] == KILLS
        assert stats["objects_unsealed"] == 0
        assert stats["objects_deleted_but_held"] == 0


def test_new_work_is_accepted_soon_after_a_kill(tmp_path: Path) -> None:
    with (
        running_worker(tmp_path, shared_memory_size_mb=64) as worker,
        KVClient(worker.host, worker.port) as client,
    ):
        client.set("before", b"v" * 100_000)
        worker.kill_child()
        begin = time.monotonic()
        client.set("after", b"w")
        with KVClient(worker.host, worker.port) as newcomer:
            assert newcomer.get(["before"]) == [b"v" * 100_000]
        assert time.monotonic() - begin < 5  # Promised: within 1 s.


def test_a_client_killed_in_a_put_leaves_nothing_reserved(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from yr.datasystem import KVClient\n"
        "client = KVClient(sys.argv[1], int(sys.argv[2]))\n"
        "client.init()\n"
        "buffers = client.mcreate(['half'], [20 << 20])\n"
        "buffers[0].MutableData()[:100] = b'x' * 100\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with running_worker(tmp_path, shared_memory_size_mb=64) as worker:
        command = [sys.executable, "-c", code, worker.host, str(worker.port)]
        assert subprocess.run(command, timeout=30).returncode == -signal.SIGKILL
        deadline = time.monotonic() + 5  # Promised: within 1 s of its death.
        while stats_of(worker)["memory_used_bytes"] > 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with KVClient(worker.host, worker.port) as client:
            assert client.exist(["half"]) == [False]
