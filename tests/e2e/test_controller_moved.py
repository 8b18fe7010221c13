"""A controller that goes on at another address: clients find it through the worker."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from e2e import Site, expect_line, finish, tell

PROGRAM = """
    tq.init(conf())
    tq.kv_put("a", "p", {"v": 1}, tag={"step": 1})
    say("ready")
    wait_for_line()
    end = time.monotonic() + 30
    while True:  # Until the new one has told the worker where it is.
        try:
            values = tq.kv_batch_get("a", "p")["v"]
            break
        except RuntimeError as error:
            assert "is gone" in str(error), error
            assert time.monotonic() < end, error
            time.sleep(0.05)
    assert list(values) == [1]
    tq.kv_put("b", "p", {"v": 2})
    say(tq.kv_list("p"))
    wait_for_line()
    tq.close()
    """


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


def at_another_socket(command: list[str], socket: Path) -> list[str]:
    """The same queue's controller, which goes on with the same journal."""
    moved = list(command)
    old_socket = command[command.index("--socket") + 1]
    moved[moved.index("--socket") + 1] = str(socket)
    return [*moved, "--journal", f"{old_socket}.journal"]


@pytest.fixture
def another_socket(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir(mode=0o700)
    return folder / "controller.sock"


def test_clients_follow_a_controller_to_another_address(
    site: Site, another_socket: Path
) -> None:
    owner = site.start(PROGRAM)
    expect_line(owner, "ready")
    supervisor = site.pids_of("transfer_queue_controller")[0]
    command = command_of(supervisor)
    for pid in site.pids_of("transfer_queue_controller"):
        os.kill(pid, signal.SIGKILL)
    moved = subprocess.Popen(
        at_another_socket(command, another_socket),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert moved.stdout is not None
        assert moved.stdout.readline() == "ready\n"
        tell(owner)
        assert expect_line(owner, "{'p'") == "{'p': {'a': {'step': 1}, 'b': {}}}"
        assert moved.poll() is None
    finally:
        moved.terminate()  # It is none of the owner's, and keeps its own socket.
        moved.communicate(timeout=20)
    tell(owner)
    done = finish(owner)
    assert done.code == 0, done.err
