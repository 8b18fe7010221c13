"""A peer that speaks the worker's wire protocol byte by byte, rightly or wrongly.

Independent of the client library: what it sends is up to the test.
"""

from __future__ import annotations

import array
import re
import select
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

MAGIC = 0x31575344
HEADER = struct.Struct("<IHHIIQ")
BODY_BYTES_MAX = 16 << 20
PAYLOAD_BYTES_MAX = (1 << 64) - 1
LAYOUT_VERSION = 4


def _read_protocol_version() -> int:
    """It changes often, and what this says of it would be forgotten."""
    header = Path(__file__).parents[2] / "src" / "wire" / "frame.h"
    found = re.search(r"#define PROTOCOL_VERSION +(\d+)u", header.read_text())
    assert found is not None, header
    return int(found.group(1))


PROTOCOL_VERSION = _read_protocol_version()

DISCOVER = 1
HELLO = 2
PING = 3
CREATE = 4
LOOKUP = 7
DELETE = 9
STATS = 11
PUT = 12
FETCH = 13
ORPHANS = 17
FILL = 20
HOLDERS = 22
MEMBERS = 26
TYPES = range(1, 30)  # All that a header may have.

SHARED_MEMORY = 1

_TIMEOUT_S = 10.0


def frame(
    kind: int,
    body: bytes = b"",
    *,
    magic: int = MAGIC,
    status: int = 0,
    sequence: int = 1,
    body_bytes: int | None = None,
    payload_bytes: int = 0,
) -> bytes:
    announced = len(body) if body_bytes is None else body_bytes
    return HEADER.pack(magic, kind, status, sequence, announced, payload_bytes) + body


@dataclass(frozen=True)
class Identity:
    """What the worker knows a client with shared memory by."""

    client: int = 0
    token: int = 0
    incarnation: int = 0


NOBODY = Identity()


def hello_body(flags: int = 0, who: Identity = NOBODY) -> bytes:
    return struct.pack(
        "<IIIIQIHQI",
        *(LAYOUT_VERSION, PROTOCOL_VERSION, flags),
        *(who.client, who.token, who.incarnation, 0, 0, 0),
    )


def key_list(keys: list[bytes]) -> bytes:
    elements = b"".join(struct.pack("<H", len(key)) + key for key in keys)
    return struct.pack("<I", len(keys)) + elements


def lookup_body(keys: list[bytes], wait_ms: int = 0) -> bytes:
    return struct.pack("<IIQQ", 0, wait_ms, 0, 0) + key_list(keys)


def put_body(key: bytes, checksum: int | None = None) -> bytes:
    known = checksum is not None
    return struct.pack("<IBBBQH", 0, 0, 0, known, checksum or 0, len(key)) + key


@dataclass
class Reply:
    kind: int
    status: int
    sequence: int
    body: bytes
    payload: bytes


class RawPeer:
    """One connection; `address` is a Unix socket's path, or a port of this host."""

    def __init__(self, address: Path | int) -> None:
        if isinstance(address, int):
            self.socket = socket.create_connection(("127.0.0.1", address), _TIMEOUT_S)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(_TIMEOUT_S)
            self.socket.connect(str(address))

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """False if the worker has closed."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def send_with_descriptors(self, data: bytes, descriptors: list[int]) -> None:
        rights = array.array("i", descriptors)
        self.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def receive(self) -> Reply | None:
        """None when the worker closes. Descriptors that come along are dropped."""
        header = self._receive_exactly(HEADER.size)
        if header is None:
            return None
        magic, kind, status, sequence, body_bytes, payload_bytes = HEADER.unpack(header)
        assert magic == MAGIC
        body = self._receive_exactly(body_bytes)
        payload = self._receive_exactly(payload_bytes)
        if body is None or payload is None:
            return None
        return Reply(kind, status, sequence, body, payload)

    def call(self, kind: int, body: bytes = b"", payload: bytes = b"") -> Reply:
        assert self.send(frame(kind, body, payload_bytes=len(payload)) + payload)
        reply = self.receive()
        assert reply is not None and reply.kind == kind
        return reply

    def hello(self, flags: int = 0, who: Identity = NOBODY) -> Identity:
        reply = self.call(HELLO, hello_body(flags, who))
        assert reply.status == 0, reply
        _, incarnation, client, token = struct.unpack_from("<IIIQ", reply.body)
        return Identity(client, token, incarnation)

    def is_closed_within(self, timeout_s: float) -> bool:
        """Everything that still comes is thrown away."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([self.socket], [], [], left_s)
            try:
                if readable and not self.socket.recv(1 << 16):
                    return True
            except ConnectionResetError:
                return True
        return False

    def ends_within(self, timeout_s: float) -> bool:
        """Says that nothing more will come, and waits for the worker to close."""
        self.socket.shutdown(socket.SHUT_WR)
        return self.is_closed_within(timeout_s)

    def _receive_exactly(self, count: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self.socket.recv(min(count - len(parts), 1 << 20))
            except ConnectionResetError:
                return None
            if not part:
                return None
            parts += part
        return bytes(parts)
