"""`dscli stop`: end a worker gracefully, and by force when it does not listen."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

from yr.datasystem.cli._config import read_config, read_defaults
from yr.datasystem.cli._output import OK, CommandError, say
from yr.datasystem.cli._processes import (
    Worker,
    end_process,
    find_workers_at,
    wait_until_gone,
)

BASE_TIMEOUT_S = 180
AFTER_KILL_S = 10


def run(address: str | None, config_path: str | None) -> int:
    config = read_config(Path(config_path)) if config_path else {}
    address = address or config.get("worker_address")
    if not address:
        raise CommandError(
            "Stop failed: worker_address, coordinator_address, or config_path must be "
            "specified"
        )
    worker = _find(address)
    if _end(worker, _timeout_s(worker, config)):
        text = f"Stop worker service @ {address} normally, PID: {worker.pid}"
    else:
        text = f"Force stop worker service @ {address}, PID: {worker.pid}"
    say(f"{OK} {text}")
    return 0


def _find(address: str) -> Worker:
    workers = find_workers_at(address)
    if not workers:
        raise CommandError(
            f"Stop failed: No matching process found for worker_address={address} "
            "(`dscli status` lists the workers of this user)"
        )
    if len(workers) > 1:
        pids = ", ".join(str(worker.pid) for worker in workers)
        raise CommandError(
            f"Stop failed: Multiple matching processes found for {address}: PIDs "
            f"{pids}; stop the right one with `kill PID`"
        )
    return workers[0]


def _timeout_s(worker: Worker, config: Mapping[str, str]) -> float:
    """Time to move its data away at the rate it may."""
    flags = {**read_defaults(), **config, **worker.flags}
    try:
        size_mb = float(flags["shared_memory_size_mb"])
        rate_mb = float(flags["data_migrate_rate_limit_mb"])
        return BASE_TIMEOUT_S + size_mb / rate_mb
    except (ValueError, ZeroDivisionError):
        return BASE_TIMEOUT_S + 1024 / 40


def _end(worker: Worker, timeout_s: float) -> bool:
    """True when it ended by itself. Both processes are gone when this returns."""
    try:
        gracefully = end_process(worker.pid, signal.SIGTERM, timeout_s)
        if not gracefully and not end_process(worker.pid, signal.SIGKILL, AFTER_KILL_S):
            raise CommandError(
                f"Stop failed: PID {worker.pid} does not end, even by SIGKILL"
            )
    except PermissionError as error:
        raise CommandError(
            f"Stop failed: no permission to signal PID {worker.pid}"
        ) from error
    if worker.child_pid is not None:
        wait_until_gone(worker.child_pid, AFTER_KILL_S)
    return gracefully
