"""The registry of backends, and single values by key through a KVClient."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from fake_blocks import FakeStore

from transfer_queue.storage import (
    StorageManager,
    StorageManagerFactory,
    YuanrongStorageClient,
    YuanrongStorageManager,
)
from transfer_queue.storage.clients import StorageClientFactory, yuanrong_client
from yr.datasystem import DatasystemError

SECTION = {"worker_port": 31501, "host": "127.0.0.1"}


class FakeBuffer:
    """What KVClient.mcreate() returns."""

    def __init__(self, key: str, size: int) -> None:
        self.key = key
        self.data = bytearray(size)

    def MutableData(self) -> memoryview:
        return memoryview(self.data)


class FakeKVClient:
    """KVClient over a dict."""

    stored: dict[str, bytes]

    def __init__(self, host: str, port: int) -> None:
        assert (host, port) == ("127.0.0.1", 31501)
        self.stored = {}
        self.batches: list[int] = []

    def init(self) -> None: ...

    def mcreate(self, keys: Sequence[str], sizes: Sequence[int]) -> list[FakeBuffer]:
        self.batches.append(len(keys))
        return [FakeBuffer(key, size) for key, size in zip(keys, sizes, strict=True)]

    def mset_buffer(self, buffers: Sequence[FakeBuffer]) -> None:
        self.stored.update({buffer.key: bytes(buffer.data) for buffer in buffers})

    def get_buffers(self, keys: Sequence[str]) -> list[bytes | None]:
        if not any(key in self.stored for key in keys):
            raise RuntimeError("code: [Key not found], msg: [...]")
        return [self.stored.get(key) for key in keys]

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.stored.pop(key, None)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> YuanrongStorageClient:
    class FakeDatasystem:
        KVClient = FakeKVClient

    monkeypatch.setattr(yuanrong_client, "datasystem", FakeDatasystem)
    monkeypatch.setattr(yuanrong_client, "YUANRONG_DATASYSTEM_IMPORTED", True)
    return YuanrongStorageClient(SECTION)


VALUES = [
    torch.arange(6).reshape(2, 3),
    torch.tensor(1.5, dtype=torch.bfloat16),
    "text",
    b"",
    None,
    {"a": [1, (2, 3)]},
    datetime.date(2026, 1, 2),
]


def get(client: YuanrongStorageClient, keys: list[str], tags: list[Any]) -> list[Any]:
    nothing = [None] * len(keys)
    return client.get(keys, nothing, nothing, tags)


def test_values_of_any_type_come_back(client: YuanrongStorageClient) -> None:
    keys = [f"0@f{n}" for n in range(len(VALUES))]
    tags = client.put(keys, VALUES)
    assert tags == ["2"] * len(VALUES)
    tensor, half, *others = get(client, keys, tags)
    assert torch.equal(tensor, VALUES[0])
    assert half.dtype is torch.bfloat16
    assert half.item() == 1.5
    assert others == VALUES[2:]


def test_cleared_values_are_none_whether_some_or_all(
    client: YuanrongStorageClient,
) -> None:
    tags = client.put(["a", "b"], [1, 2])
    client.clear(["a"], ["2"])
    assert get(client, ["a", "b"], tags) == [None, 2]
    client.clear(["a", "b"], ["2", ""])
    assert get(client, ["a", "b"], tags) == [None, 2]
    client.clear(["b"], tags[1:])
    assert get(client, ["a", "b"], tags) == [None, None]


def test_batches_stay_within_what_one_call_takes(client: YuanrongStorageClient) -> None:
    keys = [f"k{n}" for n in range(10_001)]
    client.put(keys, [1] * 10_001)
    assert client._client.batches == [10_000, 1]
    assert get(client, keys, ["2"] * 10_001) == [1] * 10_001


def test_what_the_client_refuses(client: YuanrongStorageClient) -> None:
    with pytest.raises(ValueError, match=r"^keys and values must be lists$"):
        client.put("a", [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Number of keys \(1\)"):
        client.put(["a"], [])
    with pytest.raises(ValueError, match="needs shapes, dtypes and custom_backend"):
        client.get(["a"])
    with pytest.raises(ValueError, match="must be equal"):
        client.get(["a"], [None], [None], [])
    with pytest.raises(ValueError, match="no backend metadata"):
        get(client, ["a"], [""])
    with pytest.raises(ValueError, match=r"^Cannot retrieve stored data because the"):
        get(client, ["a"], ["1"])


@pytest.mark.parametrize("port", [None, "31501", 0, True])
def test_a_worker_port_must_be_a_number(port: Any) -> None:
    with pytest.raises(ValueError, match="Missing or invalid 'worker_port' in config"):
        YuanrongStorageManager(None, {"worker_port": port})


def test_another_client_name_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid 'client_name'"):
        YuanrongStorageManager(None, {**SECTION, "client_name": "Other"})


class FakeBlock:
    """Of so many parts of one byte."""

    def __init__(self, parts: int) -> None:
        self.part_sizes = [1] * parts

    def write_into(self, parts: Sequence[bytearray]) -> None:
        for part in parts:
            part[:] = b"x"


@pytest.mark.parametrize(
    ("parts", "requests"), [([4000, 4000, 2000], 1), ([4000, 4000, 2001, 1], 2)]
)
def test_room_for_blocks_is_asked_for_as_one_call_takes_it(
    store: FakeStore, parts: list[int], requests: int
) -> None:
    manager = YuanrongStorageManager("unix:/nowhere", SECTION, store.open)
    ids = manager.put_all([FakeBlock(count) for count in parts])
    assert [len(store.blocks[block_id]) for block_id in ids] == parts
    assert store.waits_ms == [1000] * requests


def test_blocks_that_find_no_room_leave_none_of_them(store: FakeStore) -> None:
    manager = YuanrongStorageManager("unix:/nowhere", SECTION, store.open)
    store.capacity = 10_000
    with pytest.raises(DatasystemError, match="no space"):
        manager.put_all([FakeBlock(4000) for _ in range(3)])
    assert store.blocks == {}


def test_backends_are_made_by_name() -> None:
    manager = StorageManagerFactory.create("Yuanrong", "unix:/x", SECTION)
    assert isinstance(manager, YuanrongStorageManager)
    assert manager.config["client_name"] == "YuanrongStorageClient"
    with pytest.raises(AssertionError, match=r"Unknown manager_type: X. Supported"):
        StorageManagerFactory.create("X", None, {})
    with pytest.raises(ValueError, match="Unknown StorageClient: X"):
        StorageClientFactory.create("X", {})


def test_a_backend_of_ones_own_can_be_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(StorageManagerFactory, "_registry", {})

    @StorageManagerFactory.register("Mine")
    class Mine(StorageManager):
        def put(self, block: Any) -> bytes:
            return bytes(16)

        def get(self, ids: Sequence[bytes], parts: Sequence[int]) -> list[Any]:
            return [None for _ in zip(ids, parts, strict=True)]

        def delete(self, ids: Sequence[bytes]) -> None: ...

    mine = StorageManagerFactory.create("Mine", "unix:/x", {"size": 3})
    assert isinstance(mine, Mine)
    assert mine.config == {"size": 3}
    with pytest.raises(TypeError, match="not a subclass of StorageManager"):
        StorageManagerFactory.register("Not")(int)  # type: ignore[type-var]
