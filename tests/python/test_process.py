"""Processes are told apart from those that had their pid before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from transfer_queue._process import OwnerText, ProcessId, end_process


def test_this_process_is_alive_and_another_start_time_is_not() -> None:
    own = ProcessId.own()
    assert own.alive
    assert not ProcessId(own.pid, own.start + 1).alive
    assert not ProcessId(own.pid, 0).alive


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    process = ProcessId(child.pid, 1)
    assert not process.alive
    assert ProcessId.of(child.pid).start == 0
    child.wait()


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('ready', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert end_process(ProcessId.of(child.pid), patience_s=0.1)
    assert child.wait() == -9
    child.stdout.close()


def test_an_owner_text_says_who() -> None:
    owner = OwnerText(ProcessId(12, 345), "a-session")
    assert str(owner) == "pid=12 start=345 session=a-session"
    assert OwnerText.parse(str(owner)) == owner


@pytest.mark.parametrize("text", ["", "user root", "pid=x start=1 session=a"])
def test_other_texts_name_no_owner(text: str) -> None:
    assert OwnerText.parse(text) is None
