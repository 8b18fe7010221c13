"""The arena is backed with memory in the background, and nobody's work suffers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from e2e import wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from worker_process import WorkerProcess, running_worker

from yr.datasystem import BlockClient

BUSY = "while True: pass"


def processor_seconds(pid: int) -> float:
    """Of all threads, since they began."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    spent = [(task / "schedstat").read_text().split()[0] for task in tasks]
    return sum(map(int, spent)) / 1e9


def populated_bytes(worker: WorkerProcess) -> int:
    client = BlockClient(worker.host, worker.port, 5000, 5000)
    stats = json.loads(client.stats())
    client.close()
    return int(stats["memory_populated_bytes"])


def test_it_takes_little_of_a_core_beside_work(tmp_path: Path) -> None:
    """A tenth is promised; all that the worker does is counted, against three times."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        with running_worker(tmp_path, shared_memory_size_mb=2048) as worker:
            before = populated_bytes(worker)
            begin, spent = time.monotonic(), processor_seconds(worker.child_pid())
            wait_until(lambda: time.monotonic() > begin + 3, 10)
            spent = processor_seconds(worker.child_pid()) - spent
            assert spent < 0.3 * (time.monotonic() - begin)
            assert before < populated_bytes(worker) < 2048 << 20
    finally:
        for process in busy:
            process.kill()
            process.wait()
