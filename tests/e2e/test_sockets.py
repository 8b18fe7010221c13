"""Malformed input on any of the worker's sockets: the connection is closed with one
line in the log, everybody else is served, and nothing is left of it.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from raw_peer import (
    BODY_BYTES_MAX,
    CREATE,
    DISCOVER,
    FETCH,
    HELLO,
    HOLDERS,
    LOOKUP,
    MEMBERS,
    ORPHANS,
    PAYLOAD_BYTES_MAX,
    PING,
    PUT,
    SHARED_MEMORY,
    STATS,
    TYPES,
    RawPeer,
    Reply,
    frame,
    hello_body,
    lookup_body,
    put_body,
)
from worker_process import WorkerProcess, free_port, running_worker

MB = 1 << 20
ARENA_MB = 64
SILENCE_S = 10.0  # The worker's patience with who does not say HELLO.
STRANGERS_MAX = 256 + 1  # Connections that have not said it; one for each member.
RSS_SLACK_BYTES = 8 * MB
CLOSED_WITHIN_S = 3.0

PORTS = pytest.mark.parametrize("port", ["unix", "tcp", "metastore"])
DATA_PORTS = pytest.mark.parametrize("port", ["unix", "tcp"])


class Target:
    """A worker, its three sockets, and what is looked at before and after a test."""

    def __init__(self, worker: WorkerProcess, home: Path, metastore_port: int) -> None:
        self._log = home / "logs" / "datasystem_worker.log"
        self.child = worker.child_pid()
        self._worker = worker
        self._addresses: dict[str, Path | int] = {
            "unix": home / "uds" / "worker.sock",
            "tcp": worker.port,
            "metastore": metastore_port,
        }
        # One client for all tests: the worker keeps it as long as this process lives.
        with self.connect("unix") as peer:
            self.member = peer.hello(SHARED_MEMORY)
            assert peer.call(PING).status == 0  # Who never asks for anything is not.
        assert self.serves()
        time.sleep(0.5)  # Until what served is closed.
        self.idle_descriptors = self.descriptors()

    def connect(self, port: str) -> RawPeer:
        return RawPeer(self._addresses[port])

    def connect_and_greet(self, port: str) -> RawPeer:
        """On the Unix socket with shared memory."""
        peer = self.connect(port)
        if port == "unix":
            peer.hello(SHARED_MEMORY, self.member)
        else:
            peer.hello()
        return peer

    def closed_lines(self) -> list[str]:
        lines = self._log.read_text(errors="replace").splitlines()
        return [line for line in lines if " worker connection " in line]

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.child}/fd"))

    def rss_bytes(self) -> int:
        """Without the arena and the other shared memory, which tests fill."""
        info = psutil.Process(self.child).memory_info()
        return int(info.rss - info.shared)

    def serves(self) -> bool:
        """A value goes in and comes out, by a new connection."""
        with self.connect("unix") as peer:
            peer.hello()
            put = peer.call(PUT, put_body(b"probe"), b"value")
            got = peer.call(FETCH, lookup_body([b"probe"]))
        return put.status == 0 and got.payload == b"value"

    def is_the_same(self) -> bool:
        return self._worker.child_pid() == self.child


def settles(condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    """The worker notices a closed connection in its next turn, not at once."""
    deadline = time.monotonic() + timeout_s
    while not (done := condition()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return done


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    home = tmp_path_factory.mktemp("worker")
    metastore_port = free_port()
    flags = (
        "--start_metastore_service=true",
        f"--metastore_address=127.0.0.1:{metastore_port}",
    )
    with running_worker(home, *flags, shared_memory_size_mb=ARENA_MB) as worker:
        yield Target(worker, home, metastore_port)


@contextlib.contextmanager
def closes(target: Target, count: int = 1) -> Iterator[None]:
    """What follows is exactly so many lines about closed connections, and after it the
    same process serves, with as much memory and as many descriptors as before.
    """
    lines = len(target.closed_lines())
    rss_bytes = target.rss_bytes()
    yield
    settles(lambda: len(target.closed_lines()) >= lines + count)
    assert target.is_the_same()
    assert target.serves()
    assert settles(lambda: target.descriptors() == target.idle_descriptors)
    assert settles(lambda: target.rss_bytes() <= rss_bytes + RSS_SLACK_BYTES)
    new = target.closed_lines()[lines:]
    assert len(new) == count, new


def is_refused(peer: RawPeer, data: bytes) -> bool:
    peer.send(data)
    return peer.is_closed_within(CLOSED_WITHIN_S)


# ---- Bytes that are no message -------------------------------------------------------


@PORTS
def test_random_bytes_close_the_connection(target: Target, port: str) -> None:
    dice = random.Random(20240611)
    with closes(target, 100):
        for _ in range(100):
            with target.connect(port) as peer:
                assert is_refused(peer, dice.randbytes(dice.randrange(24, 5000)))


@PORTS
def test_half_a_header_is_forgotten(target: Target, port: str) -> None:
    with closes(target), target.connect(port) as peer:
        peer.send(frame(DISCOVER)[:11])
        assert peer.ends_within(CLOSED_WITHIN_S)


@PORTS
def test_half_a_body_is_forgotten(target: Target, port: str) -> None:
    with closes(target), target.connect(port) as peer:
        peer.send(frame(HELLO, b"x" * 500, body_bytes=1000))
        assert peer.ends_within(CLOSED_WITHIN_S)


@PORTS
def test_a_body_over_the_limit_closes_the_connection(target: Target, port: str) -> None:
    with closes(target, 2):
        for announced in (BODY_BYTES_MAX + 1, 0xFFFFFFFF):
            with target.connect(port) as peer:
                assert is_refused(peer, frame(HELLO, body_bytes=announced))


@PORTS
def test_memory_grows_with_what_arrives_not_with_what_is_announced(
    target: Target, port: str
) -> None:
    before = target.rss_bytes()
    with closes(target, 20), contextlib.ExitStack() as stack:
        for _ in range(20):
            peer = stack.enter_context(target.connect(port))
            peer.send(frame(HELLO, b"x" * 1000, body_bytes=BODY_BYTES_MAX))
        time.sleep(0.3)
        assert target.rss_bytes() < before + RSS_SLACK_BYTES


@PORTS
def test_an_unknown_header_closes_the_connection(target: Target, port: str) -> None:
    broken = [frame(0), frame(max(TYPES) + 1), frame(0xFFFF)]
    broken += [frame(PING, status=999), frame(PING, magic=0x12345678)]
    with closes(target, len(broken)):
        for data in broken:
            with target.connect(port) as peer:
                assert is_refused(peer, data)


# ---- Messages that are not allowed ---------------------------------------------------


@PORTS
def test_before_hello_only_discover_is_answered(target: Target, port: str) -> None:
    others = [kind for kind in TYPES if kind not in (DISCOVER, HELLO)]
    with closes(target, len(others)):
        for kind in others:
            with target.connect(port) as peer:
                assert peer.call(DISCOVER).status == 0
                assert is_refused(peer, frame(kind))


def test_the_metastores_port_has_no_objects(target: Target) -> None:
    answered = (DISCOVER, HELLO, STATS, HOLDERS, MEMBERS)
    others = [kind for kind in TYPES if kind not in answered]
    with closes(target, len(others)):
        for kind in others:
            with target.connect("metastore") as peer:
                peer.hello()
                assert peer.call(STATS).status == 0
                assert is_refused(peer, frame(kind))


@PORTS
def test_a_reply_is_not_a_request(target: Target, port: str) -> None:
    with closes(target), target.connect(port) as peer:
        assert is_refused(peer, frame(DISCOVER, status=1))


@PORTS
def test_a_payload_where_none_belongs_closes_the_connection(
    target: Target, port: str
) -> None:
    with closes(target, 2):
        for size in (1, PAYLOAD_BYTES_MAX):
            with target.connect(port) as peer:
                peer.hello()
                assert is_refused(peer, frame(STATS, payload_bytes=size))


@PORTS
def test_a_second_hello_closes_the_connection(target: Target, port: str) -> None:
    with closes(target), target.connect(port) as peer:
        peer.hello()
        assert is_refused(peer, frame(HELLO, hello_body()))


@PORTS
def test_a_malformed_body_of_any_type_closes_the_connection(
    target: Target, port: str
) -> None:
    greets = [kind not in (DISCOVER, HELLO) for kind in TYPES]
    with closes(target, 3 * len(TYPES)):
        for kind, greet in zip(TYPES, greets, strict=True):
            for body in (b"x", b"\xff" * 64, b"\x02\0\0\0x" * 9):
                connect = target.connect_and_greet if greet else target.connect
                with connect(port) as peer:
                    assert is_refused(peer, frame(kind, body)), (kind, body)


def test_descriptors_where_none_belong_close_the_connection(target: Target) -> None:
    with closes(target, 3), open(os.devnull) as null:
        descriptor = null.fileno()
        with target.connect("unix") as peer:
            peer.send_with_descriptors(frame(DISCOVER), [descriptor])
            assert peer.is_closed_within(CLOSED_WITHIN_S)
        with target.connect("unix") as peer:
            peer.hello()
            peer.send_with_descriptors(frame(PING), [descriptor] * 200)
            assert peer.is_closed_within(CLOSED_WITHIN_S)
        with target.connect("unix") as peer:
            peer.hello()
            whole = frame(PUT, put_body(b"key"), payload_bytes=100) + b"x" * 50
            assert peer.send(whole)
            time.sleep(0.2)
            peer.send_with_descriptors(b"x" * 50, [descriptor])
            assert peer.is_closed_within(CLOSED_WITHIN_S)


@pytest.mark.parametrize("port", ["tcp", "metastore"])
def test_memory_is_refused_but_the_connection_stays(target: Target, port: str) -> None:
    with closes(target, 0), target.connect(port) as peer:
        assert peer.call(HELLO, hello_body(SHARED_MEMORY)).status != 0
        peer.hello()


# ---- Too much ------------------------------------------------------------------------


@DATA_PORTS
def test_a_lookup_of_more_keys_than_a_reply_can_hold_is_refused(
    target: Target, port: str
) -> None:
    with closes(target, 0), target.connect(port) as peer:
        peer.hello()
        for kind in (LOOKUP, FETCH):
            reply = peer.call(kind, lookup_body([b""] * 1_000_000))
            assert reply.status != 0
            assert b"1000000 keys in one request" in reply.body
        assert peer.call(PING).status == 0


@DATA_PORTS
def test_a_value_that_never_fits_costs_no_memory(target: Target, port: str) -> None:
    with closes(target), target.connect(port) as peer:
        peer.hello()
        peer.send(frame(PUT, put_body(b"huge"), payload_bytes=1 << 62))
        peer.send(b"x" * (20 * MB))


@DATA_PORTS
def test_many_requests_that_wait_stop_nobody(target: Target, port: str) -> None:
    with closes(target), target.connect(port) as peer:  # With replies left unread.
        peer.hello()
        keys = [b"never-%d" % number for number in range(1000)]
        peer.send(frame(LOOKUP, lookup_body(keys, wait_ms=60_000)) * 2000)
        begin = time.monotonic()
        assert target.serves()
        assert time.monotonic() - begin < 2.0
        reply = peer.receive()
        assert reply is not None
        assert b"requests of this connection" in reply.body


# ---- Silence -------------------------------------------------------------------------


def slowest_call_s(target: Target, seconds: float) -> float:
    slowest = 0.0
    with target.connect("tcp") as peer:
        peer.hello()
        deadline = time.monotonic() + seconds
        while (begin := time.monotonic()) < deadline:
            peer.call(PING)
            slowest = max(slowest, time.monotonic() - begin)
            time.sleep(0.01)
    return slowest


def test_300_silent_connections_are_closed_and_keep_nobody_out(target: Target) -> None:
    with closes(target, 300), contextlib.ExitStack() as stack:
        begin = time.monotonic()
        silent = [
            stack.enter_context(target.connect(port))
            for port in ("unix", "tcp", "metastore")
            for _ in range(100)
        ]
        still_open = silent
        while len(still_open) > STRANGERS_MAX:  # Some wait to be accepted.
            assert time.monotonic() - begin < SILENCE_S - 3.0
            still_open = [p for p in still_open if not p.is_closed_within(0.001)]
        assert target.serves()
        assert slowest_call_s(target, seconds=1.0) < 1.0
        still_open = [p for p in still_open if not p.is_closed_within(0.001)]
        assert len(still_open) >= STRANGERS_MAX - 2  # serves() has taken a place.
        assert time.monotonic() - begin < SILENCE_S
        for peer in still_open:
            assert peer.is_closed_within(SILENCE_S)
        assert SILENCE_S - 0.5 < time.monotonic() - begin < SILENCE_S + 8.0


# ---- A peer that does not read -------------------------------------------------------


def send_until_closed(peer: RawPeer, request: bytes) -> int:
    """How many requests it took; the replies are left unread."""
    peer.socket.settimeout(CLOSED_WITHIN_S)
    for count in range(200_000):
        if not peer.send(request):
            return count
    raise AssertionError("the worker keeps on queueing")


@PORTS
def test_a_peer_that_never_reads_is_closed(target: Target, port: str) -> None:
    request = frame(STATS) * 1000
    if port != "metastore":
        request = frame(LOOKUP, lookup_body([b"k"] * 10_000))  # The reply: 290 kB.
    with closes(target), target.connect(port) as peer:
        peer.hello()
        assert send_until_closed(peer, request) > 0


def test_a_value_that_nobody_reads_can_be_deleted(target: Target) -> None:
    value = os.urandom(8 * MB)
    with closes(target), target.connect("tcp") as reader, target.connect("tcp") as own:
        own.hello()
        reader.hello()
        assert own.call(PUT, put_body(b"large"), value).status == 0
        reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert reader.send(frame(FETCH, lookup_body([b"large"])) * 3)
        time.sleep(0.2)
        for number in range(24):  # Three arenas full: room comes back every time.
            name = b"large" if number % 2 else b"other"
            reply: Reply = own.call(PUT, put_body(name), value)
            assert reply.status == 0, reply.body


# ---- Coming and going ----------------------------------------------------------------


@PORTS
def test_connections_that_come_and_go_leave_nothing(target: Target, port: str) -> None:
    with closes(target, 0):
        for number in range(300):
            with target.connect(port) as peer:
                if number % 2 == 0:
                    peer.hello()


def test_requests_that_wait_go_with_their_connection(target: Target) -> None:
    with closes(target, 0), contextlib.ExitStack() as stack:
        for _ in range(50):
            peer = stack.enter_context(target.connect("unix"))
            peer.hello(0)
            peer.send(frame(LOOKUP, lookup_body([b"never"], wait_ms=60_000)))
            peer.send(frame(ORPHANS))
        time.sleep(0.2)


def test_a_create_needs_a_member(target: Target) -> None:
    with closes(target), target.connect("unix") as peer:
        peer.hello()
        assert is_refused(peer, frame(CREATE, b"\0" * 9))
