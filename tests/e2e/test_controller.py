"""The controller program: what clients, a worker, and a hostile peer see of it."""

from __future__ import annotations

import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from queue_fixtures import controller as controller
from queue_fixtures import folder as folder
from queue_fixtures import put
from queue_fixtures import worker as worker

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from queue_client import (
    FULL,
    HELLO,
    HELLO_BODY,
    INVALID,
    IO,
    MISMATCH,
    NOT_FOUND,
    NOT_READY,
    PING,
    QUEUE_CALL,
    Controller,
    FakeWorker,
    Frame,
    QueueClient,
    QueueError,
    block_id,
    connect,
    frame_header,
    receive_frame,
    running_controller,
    wait_until,
)


@pytest.fixture
def client(controller: Controller) -> Iterator[QueueClient]:
    with controller.client() as connected:
        yield connected


@pytest.fixture
def linked(folder: Path, tmp_path: Path, worker: FakeWorker) -> Iterator[Controller]:
    """A controller that has found its worker."""
    path = str(tmp_path / "worker")
    with running_controller(folder, "--worker_socket", path) as running:
        wait_until(lambda: not worker.orphan_requests.empty())
        yield running


def expect_error(status: int, text: str, client: QueueClient, *request: Any) -> None:
    with pytest.raises(QueueError, match=text) as caught:
        client.call(*request)
    assert caught.value.status == status


# ---- What clients see ----


def test_a_row_lives_from_put_to_clear(client: QueueClient) -> None:
    tags = [{"score": 0.5, "who": "ü"}, None]
    block = [[block_id(1)], "Yuanrong", ["x", "a"], [128, 64], []]
    reply = client.call("kv_put", "p", ["k1", "k2"], block, tags)
    assert reply == [[{"score": 0.5, "who": "ü"}, {}], ["a", "x"], []]
    found, fields, groups = client.call("kv_get", "p", ["k2", "no", "k1"], None)
    assert (found, fields) == ([0, 2], ["a", "x"])
    [(group_fields, blocks, runs)] = groups
    assert sorted(group_fields) == [0, 1]
    assert blocks == [[block_id(1), "Yuanrong"]]
    assert runs == [0, 1, 1, 0, 0, 1]
    assert client.call("kv_list", None) == {"p": {"k1": tags[0], "k2": {}}}
    assert client.call("kv_clear", "p", ["k1"]) == [[]]
    assert client.call("kv_clear", "p", ["k2"]) == [[block_id(1)]]
    assert client.call("kv_list", "p") == {"p": {}}


def test_errors_carry_their_status_and_text(client: QueueClient) -> None:
    expect_error(
        INVALID, "Got duplicated keys", client, "kv_put", "p", ["a", "a"], None, None
    )
    expect_error(
        NOT_FOUND,
        "keys or partition were not found!",
        client,
        "kv_get",
        "p",
        ["a"],
        None,
    )
    client.call("kv_put", "p", ["a"], None, [{"t": 1}])
    expect_error(
        NOT_READY, "Some fields are not ready", client, "kv_get", "p", ["a"], None
    )
    expect_error(INVALID, "unknown operation 'dance'", client, "dance")
    assert client.call("kv_list", None) == {"p": {"a": {"t": 1}}}


def test_200_000_keys_in_one_put(client: QueueClient) -> None:
    keys = [f"row/{i} ☃" for i in range(200_000)]
    begin = time.monotonic()
    tags, fields, dead = put(client, keys, 1, *[f"f{i}" for i in range(10)])
    _, _, groups = client.call("kv_get", "p", keys, None)
    elapsed = time.monotonic() - begin
    assert (len(tags), len(fields), dead) == (200_000, 10, [])
    assert [runs for _, _, runs in groups] == [[0, 0, 200_000]]
    assert client.call("kv_clear", "p", keys) == [[block_id(1)]]
    assert elapsed < 10


def test_requests_of_one_connection_are_answered_in_order(client: QueueClient) -> None:
    for i in range(500):
        client.send("kv_put", "p", [f"k{i}"], None, [{"i": i}])
    for i in range(500):
        assert client.receive() == [[{"i": i}], [], []]


def test_concurrent_tags_of_one_row_all_arrive(controller: Controller) -> None:
    def tag(name: str) -> None:
        with controller.client() as client:
            for i in range(200):
                client.call("kv_put", "p", ["k"], None, [{f"{name}{i}": i}])

    threads = [threading.Thread(target=tag, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    with controller.client() as client:
        assert len(client.call("kv_list", "p")["p"]["k"]) == 600


def test_config_get_waits_for_config_set(controller: Controller) -> None:
    with controller.client() as early, controller.client() as late:
        early.send("config_get", 10_000)
        with controller.client() as leaving:
            leaving.send("config_get", 10_000)
        assert late.call("config_get", 0) is None
        assert late.call("config_set", b"the config") is None
        assert early.receive() == b"the config"
        assert late.call("config_get", 10_000) == b"the config"


def test_config_get_gives_up_after_its_time(client: QueueClient) -> None:
    begin = time.monotonic()
    assert client.call("config_get", 300) is None
    assert 0.25 < time.monotonic() - begin < 5


def test_a_parked_request_stops_nobody_else(controller: Controller) -> None:
    with controller.client() as waiting, controller.client() as other:
        waiting.send("config_get", 60_000)
        waiting.send("kv_put", "p", ["a"], None, None)
        assert waiting.receive() == [[{}], [], []]
        expect_error(INVALID, "waits for it already", waiting, "config_get", 60_000)
        assert other.call("kv_list", None) == {"p": {"a": {}}}


def test_stats_count(client: QueueClient) -> None:
    put(client, ["a", "b"], 1, "x")
    client.call("kv_get", "p", ["a"], None)
    stats = client.call("stats")
    assert stats["rows"] == 2
    assert stats["blocks"] == 1
    assert stats["blocks_live_bytes"] == 64
    assert (stats["puts"], stats["put_rows"]) == (1, 2)
    assert (stats["gets"], stats["get_rows"]) == (1, 1)


def test_ping_is_answered(client: QueueClient) -> None:
    assert client.exchange(Frame(PING, 0, 9, b"", b"")).body == b""


# ---- The worker ----


def test_new_blocks_are_adopted_and_dead_ones_deleted(
    linked: Controller, worker: FakeWorker
) -> None:
    with linked.client() as client:
        assert put(client, ["a", "b"], 1, "x") == [[{}, {}], ["x"], []]
        assert worker.next_orders(1) == [("adopt", block_id(1))]
        assert put(client, ["a", "b"], 2, "x") == [[{}, {}], ["x"], []]
        assert client.call("kv_clear", "p", ["a", "b"]) == [[]]
        orders = worker.next_orders(3)
        assert sorted(orders) == sorted(
            [("adopt", block_id(2)), ("delete", block_id(1)), ("delete", block_id(2))]
        )
        assert orders.index(("adopt", block_id(2))) < orders.index(
            ("delete", block_id(2))
        )


def test_a_failed_put_is_not_adopted(linked: Controller, worker: FakeWorker) -> None:
    with linked.client() as client:
        with pytest.raises(QueueError):
            put(client, ["a", "a"], 1, "x")
        put(client, ["a"], 2, "x")
        assert worker.next_orders(1) == [("adopt", block_id(2))]


def test_orphans_are_refused_or_adopted(linked: Controller, worker: FakeWorker) -> None:
    with linked.client() as client:
        put(client, ["a"], 1, "x")
        assert worker.next_orders(1) == [("adopt", block_id(1))]
        worker.report_orphans([block_id(1), block_id(9)])
        assert worker.next_orders(2) == [
            ("adopt", block_id(1)),
            ("delete", block_id(9)),
        ]
        with pytest.raises(QueueError, match="given up") as caught:
            put(client, ["b"], 9, "x")
        assert caught.value.status == NOT_FOUND
        worker.report_orphans([block_id(10)])
        assert worker.next_orders(1) == [("delete", block_id(10))]


def test_unacknowledged_orders_are_told_again_after_a_restart(
    linked: Controller, worker: FakeWorker, tmp_path: Path
) -> None:
    worker.mute = True
    with linked.client() as client:
        put(client, ["a"], 1, "x")
        assert worker.next_orders(1) == [("adopt", block_id(1))]
        put(client, ["b"], 2, "x")
        worker.close()
        put(client, ["c"], 3, "x")
        again = FakeWorker(tmp_path / "worker")
        try:
            assert again.next_orders(3) == [
                ("adopt", block_id(1)),
                ("adopt", block_id(2)),
                ("adopt", block_id(3)),
            ]
            client.call("kv_clear", "p", ["a"])
            assert again.next_orders(1) == [("delete", block_id(1))]
        finally:
            linked.stop()
            again.close()


def test_orders_about_an_old_arena_are_dropped(
    linked: Controller, worker: FakeWorker, tmp_path: Path
) -> None:
    worker.close()
    with linked.client() as client:
        put(client, ["a"], 1, "x")
        again = FakeWorker(tmp_path / "worker", incarnation=8)
        try:
            wait_until(lambda: not again.orphan_requests.empty())
            block = [[block_id(1, incarnation=8)], "Yuanrong", ["x"], [64], []]
            client.call("kv_put", "p", ["b"], block, None)
            assert again.next_orders(1) == [("adopt", block_id(1, incarnation=8))]
        finally:
            linked.stop()
            again.close()


@pytest.mark.parametrize("way", ["shutdown", "sigterm"])
def test_ending_deletes_all_blocks_first(
    linked: Controller, worker: FakeWorker, way: str
) -> None:
    with linked.client() as client:
        for i in range(1, 301):
            put(client, [f"k{i}"], i, "x")
        worker.next_orders(300)
        if way == "shutdown":
            assert client.call("shutdown") is None
        linked.stop()
    deleted = worker.next_orders(300)
    assert {id_ for _, id_ in deleted} == {block_id(i) for i in range(1, 301)}
    assert {order for order, _ in deleted} == {"delete"}


def test_ending_does_not_wait_for_a_worker_that_is_gone(
    linked: Controller, worker: FakeWorker
) -> None:
    with linked.client() as client:
        put(client, ["a"], 1, "x")
        worker.next_orders(1)
        worker.close()
        begin = time.monotonic()
        assert client.call("shutdown") is None
        assert time.monotonic() - begin < 4
    linked.stop()


def test_ending_does_not_wait_for_ever_for_a_worker_that_hangs(
    linked: Controller, worker: FakeWorker
) -> None:
    with linked.client() as client:
        put(client, ["a"], 1, "x")
        worker.next_orders(1)
        worker.mute = True
        begin = time.monotonic()
        assert client.call("shutdown") is None
        assert 4 < time.monotonic() - begin < 9
    linked.stop()


# ---- Bad peers ----


def closed_by_peer(sock: socket.socket) -> bool:
    try:
        while sock.recv(4096):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def hello_frame(body: bytes = HELLO_BODY) -> bytes:
    return Frame(HELLO, 0, 1, body, b"").encode()


@pytest.mark.parametrize(
    "bytes_",
    [
        b"GET / HTTP/1.1\r\n\r\n" + bytes(32),
        bytes(64),
        frame_header(HELLO, 0, 0, 1 << 31, 0),
        frame_header(HELLO, 0, 0, 0, 1 << 60),
        frame_header(QUEUE_CALL, 0, 0, 0, 16) + bytes(16),
        Frame(HELLO, 0, 0, b"", b"").encode(),
        Frame(HELLO, 0, 0, HELLO_BODY + b"x", b"").encode(),
        Frame(HELLO, 3, 0, HELLO_BODY, b"").encode(),
        hello_frame() * 2,
        hello_frame() + frame_header(QUEUE_CALL, 0, 0, 0, (256 << 20) + 1),
        hello_frame() + frame_header(QUEUE_CALL, 0, 0, 0, 1 << 63),
        hello_frame() + Frame(QUEUE_CALL, 0, 0, b"", b"").encode(),
        hello_frame() + Frame(QUEUE_CALL, 0, 0, b"body", b"\x91").encode(),
        hello_frame() + Frame(4, 0, 0, b"", b"").encode(),
    ],
)
def test_nonsense_closes_the_connection_and_nothing_else(
    controller: Controller, bytes_: bytes
) -> None:
    with controller.client() as bystander, connect(controller.socket) as sock:
        sock.sendall(bytes_)
        assert closed_by_peer(sock)
        assert bystander.call("kv_list", None) == {}


def test_another_protocol_version_is_told_so(controller: Controller) -> None:
    with connect(controller.socket) as sock:
        sock.sendall(hello_frame(struct.pack("<IIIIQIHQI", 1, 99, 0, 0, 0, 0, 0, 0, 0)))
        reply = receive_frame(sock)
        assert reply.status == MISMATCH
        assert b"protocol 99" in reply.body


def test_half_a_message_then_silence_then_the_end(controller: Controller) -> None:
    whole = Frame(
        QUEUE_CALL,
        0,
        2,
        b"",
        msgspec.msgpack.encode(["kv_put", "p", ["k"], None, None]),
    ).encode()
    for cut in range(len(whole)):
        with connect(controller.socket) as sock:
            sock.sendall(hello_frame() + whole[:cut])
    with controller.client() as client:
        assert client.call("kv_list", None) == {}


def test_random_requests_do_not_end_it(controller: Controller) -> None:
    seed = random.Random(1)
    good = msgspec.msgpack.encode(
        [
            "kv_put",
            "p",
            ["a", "b"],
            [[block_id(1)], "y", ["x"], [8], []],
            [{"t": 1}, None],
        ]
    )
    with controller.client() as client:
        for _ in range(3000):
            payload = bytearray(good)
            for _ in range(seed.randrange(1, 4)):
                payload[seed.randrange(len(payload))] = seed.randrange(256)
            client.sequence += 1
            frame = Frame(QUEUE_CALL, 0, client.sequence, b"", bytes(payload))
            client.sock.sendall(frame.encode())
            assert receive_frame(client.sock).sequence == client.sequence
        client.call("kv_list", None)


def test_announced_bytes_are_bounded(controller: Controller) -> None:
    """Five times 256 MiB are announced; only four may be."""
    before = controller.resident_bytes()
    announced = [connect(controller.socket) for _ in range(4)]
    try:
        for sock in announced:
            sock.sendall(hello_frame() + frame_header(QUEUE_CALL, 0, 1, 0, 256 << 20))
            receive_frame(sock)
            sock.sendall(bytes(1 << 16))
        time.sleep(0.2)
        with controller.client() as client:
            expect_error(
                FULL, "too many large requests at once", client, "kv_list", None
            )
        assert controller.resident_bytes() - before < 64 << 20
    finally:
        for sock in announced:
            sock.close()
    with controller.client() as client:
        assert client.call("kv_list", None) == {}


def test_silent_connections_are_limited_and_closed(controller: Controller) -> None:
    """Who comes when there are too many makes the oldest go."""
    with controller.client() as client:
        silent = [connect(controller.socket, 15) for _ in range(256)]
        try:
            with controller.client() as late:
                assert late.call("kv_list", None) == {}
            assert client.call("kv_list", None) == {}
            assert all(closed_by_peer(sock) for sock in silent)
        finally:
            for sock in silent:
                sock.close()


def test_a_client_that_does_not_read_its_replies_is_closed(
    controller: Controller,
) -> None:
    """Each listing is 60 MB; 256 MiB may wait for one client."""
    with controller.client() as writer, controller.client() as lazy:
        for i in range(60):
            writer.call("kv_put", "p", [f"k{i}"], None, [{"t": "x" * 1_000_000}])
        for _ in range(8):
            lazy.send("kv_list", None)
        wait_until(lambda: "does not read its replies" in controller.log.read_text())
        assert writer.call("stats")["rows"] == 60


def test_a_stopping_controller_says_so(linked: Controller, worker: FakeWorker) -> None:
    with linked.client() as client, linked.client() as other:
        put(client, ["a"], 1, "x")
        worker.next_orders(1)
        worker.mute = True
        client.send("shutdown")
        wait_until(lambda: not worker.orders.empty())
        expect_error(IO, "is ending", other, "kv_list", None)
        assert client.receive() is None
