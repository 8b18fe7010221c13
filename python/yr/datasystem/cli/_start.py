"""`dscli start`: start a worker, wait until it serves, or say why it does not."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from yr.datasystem.cli._config import WorkerPlan, plan_worker
from yr.datasystem.cli._output import FAILED, OK, CommandError, complain, say
from yr.datasystem.cli._processes import (
    WORKER,
    find_workers,
    find_workers_at,
    owner_is_alive,
    wait_until_gone,
)

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
POLL_S = 0.01
TAIL_LINES = 20
TAIL_BYTES = 16384

# What the worker's words call for, where they do not say it themselves.
REMEDIES = (
    (
        "Cannot allocate memory",
        "Give a smaller --shared_memory_size_mb, or the container more memory (docker "
        "--memory; --shm-size where it limits shared memory)",
    ),
    (
        "huge page",
        "As root: sysctl -w vm.nr_hugepages=<pages of 2 MB> and ulimit -l unlimited; "
        "or leave out --enable_huge_tlb",
    ),
    (
        "in use",
        "Find what has the port with `netstat -tlnp` (or `ss -tlnp`) and stop it, or "
        "choose another port",
    ),
    ("unknown flag", "docs/flags.md lists the flags; `dscli generate_config` too"),
    (
        "Permission denied",
        "Choose a folder that this user may write, with -d or XDG_RUNTIME_DIR",
    ),
)


def run(
    worker_args: Sequence[str] | None,
    config_path: str | None,
    timeout_s: int,
    home: str | None,
) -> int:
    if timeout_s <= 0:
        raise CommandError("--timeout must be at least 1 second")
    plan = plan_worker(worker_args, config_path, home)
    say(f"Log directory configured at: {plan.log_dir}")
    try:
        _refuse_if_served(plan.address)
        pid = _start(plan, timeout_s)
    except CommandError as error:
        complain(str(error))
        complain("Start failed: The worker service exited abnormally")
        return 1
    say(f"{OK} Start worker service @ {plan.address} success, PID: {pid}")
    return 0


def find_program() -> Path:
    """The worker's program, installed in the package."""
    import yr.datasystem

    for folder in yr.datasystem.__path__:
        program = Path(folder, "bin", WORKER)
        if os.access(program, os.X_OK):
            return program
    raise CommandError(
        f"{WORKER} is missing in {', '.join(yr.datasystem.__path__)}: the installation "
        'is incomplete; run `pip install --force-reinstall "TransferQueue[yuanrong]"`'
    )


def _refuse_if_served(address: str) -> None:
    """An address has one worker; name the one that has it."""
    for worker in find_workers_at(address):
        alive = owner_is_alive(worker.owner)
        state = {True: ", which is alive", False: ", which has ended", None: ""}[alive]
        owner = f"; its owner: {worker.owner}{state}" if worker.owner else ""
        raise CommandError(
            f"{FAILED} Start worker service @ {address} failed: worker PID "
            f"{worker.pid} serves it already{owner}. Stop it with `dscli stop "
            f"--worker_address {address}`, or choose another address"
        )


def _start(plan: WorkerPlan, timeout_s: int) -> int:
    output = _prepare_folders(plan)
    flags = {"owner": f"user {_user_name()}", **plan.flags}
    command = [str(find_program())]
    command += [f"--{name}={value}" for name, value in flags.items() if value]
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd=plan.home,
            env=_environment(),
            start_new_session=True,
        )
    say(f"Starting worker service with PID: {process.pid}")
    try:
        cause = _await_ready(process, plan, timeout_s, output)
    except BaseException:
        _kill(process)
        raise
    if cause is None:
        return process.pid
    _kill(process)
    raise CommandError(_describe_failure(cause, plan, output, command))


def _await_ready(
    process: subprocess.Popen[bytes], plan: WorkerPlan, timeout_s: int, output: Path
) -> str | None:
    """None when it serves, else what happened. The ready file must name this worker: an
    older one may have left its own."""
    end = time.monotonic() + timeout_s
    while _tail(plan.ready_file, 1).strip() != str(process.pid):
        if process.poll() is not None:
            text = _tail(output, TAIL_LINES).strip() or "(it said nothing)"
            return f"Worker exited with code {process.returncode}\n output: {text}"
        if time.monotonic() >= end:
            return f"Worker service is not ready within {timeout_s} seconds"
        time.sleep(POLL_S)
    return None


def _prepare_folders(plan: WorkerPlan) -> Path:
    """Home and log folder; returns the file for what the worker says before it logs."""
    for folder in (plan.home, plan.log_dir):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(
                f"{FAILED} Start worker service @ {plan.address} failed: cannot make "
                f"the folder {folder}: {error.strerror}. Choose another with -d, or "
                "set XDG_RUNTIME_DIR"
            ) from error
    return plan.log_file.with_suffix(".out")


def _environment() -> dict[str, str]:
    """Nodes talk to each other directly, never through a proxy."""
    return {
        name: value for name, value in os.environ.items() if name.lower() not in PROXIES
    }


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The supervisor; the kernel ends its child with it."""
    children = [w.child_pid for w in find_workers() if w.pid == process.pid]
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    for child in children:
        if child is not None:
            wait_until_gone(child, 5.0)


def _describe_failure(
    cause: str, plan: WorkerPlan, output: Path, command: Sequence[str]
) -> str:
    said = _tail(output, TAIL_LINES)
    lines = [f"{FAILED} {cause}"]
    lines += [f"remedy: {text}" for words, text in REMEDIES if words in said]
    log = _tail(plan.log_file, TAIL_LINES).rstrip()
    if log:
        lines.append(f"last lines of {plan.log_file}:\n{log}")
    lines.append(f"command: {shlex.join(command)}")
    summary = said.strip().splitlines()[-1:] or [cause]
    lines.append(f"{FAILED} Start worker service @ {plan.address} failed: {summary[0]}")
    return "\n".join(lines)


def _tail(path: Path, lines: int) -> str:
    """The last lines of a file; nothing if there is no such file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
