"""`dscli stop`: end a worker gracefully, and by force when it does not listen.

A worker in a cluster with others first moves what only it has to one of them; if that
cannot be, it stays.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yr.datasystem.cli._ask import ask_to_leave
from yr.datasystem.cli._config import read_config, read_defaults
from yr.datasystem.cli._output import OK, CommandError, say, warn
from yr.datasystem.cli._processes import (
    Worker,
    end_process,
    find_workers_at,
    wait_until_gone,
)

BASE_TIMEOUT_S = 180
AFTER_KILL_S = 10
AFTER_MOVE_S = 20  # Others hear of it, then it ends by itself.
ASK_TIMEOUT_MS = 5000
ASK_S, TELL_S = 0.2, 1.0
ASK, BEGIN, CANCEL = 0, 1, 2  # enum ds_leave_action


def run(
    address: str | None,
    config_path: str | None,
    *,
    discard: bool,
    timeout_s: int | None,
) -> int:
    config = read_config(Path(config_path)) if config_path else {}
    address = address or config.get("worker_address")
    if not address:
        raise CommandError(
            "Stop failed: worker_address, coordinator_address, or config_path must be "
            "specified"
        )
    worker = _find(address)
    if timeout_s is None:
        timeout_s = round(_timeout_s(worker, config))
    if not discard and _is_in_cluster(worker):
        _move_away(worker, timeout_s)
    if _end(worker, timeout_s):
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


def _is_in_cluster(worker: Worker) -> bool:
    flags = worker.flags
    return bool(flags.get("metastore_address") or flags.get("etcd_address"))


def _move_away(worker: Worker, timeout_s: float) -> None:
    """Returns when nothing is left that only this worker has, or when it is gone."""
    try:
        progress = ask_to_leave(worker.address, BEGIN, ASK_TIMEOUT_MS)
    except CommandError as error:
        raise CommandError(
            f"Stop failed: what only this worker has cannot be moved: {error}; "
            "--discard ends it all the same"
        ) from error
    try:
        progress = _follow(worker, progress, time.monotonic() + timeout_s)
    except BaseException:
        _cancel(worker)
        raise
    if progress["state"] == "staying":
        reason = progress["reason"] or "its process was started again meanwhile"
        raise CommandError(
            f"Stop failed: {reason}. The worker stays, and nothing is lost; --discard "
            "ends it all the same"
        )


def _follow(worker: Worker, progress: dict[str, Any], end: float) -> dict[str, Any]:
    """Tell each second how far it is; what it says at the end.

    Once all is moved the worker waits until the others know, and ends by itself; or it
    stays after all."""
    said = -math.inf
    has_moved = False
    while progress["state"] in ("moving", "moved"):
        now = time.monotonic()
        if progress["state"] == "moved" and not has_moved:
            say(_describe(progress))
            has_moved, end = True, now + AFTER_MOVE_S
        if now >= end:
            raise CommandError(
                f"Stop failed: it takes longer than the timeout "
                f"({_describe(progress)}); the worker stays. Give --timeout more, or "
                "--discard"
            )
        if not has_moved and now >= said + TELL_S:
            say(_describe(progress))
            said = now
        time.sleep(ASK_S)
        try:
            progress = ask_to_leave(worker.address, ASK, ASK_TIMEOUT_MS)
        except CommandError as error:
            if not wait_until_gone(worker.pid, ASK_S):
                raise
            if not has_moved and progress["moved_objects"] < progress["objects"]:
                raise CommandError(
                    "Stop failed: the worker was ended by somebody else while its "
                    f"objects were moved ({_describe(progress)}); the rest is lost"
                ) from error
            return {**progress, "state": "gone"}
    return progress


def _describe(progress: Mapping[str, Any]) -> str:
    moved, total = (
        f"{int(progress[name]) / 1e6:.1f}" for name in ("moved_bytes", "bytes")
    )
    return (
        f"moved {progress['moved_objects']} of {progress['objects']} objects, "
        f"{moved} of {total} MB to {progress['to'] or '...'}"
    )


def _cancel(worker: Worker) -> None:
    try:
        ask_to_leave(worker.address, CANCEL, ASK_TIMEOUT_MS)
    except CommandError as error:
        warn(f"Whether the worker stays is not known: {error}")


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
