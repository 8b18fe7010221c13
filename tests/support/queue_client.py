"""A client of the controller and a stand-in for its worker, on plain sockets.

They speak docs/queue_protocol.md and src/wire/frame.h by `struct` and msgspec, without
any code of ours in between, so that a test can also say what no client of ours says.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from raw_peer import PROTOCOL_VERSION

MAGIC = 0x31575344
HEADER = struct.Struct("<IHHIIQ")
HELLO, PING = 2, 3
BLOCK_DELETE, BLOCK_ADOPT, ORPHANS, QUEUE_CALL = 15, 16, 17, 19
QUEUE_SERVE = 23
INVALID, NOT_FOUND, FULL, NOT_READY, IO, MISMATCH = 1, 2, 4, 6, 7, 10

HELLO_BODY = struct.pack("<IIIIQIHQI", 1, PROTOCOL_VERSION, 0, 0, 0, 0, 0, 0, 0)
WELCOME = struct.Struct("<IIIQQQQQQ")


class QueueError(Exception):
    """What the controller answered instead of a result."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Frame:
    type: int
    status: int
    sequence: int
    body: bytes
    payload: bytes

    def encode(self) -> bytes:
        return frame_header(
            self.type, self.status, self.sequence, len(self.body), len(self.payload)
        ) + (self.body + self.payload)


def frame_header(
    type_: int, status: int, sequence: int, body_bytes: int, payload_bytes: int
) -> bytes:
    return HEADER.pack(MAGIC, type_, status, sequence, body_bytes, payload_bytes)


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = sock.recv(min(count - len(data), 1 << 20))
        if not part:
            raise ConnectionError("the other side closed the connection")
        data += part
    return bytes(data)


def receive_frame(sock: socket.socket) -> Frame:
    header = HEADER.unpack(receive_exactly(sock, HEADER.size))
    magic, type_, status, sequence, body_bytes, payload_bytes = header
    assert magic == MAGIC
    body = receive_exactly(sock, body_bytes)
    return Frame(type_, status, sequence, body, receive_exactly(sock, payload_bytes))


def connect(path: Path, timeout_s: float = 10.0) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout_s)
    sock.connect(str(path))
    return sock


class QueueClient:
    """One connection that has said HELLO."""

    def __init__(self, path: Path, timeout_s: float = 10.0) -> None:
        self.sock = connect(path, timeout_s)
        self.sequence = 0
        place = self.exchange(Frame(HELLO, 0, 0, HELLO_BODY, b"")).body
        self.name, rest = split_short_text(place)
        self.address, rest = split_short_text(rest)
        self.tcp_address, rest = split_short_text(rest)
        (self.term,) = struct.unpack("<Q", rest)

    def exchange(self, frame: Frame) -> Frame:
        self.sock.sendall(frame.encode())
        reply = receive_frame(self.sock)
        assert (reply.type, reply.sequence) == (frame.type, frame.sequence)
        if reply.status != 0:
            raise QueueError(reply.status, reply.body.decode())
        return reply

    def send(self, operation: str, *arguments: Any) -> None:
        """Send a request whose reply `receive` collects."""
        self.sequence += 1
        payload = msgspec.msgpack.encode([operation, *arguments])
        self.sock.sendall(Frame(QUEUE_CALL, 0, self.sequence, b"", payload).encode())

    def receive(self) -> Any:
        reply = receive_frame(self.sock)
        if reply.status != 0:
            raise QueueError(reply.status, reply.body.decode())
        return msgspec.msgpack.decode(reply.payload)

    def call(self, operation: str, *arguments: Any) -> Any:
        self.send(operation, *arguments)
        return self.receive()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> QueueClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def split_short_text(body: bytes) -> tuple[str, bytes]:
    """The text at the beginning, and what comes after it."""
    (count,) = struct.unpack_from("<H", body)
    return body[2 : 2 + count].decode(), body[2 + count :]


def block_id(counter: int, node: int = 1, incarnation: int = 7) -> bytes:
    return struct.pack("<IIQ", node, incarnation, counter)


def find_controller() -> Path:
    """The program under test: named by TQ_CONTROLLER_PROGRAM, or the installed one."""
    named = os.environ.get("TQ_CONTROLLER_PROGRAM")
    if named:
        return Path(named)
    from transfer_queue._controller_process import find_program

    return find_program()


class Controller:
    """A running controller. `stop` ends it and checks that it left nothing."""

    def __init__(self, folder: Path, *options: str, within: Sequence[str] = ()) -> None:
        """`within` is a command that becomes the one that is given to it."""
        self.socket = folder / "socket"
        self.log = folder / "stderr"
        program = [*within, str(find_controller())]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, "--socket", str(self.socket), *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        said = self.process.stdout.read()  # Ends when it listens, or with it.
        self.process.stdout.close()
        if said != b"ready\n":
            self.process.wait(timeout=10)
            raise RuntimeError(f"no 'ready': {self.log.read_text()}")

    def client(self, timeout_s: float = 10.0) -> QueueClient:
        return QueueClient(self.socket, timeout_s)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=10)
            raise
        print(self.log.read_text(), file=sys.stderr)
        assert code == 0
        assert not self.socket.exists()

    def child_pid(self) -> int:
        """The controller itself; what was started is its supervisor. 0 while there is
        none."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def kill_child(self) -> None:
        """As `kill -9`; returns when another one runs."""
        killed = self.child_pid()
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: self.child_pid() not in (0, killed))

    def resident_bytes(self) -> int:
        statm = Path(f"/proc/{self.child_pid()}/statm").read_text().split()
        return int(statm[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running_controller(folder: Path, *options: str) -> Iterator[Controller]:
    controller = Controller(folder, *options)
    try:
        yield controller
    finally:
        controller.stop()


class FakeWorker:
    """Listens like a worker, acknowledges orders, and notes them in `orders`.

    `orders` gets ("adopt" | "delete", id). `mute` keeps it from acknowledging.
    """

    def __init__(self, path: Path, incarnation: int = 7) -> None:
        self.incarnation = incarnation
        self.orders: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.mute = False
        self.orphan_requests: queue.Queue[Frame] = queue.Queue()
        self._connection: socket.socket | None = None
        with suppress(FileNotFoundError):
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def report_orphans(self, ids: list[bytes]) -> None:
        request = self.orphan_requests.get(timeout=10)
        body = struct.pack("<I", len(ids)) + b"".join(ids)
        self._send(Frame(ORPHANS, 0, request.sequence, body, b""))

    def next_orders(self, count: int) -> list[tuple[str, bytes]]:
        return [self.orders.get(timeout=10) for _ in range(count)]

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._connection, _ = self._listener.accept()
                with self._connection, suppress(ConnectionError):
                    while True:
                        self._handle(receive_frame(self._connection))

    def _send(self, frame: Frame) -> None:
        assert self._connection is not None
        self._connection.sendall(frame.encode())

    def _handle(self, frame: Frame) -> None:
        if frame.type == HELLO:
            welcome = WELCOME.pack(1, self.incarnation, 0, 0, 0, 0, 0, 0, 0)
            self._send(Frame(HELLO, 0, frame.sequence, welcome, b""))
        elif frame.type == ORPHANS:
            self.orphan_requests.put(frame)
        elif frame.type == QUEUE_SERVE:
            self._send(Frame(QUEUE_SERVE, 0, frame.sequence, b"\0", b""))
        else:
            self._obey(frame)

    def _obey(self, frame: Frame) -> None:
        assert frame.type in (BLOCK_ADOPT, BLOCK_DELETE)
        (count,) = struct.unpack_from("<I", frame.body)
        is_adopt = frame.type == BLOCK_ADOPT
        for i in range(count):
            id_ = frame.body[4 + 16 * i : 20 + 16 * i]
            self.orders.put(("adopt" if is_adopt else "delete", id_))
        body = struct.pack("<I", count) + b"\1" * count if is_adopt else b""
        if not self.mute:
            self._send(Frame(frame.type, 0, frame.sequence, body, b""))


def wait_until(condition: Any, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
