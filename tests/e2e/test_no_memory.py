"""The extension when Python has no memory: a MemoryError, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from e2e import wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from worker_process import running_worker

from yr.datasystem import BlockClient

PROGRAM = Path(__file__).parents[1] / "support" / "no_memory.py"


def test_every_allocation_that_fails_is_a_memory_error(tmp_path: Path) -> None:
    pytest.importorskip("_testcapi", reason="this Python has no way to let them fail")
    with running_worker(tmp_path) as worker:
        done = subprocess.run(
            [sys.executable, PROGRAM, worker.host, str(worker.port)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        failed = dict(line.split() for line in done.stdout.splitlines())
        assert len(failed) == 9
        assert all(int(count) > 1 for count in failed.values()), failed
        client = BlockClient(worker.host, worker.port, 5000, 5000)

        def is_clean() -> bool:
            """Blocks that were never put into a queue, and nobody's any more."""
            stats = json.loads(client.stats())
            names = ("pins", "objects_unsealed", "objects_deleted_but_held")
            return all(stats[name] == 0 for name in names)

        wait_until(is_clean, 20)
        client.close()
