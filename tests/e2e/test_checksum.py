"""Damaged bytes are found and reported, and never returned.

The tests damage what is in the arena, through the memory file of the worker, and what
is on its way, through a relay that flips one bit.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from kv_fixtures import ARENA_MB, MB, key, kv_worker  # noqa: F401
from worker_process import WorkerProcess, free_port, running_worker

from yr.datasystem import DatasystemError, _core

CORRUPT = 20
_WAIT_S = 20.0
_CHUNK = 1 << 16


def value_of(size: int) -> bytes:
    """Bytes that stand nowhere else in the arena."""
    return (os.urandom(4096) * (size // 4096 + 1))[:size]


def connect(worker: WorkerProcess, **options: bool) -> _core.Client:
    return _core.Client(worker.host, worker.port, 5000, 5000, **options)


def tcp(worker: WorkerProcess) -> _core.Client:
    client = connect(worker, no_shared_memory=True)
    assert not client.uses_shared_memory
    return client


def put(client: _core.Client, key: str, value: bytes) -> None:
    client.put(key, value, 0, False, 0)


def arena_of(pid: int) -> Path:
    """Connections come and go in the folder meanwhile."""
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if "datasystem_arena" in os.readlink(path):
                return path
    raise AssertionError(f"process {pid} has no arena")


def damage(worker: WorkerProcess, value: bytes, at: int) -> None:
    """Flip a bit of the byte `at` of `value`, where it stands in the arena."""
    with arena_of(worker.child_pid()).open("r+b") as file:
        place = file.read(ARENA_MB * MB).find(value)
        assert place >= 0
        file.seek(place + at)
        file.write(bytes([value[at] ^ 4]))


@contextmanager
def corrupt(*words: str) -> Iterator[None]:
    with pytest.raises(DatasystemError) as caught:
        yield
    assert caught.value.code == CORRUPT, caught.value
    for word in ("damage", "checksum", *words):
        assert word in str(caught.value)


class Relay:
    """Passes bytes on, but `marker` once as `damaged`, in either direction."""

    def __init__(self, worker: WorkerProcess, marker: bytes, damaged: bytes) -> None:
        assert len(marker) == len(damaged)
        self._target = (worker.host, worker.port)
        self._marker, self._damaged = marker, damaged
        self.hits = 0
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._start(self._pump, near, far)
            self._start(self._pump, far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with source:
            while data := self._received(source):
                if self.hits == 0 and self._marker in data:
                    self.hits += 1
                    data = data.replace(self._marker, self._damaged, 1)
                sink.sendall(data)
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    @staticmethod
    def _received(source: socket.socket) -> bytes:
        try:
            return source.recv(_CHUNK)
        except OSError:
            return b""

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


def through(relay: Relay) -> _core.Client:
    return _core.Client("127.0.0.1", relay.port, 5000, 5000, no_shared_memory=True)


def unchecked(client: _core.Client) -> int:
    return int(json.loads(client.stats())["objects_without_checksum"])


def wait_until_all_have_one(client: _core.Client) -> None:
    end = time.monotonic() + _WAIT_S
    while unchecked(client) > 0:
        assert time.monotonic() < end
        time.sleep(0.02)


# ---- In the arena ----


@pytest.mark.parametrize("size", [100, 20_000, 9 * MB])
def test_damage_in_the_arena_is_not_sent(
    kv_worker: WorkerProcess, key: str, size: int
) -> None:
    value = value_of(size)
    with_memory, without = connect(kv_worker), tcp(kv_worker)
    put(with_memory, key, value)
    assert without.get_bytes([key], 0) == [value]
    damage(kv_worker, value, size - 1)
    with corrupt(f"'{key}'", "store it again"):
        without.get_bytes([key], 0)
    with_memory.delete([key])


def test_a_client_that_verifies_reads_no_damage_in_shared_memory(
    kv_worker: WorkerProcess, key: str
) -> None:
    value = value_of(MB)
    plain, careful = connect(kv_worker), connect(kv_worker, verify=True)
    put(plain, key, value)
    put(plain, key + "2", b"x" + value)
    assert careful.get_bytes([key, key + "2"], 0) == [value, b"x" + value]
    assert careful.get_range(key, 10, 5, 0) is not None
    damage(kv_worker, b"x" + value, 0)
    for read in (
        lambda: careful.get([key, key + "2"], 0),
        lambda: careful.get_range(key + "2", 500, 10, 0),
    ):
        with corrupt(f"'{key}2'"):
            read()
    assert careful.get_bytes([key], 0) == [value]
    plain.delete([key, key + "2"])


def test_the_environment_makes_every_client_verify(
    kv_worker: WorkerProcess, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = value_of(50_000)
    monkeypatch.setenv("DATASYSTEM_VERIFY", "1")
    careful = connect(kv_worker)
    put(careful, key, value)
    damage(kv_worker, value, 7)
    with corrupt(f"'{key}'"):
        careful.get([key], 0)
    careful.delete([key])


# ---- Without a checksum of the writer's ----


def write_in_place(client: _core.Client, key: str, value: bytes) -> None:
    (buffer,) = client.create([key], [len(value)], 0, False, 0)
    memoryview(buffer)[:] = value
    client.seal([buffer])


@pytest.mark.parametrize("size", [1000, 6 * MB])
def test_what_was_written_in_place_is_protected_soon(
    kv_worker: WorkerProcess, key: str, size: int
) -> None:
    value = value_of(size)
    client, careful = connect(kv_worker), connect(kv_worker, verify=True)
    write_in_place(client, key, value)
    wait_until_all_have_one(client)
    assert careful.get_bytes([key], 0) == [value]
    damage(kv_worker, value, size // 2)
    with corrupt(f"'{key}'"):
        careful.get([key], 0)
    client.delete([key])


def test_what_is_written_by_two_ways_has_the_checksum_of_the_last(
    kv_worker: WorkerProcess, key: str
) -> None:
    client, careful = connect(kv_worker), connect(kv_worker, verify=True)
    value = value_of(MB)
    (buffer,) = client.create([key], [MB], 0, False, 0)
    view = memoryview(buffer)
    buffer.memory_copy(value)
    view[5:8] = b"abc"
    buffer.memory_copy(b"12")
    client.seal([buffer])
    wait_until_all_have_one(client)
    assert careful.get_bytes([key], 0) == [b"12" + value[2:5] + b"abc" + value[8:]]
    view.release()
    client.delete([key])


def test_a_part_of_a_block_is_protected_and_named(kv_worker: WorkerProcess) -> None:
    value = value_of(3 * MB)
    client, careful = connect(kv_worker), connect(kv_worker, verify=True)
    (part,) = client.block_create([len(value)])
    memoryview(part)[:] = value
    block = client.block_seal([part])
    wait_until_all_have_one(client)
    (back,) = tcp(kv_worker).block_get([block], [0])
    assert bytes(back) == value
    damage(kv_worker, value, 0)
    for reader in (careful, tcp(kv_worker)):
        with corrupt(f"block part {block.hex()}00000000"):
            reader.block_get([block], [0])
    client.block_delete([block])


# ---- Through a worker's death ----


def test_checksums_survive_a_killed_worker(tmp_path: Path) -> None:
    hashed, unhashed = value_of(5 * MB), value_of(20 * MB)
    with running_worker(tmp_path, shared_memory_size_mb=ARENA_MB) as worker:
        client = connect(worker)
        put(client, "hashed", hashed)
        write_in_place(client, "unhashed", unhashed)
        worker.kill_child()
        careful = connect(worker, verify=True)
        assert careful.get_bytes(["hashed", "unhashed"], 0) == [hashed, unhashed]
        wait_until_all_have_one(client)
        assert careful.get_bytes(["hashed", "unhashed"], 0) == [hashed, unhashed]
        damage(worker, hashed, 1)
        damage(worker, unhashed, 1)
        for name in ("hashed", "unhashed"):
            with corrupt(f"'{name}'"):
                careful.get([name], 0)


# ---- On the wire ----


def flipped(value: bytes) -> bytes:
    return value[:100] + bytes([value[100] ^ 128]) + value[101:]


@pytest.mark.parametrize("size", [5000, 3 * MB])
def test_damage_on_the_way_from_the_worker_is_found(
    kv_worker: WorkerProcess, key: str, size: int
) -> None:
    value = value_of(size)
    put(connect(kv_worker), key, value)
    with Relay(kv_worker, value[:1000], flipped(value[:1000])) as relay:
        client = through(relay)
        with corrupt(f"'{key}'"):
            client.get_bytes([key], 0)
        assert relay.hits == 1
        assert client.get_bytes([key], 0) == [value]  # The next time it is whole.
        (part,) = [client.get_range(key, 4000, 100, 0)]
        assert part is not None and bytes(part) == value[4000:4100]
        client.delete([key])
        client.close()


def test_damage_on_the_way_to_the_worker_is_found(
    kv_worker: WorkerProcess, key: str
) -> None:
    value = value_of(50_000)
    with Relay(kv_worker, value[:1000], flipped(value[:1000])) as relay:
        client = through(relay)
        with corrupt(f"'{key}'", "send them again"):
            put(client, key, value)
        assert relay.hits == 1
        with pytest.raises(DatasystemError):
            client.get([key], 0)  # Nothing was stored.
        put(client, key, value)
        assert client.get_bytes([key], 0) == [value]
        client.delete([key])
        client.close()


def test_a_seal_finds_damage_and_may_be_repeated(
    kv_worker: WorkerProcess, key: str
) -> None:
    value = value_of(2 * MB)
    with Relay(kv_worker, value[:1000], flipped(value[:1000])) as relay:
        client = through(relay)
        (buffer,) = client.create([key], [len(value)], 0, False, 0)
        buffer.memory_copy(value)
        with corrupt("send them again"):
            client.seal([buffer])
        client.seal([buffer])
        assert client.get_bytes([key], 0) == [value]
        assert json.loads(client.stats())["damaged_total"] >= 1
        client.delete([key])
        client.close()
