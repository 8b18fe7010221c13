"""Naming other processes so that a reused pid is never mistaken for its predecessor."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A pid together with when that process started, in clock ticks since boot."""

    pid: int
    start: int

    @classmethod
    def own(cls) -> ProcessId:
        return cls(os.getpid(), read_start(os.getpid()) or 0)

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that has `pid` now; start is 0 when there is none."""
        return cls(pid, read_start(pid) or 0)

    @property
    def alive(self) -> bool:
        return self.start != 0 and read_start(self.pid) == self.start


@dataclass(frozen=True, slots=True)
class OwnerText:
    """What a worker or controller is told about who started it, and can tell others."""

    process: ProcessId
    session: str

    def __str__(self) -> str:
        owner = self.process
        return f"pid={owner.pid} start={owner.start} session={self.session}"

    @classmethod
    def parse(cls, text: str) -> OwnerText | None:
        """None for text that says nothing about a process, as of a manual start."""
        match = _OWNER.fullmatch(text.strip())
        if match is None:
            return None
        return cls(ProcessId(int(match[1]), int(match[2])), match[3])


_OWNER = re.compile(r"pid=(\d+) start=(\d+) session=(\S*)")


def read_start(pid: int) -> int | None:
    """Start time of a running process; None when there is none or only a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # The name before may contain anything.
    return None if fields[0] in ("Z", "X") else int(fields[19])


def end_process(process: ProcessId, patience_s: float) -> bool:
    """SIGTERM, and SIGKILL after `patience_s`. True when it is gone."""
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 2.0)):
        if not process.alive:
            return True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)
        if wait_until_gone(process, wait_s):
            return True
    return False


def wait_until_gone(process: ProcessId, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while process.alive:
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True
