"""KVClient against a real worker."""

from __future__ import annotations

import array
import os
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from kv_fixtures import ARENA_MB, MB, client, key, kv_worker, run_python  # noqa: F401
from worker_process import WorkerProcess

from yr.datasystem import (
    DatasystemError,
    ExistenceOpt,
    KVClient,
    ReadParam,
    WriteMode,
    copy_bytes,
)

# ---- set and get -----------------------------------------------------------------


def test_a_value_comes_back(client: KVClient, key: str) -> None:
    client.set(key, b"value")
    assert client.get([key]) == [b"value"]


def test_text_is_stored_as_utf8(client: KVClient, key: str) -> None:
    client.set(key, "häßlich")
    assert client.get([key]) == ["häßlich".encode()]
    assert client.get([key], convert_to_str=True) == ["häßlich"]


def test_a_second_set_replaces_the_value(client: KVClient, key: str) -> None:
    client.set(key, b"first, and longer")
    client.set(key, b"second")
    assert client.get([key]) == [b"second"]


@pytest.mark.parametrize("size", [1, 63, 64, 4096, 4097, MB, 20 * MB])
def test_values_of_every_size_come_back(client: KVClient, key: str, size: int) -> None:
    value = os.urandom(min(size, 4096)) * (size // 4096 + 1)
    client.set(key, value[:size])
    assert client.get([key]) == [value[:size]]
    client.delete([key])


def test_all_bytes_of_wide_items_are_stored(client: KVClient, key: str) -> None:
    numbers = array.array("d", range(1000))
    client.set(key, memoryview(numbers))
    assert client.get([key]) == [numbers.tobytes()]
    assert client.mset([key], [numbers]) == []
    assert client.get([key]) == [numbers.tobytes()]


def test_bytes_with_gaps_are_stored_as_one_run(client: KVClient, key: str) -> None:
    client.set(key, memoryview(b"abcdefgh")[::2])
    assert client.get([key]) == [b"aceg"]


def test_missing_keys_are_none_next_to_found_ones(client: KVClient, key: str) -> None:
    client.set(key, b"v")
    assert client.get(["absent", key, "absent"]) == [None, b"v", None]
    assert [b is None for b in client.get_buffers([key, "absent"])] == [False, True]


def test_nothing_found_is_an_error_with_the_words_users_know(client: KVClient) -> None:
    with pytest.raises(RuntimeError) as caught:
        client.get(["absent"])
    expected = "code: [Key not found], msg: [Cannot get objects from worker]"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(b"", "The dataSize value should be bigger than zero."), ("", "The dataSize")],
)
def test_empty_value_is_refused(
    client: KVClient, key: str, value: bytes | str, text: str
) -> None:
    with pytest.raises(DatasystemError, match=text) as caught:
        client.set(key, value)
    assert caught.value.code == 2
    with pytest.raises(DatasystemError, match=text):
        client.mset([key], [value])


def test_empty_key_is_refused_everywhere(client: KVClient) -> None:
    with pytest.raises(DatasystemError, match="The objectKey should not be empty"):
        client.set("", b"v")
    with pytest.raises(DatasystemError, match="The key should not be empty"):
        client.mset(["k", ""], [b"v", b"v"])
    with pytest.raises(DatasystemError, match=r"keys\[1\] can not be empty"):
        client.get(["k", ""])


@pytest.mark.parametrize("bad", ["a/b", "k" * 1025])
def test_every_key_of_a_batch_is_checked(client: KVClient, bad: str) -> None:
    with pytest.raises(DatasystemError, match=r"illegal char\(s\)"):
        client.mset(["first", bad], [b"v", b"v"])
    with pytest.raises(DatasystemError, match=r"illegal char\(s\)"):
        client.mcreate(["first", bad], [1, 1])
    assert client.exist(["first"]) == [False]


def test_key_of_the_greatest_length_works(client: KVClient) -> None:
    client.set("k" * 1024, b"v")
    assert client.exist(["k" * 1024]) == [True]


def test_batches_are_limited(client: KVClient) -> None:
    keys = [f"batch-{i}" for i in range(10_001)]
    with pytest.raises(DatasystemError, match="The objectKeys size exceed 10000"):
        client.get(keys)
    with pytest.raises(DatasystemError, match="The objectKeys size exceed 10000"):
        client.mset(keys, [b"v"] * len(keys))
    assert client.exist([f"batch-{i}" for i in range(100_000)]) == [False] * 100_000
    with pytest.raises(DatasystemError, match="The objectKeys size exceed 100000"):
        client.exist([f"batch-{i}" for i in range(100_001)])


def test_empty_batches_are_refused(client: KVClient) -> None:
    for call in (client.get, client.get_buffers, client.exist, client.delete):
        with pytest.raises(DatasystemError, match="The keys are empty"):
            call([])  # type: ignore[operator]
    with pytest.raises(DatasystemError, match="The buffer list must not be empty"):
        client.mset_buffer([])


@pytest.mark.parametrize(
    "mode",
    [
        WriteMode.WRITE_THROUGH_L2_CACHE,
        WriteMode.WRITE_BACK_L2_CACHE,
        WriteMode.WRITE_BACK_L2_CACHE_EVICT,
    ],
)
def test_modes_of_a_second_level_are_refused(
    client: KVClient, key: str, mode: WriteMode
) -> None:
    with pytest.raises(DatasystemError, match="but L2_cache_type is set to none"):
        client.set(key, b"v", mode)


def test_what_may_be_evicted_goes_when_room_is_short(client: KVClient) -> None:
    count = 3 * ARENA_MB // 4
    client.set("kept", bytes(4 * MB))
    first = client.set_value(b"seen first", WriteMode.NONE_L2_CACHE_EVICT)
    (held,) = client.get_buffers([first])
    evictable = [f"evictable-{i}" for i in range(2 * count)]
    for name in evictable:
        client.set(name, bytes(MB), WriteMode.NONE_L2_CACHE_EVICT)
    assert not client.exist(evictable[:1])[0]
    assert client.exist(["kept", first, evictable[-1]]) == [True] * 3
    client.set("large", bytes(count * MB // 2))
    assert held is not None
    assert memoryview(held) == b"seen first"
    del held
    client.delete(["kept", "large", first, *evictable])


def test_set_value_gives_the_key(client: KVClient) -> None:
    key = client.set_value(b"v")
    assert len(key) == 36
    assert client.get([key]) == [b"v"]


def test_set_value_that_fails_gives_no_key(client: KVClient) -> None:
    assert client.set_value(b"") == ""


# ---- mset ------------------------------------------------------------------------


def test_many_values_come_back(client: KVClient) -> None:
    keys = [f"many-{i}" for i in range(3000)]
    values = [f"value {i}".encode() * (i % 50 + 1) for i in range(3000)]
    assert client.mset(keys, values) == []
    assert client.get(keys) == values


def test_of_a_repeated_key_the_first_value_is_stored(client: KVClient) -> None:
    keys = ["twice-a", "twice-b", "twice-a"]
    assert client.mset(keys, [b"1", b"2", b"3"]) == ["twice-a"]
    assert client.get(["twice-a", "twice-b"]) == [b"1", b"2"]


def test_nx_keeps_values_and_does_not_report_them(client: KVClient) -> None:
    client.set("nx-old", b"old")
    keys = ["nx-old", "nx-new"]
    failed = client.mset(keys, [b"x", b"new"], existence_opt=ExistenceOpt.NX)
    assert failed == []
    assert client.get(keys) == [b"old", b"new"]


def test_keys_without_room_are_reported_and_the_others_stored(client: KVClient) -> None:
    keys = ["room-small", "room-huge"]
    assert client.mset(keys, [b"v", bytes(2 * ARENA_MB * MB)]) == ["room-huge"]
    assert client.exist(keys) == [True, False]


def test_no_room_for_any_key_is_an_error_with_the_remedy(client: KVClient) -> None:
    with pytest.raises(RuntimeError) as caught:
        client.mset(["room-huge"], [bytes(2 * ARENA_MB * MB)])
    assert str(caught.value).startswith(
        "code: [Out of memory], msg: [Shared memory no space in arena"
    )
    with pytest.raises(RuntimeError, match=r"code: \[Out of memory\]"):
        client.set("room-huge", bytes(2 * ARENA_MB * MB))


def test_counts_of_keys_and_values_must_agree(client: KVClient) -> None:
    text = "The number of key and value is not the same"
    with pytest.raises(DatasystemError, match=text):
        client.mset(["a", "b"], [b"v"])
    with pytest.raises(DatasystemError, match="The number of key and size"):
        client.mcreate(["a", "b"], [1])


# ---- Buffers ---------------------------------------------------------------------


def test_buffers_are_filled_in_place_and_published_together(client: KVClient) -> None:
    keys, sizes = ["fill-a", "fill-b"], [100, 2 * MB]
    buffers = client.mcreate(keys, sizes)
    assert [buffer.GetSize() for buffer in buffers] == sizes
    for buffer in buffers:
        buffer.MutableData()[:] = b"x" * buffer.GetSize()
    assert client.exist(keys) == [False, False]
    client.mset_buffer([None, *buffers])
    assert client.get(keys) == [b"x" * size for size in sizes]


@pytest.mark.parametrize("size", [100, 100_000, (8 << 20) + 77])
def test_a_buffer_takes_a_copy_of_bytes(client: KVClient, key: str, size: int) -> None:
    value = os.urandom(size)
    buffer = client.mcreate([key], [size + 1])[0]
    for bad in (b"", value + b"xx"):
        with pytest.raises(RuntimeError, match=r"Data length must be in \(0, buffer_s"):
            buffer.memory_copy(bad)
    buffer.memory_copy(b"x" * (size + 1))
    buffer.memory_copy(value)
    client.mset_buffer([buffer])
    assert client.get([key]) == [value + b"x"]
    with pytest.raises(RuntimeError, match="already sealed"):
        buffer.memory_copy(value)


def test_bytes_are_copied_between_buffers_of_one_size() -> None:
    target = bytearray(5)
    copy_bytes(memoryview(target)[1:4], b"abc")
    assert target == b"\0abc\0"
    with pytest.raises(RuntimeError, match="same number of bytes"):
        copy_bytes(target, b"abc")
    with pytest.raises(TypeError):
        copy_bytes(b"immutable", b"immutable")


def test_published_buffers_are_read_only_and_published_once(
    client: KVClient, key: str
) -> None:
    (buffer,) = client.mcreate([key], [8])
    client.mset_buffer([buffer])
    assert memoryview(buffer).readonly
    assert buffer.ImmutableData().readonly
    for call in (buffer.MutableData, lambda: client.mset_buffer([buffer])):
        with pytest.raises(DatasystemError, match="already sealed"):
            call()


def test_the_same_buffer_twice_in_one_list_is_refused(
    client: KVClient, key: str
) -> None:
    (buffer,) = client.mcreate([key], [8])
    with pytest.raises(DatasystemError, match="already sealed"):
        client.mset_buffer([buffer, buffer])
    client.mset_buffer([buffer])
    assert client.exist([key]) == [True]


def test_a_buffer_that_is_dropped_never_existed(client: KVClient, key: str) -> None:
    (buffer,) = client.mcreate([key], [8])
    del buffer
    assert client.exist([key]) == [False]


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_below_one_are_refused(client: KVClient, size: int) -> None:
    with pytest.raises((DatasystemError, OverflowError)):
        client.mcreate(["size"], [size])


def test_views_outlive_release_delete_and_close(kv_worker: WorkerProcess) -> None:
    value = os.urandom(3 * MB)
    client = KVClient(kv_worker.host, kv_worker.port)
    client.init()
    client.set("outlive", value)
    (buffer,) = client.get_buffers(["outlive"])
    assert buffer is not None
    view = memoryview(buffer)
    private = buffer.view()
    assert private is not None
    buffer.release()
    client.set("outlive", b"other")
    client.delete(["outlive"])
    client.close()
    assert bytes(view) == value
    assert bytes(private) == value
    with pytest.raises(BufferError, match="released"):
        memoryview(buffer)


def test_a_private_view_is_written_without_anyone_seeing_it(
    client: KVClient, key: str
) -> None:
    client.set(key, b"x" * MB)
    (buffer,) = client.get_buffers([key])
    assert buffer is not None
    private = buffer.view()
    assert private is not None
    changed = memoryview(private)
    changed[:4] = b"mine"
    assert bytes(changed[:5]) == b"minex"
    assert client.get([key]) == [b"x" * MB]


def test_read_only_buffers_show_the_bytes(client: KVClient, key: str) -> None:
    client.set(key, b"value")
    found, missing = client.get_read_only_buffers([key, "absent"])
    assert missing is None
    assert found is not None
    found.rlatch()
    data = found.immutable_data(with_latch=True)
    found.unrlatch()
    assert (bytes(data), data.readonly, found.get_size()) == (b"value", True, 5)


def test_parts_of_values_are_read(client: KVClient, key: str) -> None:
    client.set(key, b"0123456789")
    parts = client.read([ReadParam(key, 2, 3), ReadParam("absent", 0, 1)])
    assert [p and bytes(p.immutable_data()) for p in parts] == [b"234", None]
    (rest,) = client.read([ReadParam(key, 7, 0)])
    assert rest is not None
    assert bytes(rest.immutable_data()) == b"789"


def test_parts_outside_a_value_are_refused(client: KVClient, key: str) -> None:
    client.set(key, b"0123456789")
    for offset, size in ((11, 1), (5, 6)):
        with pytest.raises(DatasystemError) as caught:
            client.read([ReadParam(key, offset, size)])
        assert caught.value.code == 12


def test_read_refuses_repeated_keys_and_reports_missing_ones(client: KVClient) -> None:
    with pytest.raises(DatasystemError, match="twice"):
        client.read([ReadParam("r", 0, 1), ReadParam("r", 1, 1)])
    with pytest.raises(DatasystemError, match="Cannot get objects from worker"):
        client.read([ReadParam("absent", 0, 1)])


# ---- delete, exist, expire -------------------------------------------------------


def test_delete_of_a_missing_key_is_a_success(client: KVClient, key: str) -> None:
    client.set(key, b"v")
    assert client.delete([key, "absent"]) == []
    assert client.delete([key]) == []
    assert client.exist([key]) == [False]


def test_a_value_expires(client: KVClient, key: str) -> None:
    client.set(key, b"v", ttl_second=1)
    assert client.exist([key]) == [True]
    time.sleep(1.6)
    assert client.exist([key]) == [False]


def test_expire_reports_missing_keys_and_raises_when_all_are(
    client: KVClient, key: str
) -> None:
    client.set(key, b"v")
    assert client.expire([key, "absent"], 1000) == ["absent"]
    with pytest.raises(RuntimeError, match=r"code: \[Key not found\]"):
        client.expire(["absent"], 1)


def test_expire_with_0_keeps_a_value(client: KVClient, key: str) -> None:
    client.set(key, b"v", ttl_second=1)
    assert client.expire([key], 0) == []
    time.sleep(1.6)
    assert client.exist([key]) == [True]


# ---- Waiting ---------------------------------------------------------------------


def test_get_waits_for_a_value_and_other_threads_run(
    kv_worker: WorkerProcess, client: KVClient, key: str
) -> None:
    """The main thread can only set the value because the waiting one has no GIL."""
    found: list[object] = []
    waiter = threading.Thread(
        target=lambda: found.extend(client.get([key], sub_timeout_ms=4000))
    )
    waiter.start()
    time.sleep(0.2)
    start = time.monotonic()
    client.set(key, b"late")
    waiter.join(4)
    assert found == [b"late"]
    assert time.monotonic() - start < 1


def test_a_wait_ends_at_its_timeout(client: KVClient) -> None:
    start = time.monotonic()
    with pytest.raises(DatasystemError, match="Cannot get objects"):
        client.get(["never"], sub_timeout_ms=300)
    assert 0.25 < time.monotonic() - start < 2


def test_close_ends_calls_that_wait(kv_worker: WorkerProcess) -> None:
    client = KVClient(kv_worker.host, kv_worker.port)
    client.init()
    caught: list[DatasystemError] = []

    def wait() -> None:
        try:
            client.get(["never"], sub_timeout_ms=8000)
        except DatasystemError as error:
            caught.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.3)
    start = time.monotonic()
    client.close()
    waiter.join(8)
    assert time.monotonic() - start < 1
    assert [(error.code, "closed" in error.message) for error in caught] == [(8, True)]


def test_interrupt_ends_a_wait_within_100_ms(kv_worker: WorkerProcess) -> None:
    run = run_python(
        """
        def interrupt():
            global sent
            time.sleep(0.5)
            sent = time.monotonic()
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            client.get(["never"], sub_timeout_ms=8000)
        except KeyboardInterrupt:
            print(time.monotonic() - sent)
        client.set("after-interrupt", b"v")
        assert client.get(["after-interrupt"]) == [b"v"]
        """,
        kv_worker,
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 0.1


def test_a_signal_handler_that_returns_lets_the_wait_go_on(
    kv_worker: WorkerProcess,
) -> None:
    """It may even use the client that waits."""
    run = run_python(
        """
        def handler(*_):
            client.set("from-handler", b"v")
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        print(client.get(["from-handler"], sub_timeout_ms=8000))
        """,
        kv_worker,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[b'v']"
