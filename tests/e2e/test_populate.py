"""The arena is backed with memory in the background, and nobody's work suffers."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
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


@pytest.mark.skipif(
    tuple(map(int, platform.release().split("-")[0].split(".")[:2])) < (6, 1),
    reason="this kernel has no MADV_COLLAPSE (Linux 6.1)",
)
def test_transparent_huge_pages_come_in_the_background(tmp_path: Path) -> None:
    """While a client writes and reads; also after the worker was killed."""
    log = tmp_path / "logs" / "datasystem_worker.log"
    with running_worker(
        tmp_path, "--enable_thp=true", shared_memory_size_mb=128
    ) as worker:
        client = BlockClient(worker.host, worker.port, 5000, 5000)
        value = bytes(range(256)) * 40_000
        blocks = []
        end = time.monotonic() + 60
        while "thp done" not in (said := log.read_text()):
            assert "thp stopped" not in said, said
            assert time.monotonic() < end
            if len(blocks) == 8:
                client.block_delete([blocks.pop(0)])
            (part,) = client.block_create([len(value)])
            memoryview(part)[:] = value
            blocks.append(client.block_seal([part]))
            for found in client.block_get(blocks, [0] * len(blocks)):
                assert bytes(memoryview(found)) == value
        worker.kill_child()
        for found in client.block_get(blocks, [0] * len(blocks)):
            assert bytes(memoryview(found)) == value
        client.close()
