"""A controller that clients on other nodes reach: by TCP."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from queue_fixtures import folder as folder

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from queue_client import (
    HELLO,
    HELLO_BODY,
    Controller,
    Frame,
    receive_frame,
    running_controller,
)

from yr.datasystem import DatasystemError, QueueConnection

CONNECT_MS = 5000
SILENT = 300  # More than a controller keeps that have not said HELLO.


@pytest.fixture(params=["127.0.0.1", "::1"])
def controller(folder: Path, request: pytest.FixtureRequest) -> Iterator[Controller]:
    with running_controller(folder, "--host", request.param) as running:
        yield running


@pytest.fixture
def address(controller: Controller) -> str:
    with controller.client() as client:
        return client.tcp_address


@pytest.fixture
def connection(address: str) -> Iterator[QueueConnection]:
    connection = QueueConnection(address, CONNECT_MS)
    yield connection
    connection.close()


def connect_to(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=10)


def config_of(connection: QueueConnection) -> bytes:
    request = msgspec.msgpack.encode(["config_get", 0])
    config: bytes = msgspec.msgpack.decode(connection.call(request, 5000))
    return config


def set_config(connection: QueueConnection, config: bytes) -> None:
    connection.call(msgspec.msgpack.encode(["config_set", config]), 5000)


def test_requests_are_answered_as_over_the_unix_socket(
    controller: Controller, connection: QueueConnection, address: str
) -> None:
    set_config(connection, b"x" * (3 << 20))
    local = QueueConnection(f"unix:{controller.socket}", CONNECT_MS)
    assert config_of(local) == config_of(connection) == b"x" * (3 << 20)
    assert local.place() == connection.place() == ("", address)
    local.close()


def test_a_killed_controller_comes_back_at_the_same_port(
    controller: Controller, connection: QueueConnection, address: str
) -> None:
    set_config(connection, b"settings")
    for _ in range(3):
        controller.kill_child()
        assert config_of(connection) == b"settings"
    assert connection.place() == ("", address)


def test_a_controller_that_has_ended_is_said_to_be_gone(
    folder: Path,
) -> None:
    with running_controller(folder, "--host", "127.0.0.1") as controller:
        with controller.client() as client:
            address = client.tcp_address
        connection = QueueConnection(address, CONNECT_MS)
        set_config(connection, b"settings")
    with pytest.raises(DatasystemError, match="is gone") as caught:
        config_of(connection)
    assert address in str(caught.value)
    connection.close()


def test_garbage_ends_its_own_connection_alone(
    connection: QueueConnection, address: str
) -> None:
    set_config(connection, b"settings")
    for _ in range(20):
        with connect_to(address) as sock:
            sock.sendall(os.urandom(1000))
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
    assert config_of(connection) == b"settings"


def test_silent_connections_keep_nobody_out(
    connection: QueueConnection, address: str
) -> None:
    silent = [connect_to(address) for _ in range(SILENT)]
    with connect_to(address) as sock:
        sock.sendall(Frame(HELLO, 0, 5, HELLO_BODY, b"").encode())
        assert receive_frame(sock).status == 0
    set_config(connection, b"settings")
    assert config_of(connection) == b"settings"
    for sock in silent:
        sock.close()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--host", "localhost"], "localhost"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
        (["--host", "127.0.0.1", "--port", "65536"], "--port must be a number"),
        (["--host", "127.0.0.1", "--port", "x"], "--port must be a number"),
    ],
)
def test_an_address_that_is_none_is_refused(
    folder: Path, options: list[str], reason: str
) -> None:
    with pytest.raises(RuntimeError, match=reason):
        Controller(folder, *options)
    assert not (folder / "socket").exists()


def test_a_port_that_is_taken_is_named_with_who_has_it(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"{port}.*{os.getpid()}"):
            Controller(folder, "--host", "127.0.0.1", "--port", str(port))


def test_a_silent_peer_does_not_outlast_the_timeout(folder: Path) -> None:
    """Stopped, not ended: its port still takes connections."""
    with running_controller(folder, "--host", "127.0.0.1") as controller:
        with controller.client() as client:
            address = client.tcp_address
        pids = [controller.process.pid, controller.child_pid()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(DatasystemError, match="did not answer in time"):
            QueueConnection(address, 300)
        assert time.monotonic() - started < 10
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_the_port_is_of_the_user_only(folder: Path) -> None:
    """A loopback address: the kernel says whose the other end is."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    with running_controller(folder, "--host", "127.0.0.1") as controller:
        with controller.client() as client:
            host, _, port = client.tcp_address.rpartition(":")
        code = (
            "import encodings.idna, os, socket; os.setuid(65534);"
            f"sock = socket.create_connection(({host!r}, {port}), timeout=10);"
            "print(sock.recv(1))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30
        )
        assert done.stdout == "b''\n" or "ConnectionResetError" in done.stderr
        assert "uid 65534" in controller.log.read_text()
