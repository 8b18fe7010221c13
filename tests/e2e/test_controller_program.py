"""The controller program's options, how it starts, and how it ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from queue_fixtures import controller as controller
from queue_fixtures import folder as folder
from queue_fixtures import put

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from queue_client import (
    Controller,
    QueueClient,
    QueueError,
    find_controller,
    running_controller,
)


def test_an_unknown_option_is_named(folder: Path) -> None:
    command = [str(find_controller()), "--socket", str(folder / "s"), "--spam", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert result.returncode == 2
    assert "--spam" in result.stderr
    assert result.stdout == ""


def test_a_socket_is_needed() -> None:
    result = subprocess.run(
        [str(find_controller())], capture_output=True, text=True, timeout=10
    )
    assert result.returncode == 2
    assert "--socket PATH is needed" in result.stderr


@contextmanager
def other_process() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """One that sleeps, and how --ends_with names it."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        stat_line = Path(f"/proc/{process.pid}/stat").read_text()
        yield process, f"{process.pid},{stat_line.split()[21]}"
        process.kill()


def test_it_ends_with_the_process_that_it_was_told_of(folder: Path) -> None:
    """Also a controller that was killed and started again."""
    with other_process() as (process, name):
        with running_controller(folder, "--ends_with", name) as controller:
            controller.kill_child()
            with controller.client() as client:
                put(client, ["a"], 1, "x")
            process.kill()
            assert controller.process.wait(timeout=20) == 0
        assert [path.name for path in folder.iterdir()] == ["stderr"]


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("4711", 2, "--ends_with takes a process and when it started"),
        ("4711,", 2, "--ends_with takes"),
        ("4711,0", 2, "--ends_with takes"),
        (",12", 1, "ended already"),
        ("1,x", 2, "--ends_with takes"),
        (f"{os.getpid()},7", 1, "ended already"),  # Another process than then.
    ],
)
def test_a_process_that_is_not_there_is_refused(
    folder: Path, name: str, code: int, text: str
) -> None:
    command = [str(find_controller()), "--socket", str(folder / "socket")]
    command += ["--ends_with", name]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert (result.returncode, text in result.stderr) == (code, True), result.stderr
    assert list(folder.iterdir()) == []


def test_an_open_folder_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    with pytest.raises(RuntimeError, match="shared"):
        Controller(shared)


def test_the_folder_is_made_private_and_left_empty(tmp_path: Path) -> None:
    """Also: the log goes where --log_dir says, and SIGINT ends it as SIGTERM does."""
    path = tmp_path / "new" / "socket"
    command = [str(find_controller()), f"--socket={path}", "--owner", "a test"]
    command += ["--log_dir", str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"ready\n"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
    assert list(path.parent.iterdir()) == []
    log = (tmp_path / "log" / "transfer_queue_controller.log").read_text()
    assert 'owner="a test"' in log
    assert "controller ended" in log


def test_a_long_socket_path_works(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir(mode=0o700)
    with running_controller(folder) as running:
        assert len(str(running.socket)) > 107
        here = os.getcwd()
        os.chdir(folder)
        try:
            with QueueClient(Path("socket")) as client:
                assert client.call("kv_list", None) == {}
        finally:
            os.chdir(here)


def test_a_second_controller_does_not_take_the_socket(controller: Controller) -> None:
    with pytest.raises(RuntimeError, match=str(controller.process.pid)):
        Controller(controller.socket.parent)
    with controller.client() as client:
        assert client.call("kv_list", None) == {}


def test_after_kill_9_a_new_one_starts_in_the_same_place(folder: Path) -> None:
    first = Controller(folder)
    first.process.kill()
    first.process.wait(timeout=10)
    assert first.socket.exists()
    with running_controller(folder) as second, second.client() as client:
        assert client.call("kv_list", None) == {}


def test_shutdown_answers_and_ends(controller: Controller) -> None:
    with controller.client() as client, controller.client() as other:
        put(client, ["a"], 1, "x")
        assert client.call("shutdown") is None
        assert controller.process.wait(timeout=10) == 0
        with pytest.raises((ConnectionError, QueueError)):
            other.call("kv_list", None)


def test_sigterm_ends_it_with_clients_connected(controller: Controller) -> None:
    with controller.client() as client:
        client.send("config_get", 60_000)
        controller.stop()
        with pytest.raises(ConnectionError):
            client.receive()
