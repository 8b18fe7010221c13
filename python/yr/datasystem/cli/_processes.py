"""Finding datasystem workers in /proc, and waiting for their end."""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WORKER = "datasystem_worker"
_OWNER_PROCESS = re.compile(r"\bpid=(\d+)(?: start=(\d+))?")


@dataclass(frozen=True, slots=True)
class Worker:
    """A supervisor of this user, and its child if there is one now."""

    pid: int
    child_pid: int | None
    start: int  # Clock ticks from boot to the supervisor's start.
    flags: dict[str, str]  # As given on its command line.

    @property
    def address(self) -> str:
        return self.flags.get("worker_address", "127.0.0.1:31501")

    @property
    def owner(self) -> str:
        return self.flags.get("owner", "")

    @property
    def uptime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start / os.sysconf(
            "SC_CLK_TCK"
        )


def find_workers() -> list[Worker]:
    """All workers of this user, by address. A child of a worker is no worker."""
    commands = dict(_worker_commands())
    parents = {pid: _stat(pid) for pid in commands}
    children: dict[int, int] = {}
    for pid, stat in parents.items():
        if stat is not None and stat[0] in commands:
            children[stat[0]] = pid
    workers = []
    for pid, command in commands.items():
        stat = parents[pid]
        if stat is not None and pid not in children.values():
            flags = parse_flags(command[1:])
            workers.append(Worker(pid, children.get(pid), stat[1], flags))
    return sorted(workers, key=lambda worker: (worker.address, worker.pid))


def find_workers_at(address: str) -> list[Worker]:
    return [worker for worker in find_workers() if worker.address == address]


def parse_flags(words: list[str]) -> dict[str, str]:
    """`--name=value` and `--name value` as the worker reads them."""
    flags = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        flags[name] = value if equals else next(rest, "")
    return flags


def owner_is_alive(owner: str) -> bool | None:
    """Whether the process that an owner's text names is alive; None: it names none.

    The text holds `pid=N`, and after it `start=T` where the start time is known.
    """
    match = _OWNER_PROCESS.search(owner)
    if match is None:
        return None
    stat = _stat(int(match[1]))
    return stat is not None and match[2] in (None, str(stat[1]))


def end_process(pid: int, number: signal.Signals, timeout_s: float) -> bool:
    """Send a signal and wait; True when the process is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:  # A kernel, or a sandbox, without pidfd_open.
        return _end_by_polling(pid, number, timeout_s)
    try:
        signal.pidfd_send_signal(handle, number)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)


def wait_until_gone(pid: int, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while _stat(pid) is not None:
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return True


def _end_by_polling(pid: int, number: signal.Signals, timeout_s: float) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return True
    return wait_until_gone(pid, timeout_s)


def _worker_commands() -> Iterator[tuple[int, list[str]]]:
    """Of this user, and in this network: the same address elsewhere is another one."""
    uid = os.getuid()
    network = _network_of("self")
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid != uid:
                continue
            line = Path(entry.path, "cmdline").read_bytes()
            if WORKER.encode() not in line or _network_of(entry.name) != network:
                continue
        except OSError:  # It ended while we looked.
            continue
        command = line.decode("utf-8", "surrogateescape").split("\0")[:-1]
        if command and os.path.basename(command[0]) == WORKER:
            yield int(entry.name), command


def _network_of(pid: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def _stat(pid: int) -> tuple[int, int] | None:
    """Parent and start time; None where there is no such process, or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # The name before may contain anything.
    return None if fields[0] in "ZX" else (int(fields[1]), int(fields[19]))
