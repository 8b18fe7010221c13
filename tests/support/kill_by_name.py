"""A program: start a worker and kill it by its name, again and again.

    kill_by_name.py FOLDER RUNS

It must be in a PID namespace of its own: `pkill` ends every worker that it can see, and
what is left is every process but this one. Its own command line must not name the
worker. Every run has the same home and port, so that a lock, a socket or a process left
over would stop the next one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from worker_process import WorkerProcess

PROMISE_S = 0.1
PATIENCE_S = 2.0  # For a machine that is busy with other tests.


def others() -> dict[int, str]:
    """Every other process that has not ended, with its command."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if int(folder.name) != os.getpid() and state not in "ZX":
                found[int(folder.name)] = (folder / "cmdline").read_text()
    return found


def reap() -> None:
    """This is the namespace's first process: orphans become its children."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass


def run_once(worker: WorkerProcess) -> None:
    worker.start()
    assert len(others()) == 2, f"not a supervisor and its child: {others()}"
    subprocess.run(["pkill", "-9", "-f", "datasystem_worker"], check=True)
    time.sleep(PROMISE_S)
    end = time.monotonic() + PATIENCE_S
    while others() and time.monotonic() < end:
        time.sleep(PROMISE_S / 10)
    assert others() == {}, f"pkill left {others()}"
    worker.stop()
    reap()
    (worker.home / "ready").unlink()  # A killed worker cannot take it away.


def main(folder: str, runs: str) -> None:
    assert os.getpid() == 1, "this needs a PID namespace of its own"
    worker = WorkerProcess(Path(folder), shared_memory_size_mb=64)
    for _ in range(int(runs)):
        run_once(worker)
    print(f"{runs} workers ended for good")


if __name__ == "__main__":
    main(*sys.argv[1:])
