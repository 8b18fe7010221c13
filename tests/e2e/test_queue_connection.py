"""QueueConnection against a real transfer_queue_controller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from worker_process import find_program

from yr.datasystem import DatasystemError, QueueConnection

CONNECT_MS = 5000


def encode(*request: Any) -> bytes:
    return msgspec.msgpack.encode(request)


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Serves `tmp_path`/queue."""
    process = subprocess.Popen(
        [
            str(find_program("transfer_queue_controller")),
            f"--socket={tmp_path / 'queue'}",
            "--owner=test",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def connection(
    controller: subprocess.Popen[bytes], tmp_path: Path
) -> Iterator[QueueConnection]:
    connection = QueueConnection(f"unix:{tmp_path / 'queue'}", CONNECT_MS)
    yield connection
    connection.close()


def test_a_request_is_answered(connection: QueueConnection) -> None:
    connection.call(encode("config_set", b"settings"), 2000)
    reply = connection.call(memoryview(encode("config_get", 0)), 2000)
    assert msgspec.msgpack.decode(reply) == b"settings"


def test_a_refusal_carries_the_controllers_text(connection: QueueConnection) -> None:
    with pytest.raises(DatasystemError, match="keys or partition were not found") as e:
        connection.call(encode("kv_get", "absent", ["k"], None), 2000)
    assert e.value.code == 3


def test_nobody_at_the_address_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DatasystemError, match="absent") as caught:
        QueueConnection(f"unix:{tmp_path / 'absent'}", 500)
    assert caught.value.code == 1002


def test_a_call_ends_at_its_timeout(connection: QueueConnection) -> None:
    start = time.monotonic()
    with pytest.raises(DatasystemError) as caught:
        connection.call(encode("config_get", 20_000), 300)
    assert caught.value.code == 1001
    assert time.monotonic() - start < 2


def test_calls_after_close_say_so(connection: QueueConnection) -> None:
    connection.close()
    connection.close()
    with pytest.raises(DatasystemError, match="closed") as caught:
        connection.call(encode("stats"), 1000)
    assert caught.value.code == 8


def test_threads_wait_side_by_side_and_close_ends_them(
    connection: QueueConnection,
) -> None:
    codes: list[int] = []

    def wait() -> None:
        try:
            connection.call(encode("config_get", 20_000), 20_000)
        except DatasystemError as error:
            codes.append(error.code)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    connection.call(encode("stats"), 2000)
    start = time.monotonic()
    connection.close()
    for thread in threads:
        thread.join(10)
    assert codes == [8, 8, 8]
    assert time.monotonic() - start < 1


def test_interrupt_ends_a_wait_within_100_ms(connection: QueueConnection) -> None:
    sent: list[float] = []

    def interrupt() -> None:
        time.sleep(0.3)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        connection.call(encode("config_get", 20_000), 20_000)
    ended = time.monotonic()
    thread.join()
    assert ended - sent[0] < 0.1
    assert msgspec.msgpack.decode(connection.call(encode("stats"), 2000))


def test_a_controller_that_dies_ends_the_wait(
    controller: subprocess.Popen[bytes], connection: QueueConnection
) -> None:
    codes: list[int] = []

    def wait() -> None:
        try:
            connection.call(encode("config_get", 20_000), 20_000)
        except DatasystemError as error:
            codes.append(error.code)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    controller.terminate()
    start = time.monotonic()
    thread.join(20)
    assert codes == [1002]
    assert time.monotonic() - start < 5
