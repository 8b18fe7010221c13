"""The life of a KVClient: closing, forking, signals, and a worker that dies."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from kv_fixtures import ARENA_MB, MB, client, key, kv_worker, run_python  # noqa: F401
from worker_process import WorkerProcess, running_worker

from yr.datasystem import (
    BlockClient,
    DatasystemError,
    KVClient,
)

# ---- Life ------------------------------------------------------------------------


def test_calls_after_close_say_so_and_init_connects_again(
    kv_worker: WorkerProcess,
) -> None:
    client = KVClient(kv_worker.host, kv_worker.port)
    client.init()
    client.init()
    assert client.health_check().is_ok()
    client.close()
    client.close()
    assert client.health_check().is_error()
    with pytest.raises(DatasystemError, match="not been initialized"):
        client.get(["k"])
    client.init()
    assert client.health_check().to_string() == "code: [OK], msg: []"
    client.close()


def test_environment_gives_the_worker(
    kv_worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASYSTEM_HOST", kv_worker.host)
    monkeypatch.setenv("DATASYSTEM_PORT", str(kv_worker.port))
    with KVClient() as client:
        assert client.health_check().is_ok()


def test_threads_share_a_client(client: KVClient) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(100):
                key, value = f"thread-{number}", f"{number}.{i}".encode() * 50
                client.set(key, value)
                assert client.get([key]) == [value]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_a_forked_child_reads_what_it_inherited_and_connects_anew(
    kv_worker: WorkerProcess,
) -> None:
    run = run_python(
        """
        client.set("fork", b"x" * 2000000)
        buffer, = client.get_buffers(["fork"])
        view = memoryview(buffer)
        pid = os.fork()
        if pid == 0:
            assert bytes(view) == b"x" * 2000000
            client.set("fork-child", b"from the child")
            assert client.get(["fork-child"]) == [b"from the child"]
            view.release()
            del buffer
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        client.delete(["fork"])
        for i in range(20):
            client.set(f"fork-{i}", b"y" * 2000000)
        assert bytes(view) == b"x" * 2000000
        client.delete([f"fork-{i}" for i in range(20)])
        print(client.get(["fork-child"]))
        """,
        kv_worker,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[b'from the child']"


def test_interpreter_ends_with_live_views_and_waiting_threads(
    kv_worker: WorkerProcess,
) -> None:
    run = run_python(
        """
        client.set("exit", b"x" * 2000000)
        buffer, = client.get_buffers(["exit"])
        views = [memoryview(buffer), memoryview(buffer.view())]
        unfinished = client.mcreate(["exit-unfinished"], [1000])
        cycle = [buffer, unfinished]
        cycle.append(cycle)
        wait = lambda: client.get(["never"], sub_timeout_ms=5000)
        threading.Thread(target=wait, daemon=True).start()
        time.sleep(0.2)
        print("end")
        """,
        kv_worker,
    )
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "end", "")


def test_calls_are_logged_where_the_environment_says(
    kv_worker: WorkerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASYSTEM_CLIENT_LOG_DIR", str(tmp_path / "logs"))
    run = run_python(
        """
        from yr.datasystem import Context
        Context.set_trace_id("step-1")
        client.set("logged", b"12345")
        client.get(["logged", "absent"])
        try:
            client.get(["absent"])
        except DatasystemError:
            pass
        """,
        kv_worker,
    )
    assert run.returncode == 0, run.stderr
    text = (tmp_path / "logs" / "ds_client_access.log").read_text()
    fields = [line.split(" | ") for line in text.splitlines()]
    seen = [(f[4], f[5], f[6], f[8], f[9]) for f in fields]
    assert seen == [
        ("step-1", "0", "DS_KV_CLIENT_SET", "5", "1"),
        ("step-1", "0", "DS_KV_CLIENT_GET", "5", "2"),
        ("step-1", "3", "DS_KV_CLIENT_GET", "0", "1"),
    ]


def test_a_log_folder_that_cannot_be_made_costs_one_warning(
    kv_worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASYSTEM_CLIENT_LOG_DIR", "/proc/no/such")
    run = run_python("client.set('unlogged', b'v')", kv_worker)
    assert run.returncode == 0
    assert run.stderr.count("RuntimeWarning: DATASYSTEM_CLIENT_LOG_DIR") == 1


def test_without_shared_memory_everything_travels_through_the_socket(
    kv_worker: WorkerProcess,
) -> None:
    client = BlockClient(kv_worker.host, kv_worker.port, 5000, 5000, True)
    assert not client.uses_shared_memory
    client.put("socket", b"x" * 100_000, 0, False, 0)
    (buffer,) = client.get(["socket"], 0)
    assert buffer is not None
    assert bytes(buffer) == b"x" * 100_000
    assert buffer.view() is None
    client.close()


# ---- Blocks ----------------------------------------------------------------------


def test_a_block_is_written_and_read_in_parts(kv_worker: WorkerProcess) -> None:
    client = BlockClient(kv_worker.host, kv_worker.port, 5000, 5000)
    parts = client.block_create([10, 100_000])
    for part in parts:
        memoryview(part)[:] = b"p" * part.size
    block_id = client.block_seal(parts)
    found = client.block_get([block_id, block_id], [1, 0])
    assert [f and bytes(f) for f in found] == [b"p" * 100_000, b"p" * 10]
    client.block_delete([block_id])
    with pytest.raises(DatasystemError) as caught:
        client.block_get([block_id], [0])
    assert caught.value.code == 3
    client.close()


def test_block_ids_of_a_wrong_size_are_refused(kv_worker: WorkerProcess) -> None:
    client = BlockClient(kv_worker.host, kv_worker.port, 5000, 5000)
    with pytest.raises(TypeError, match=r"ids\[0\] is not a block id of 16 bytes"):
        client.block_get([b"short"], [0])
    client.close()


# ---- The worker dies -------------------------------------------------------------


def test_sets_go_on_over_a_killed_worker(tmp_path: Path) -> None:
    with (
        running_worker(tmp_path, shared_memory_size_mb=64) as worker,
        KVClient(worker.host, worker.port) as client,
    ):
        client.set("before", b"v" * 100_000)
        (buffer,) = client.get_buffers(["before"])
        assert buffer is not None
        worker.kill_child()
        client.set("after", b"w")
        assert client.get(["before", "after"]) == [b"v" * 100_000, b"w"]
        assert bytes(buffer) == b"v" * 100_000


def test_a_worker_that_is_gone_ends_calls_in_time(tmp_path: Path) -> None:
    with running_worker(tmp_path, shared_memory_size_mb=64) as worker:
        client = KVClient(worker.host, worker.port, connect_timeout_ms=1000)
        client.init()
        client.set("k", b"v")
        os.kill(worker.pid, signal.SIGTERM)
        time.sleep(1)
        start = time.monotonic()
        with pytest.raises(DatasystemError) as caught:
            client.set("k", b"v")
        assert time.monotonic() - start < 3
        assert caught.value.code in (1001, 1002)
        assert client.health_check().is_error()
        client.close()


# ---- Places (--max_client_num) ---------------------------------------------------


def open_client(worker: WorkerProcess) -> KVClient:
    client = KVClient(worker.host, worker.port)
    client.init()
    return client


def test_clients_closed_or_dropped_give_their_places_back(tmp_path: Path) -> None:
    with running_worker(tmp_path, "--max_client_num=3", shared_memory_size_mb=64) as w:
        for _ in range(20):
            open_client(w).close()
            open_client(w)  # Dropped: nobody refers to it any more.
        clients = [open_client(w) for _ in range(3)]
        for client in clients:
            client.close()


def test_a_view_keeps_the_place_of_its_closed_client(tmp_path: Path) -> None:
    with running_worker(tmp_path, "--max_client_num=1", shared_memory_size_mb=64) as w:
        client = open_client(w)
        client.set("k", b"kept")
        [view] = client.get_buffers(["k"])
        client.close()
        with pytest.raises(DatasystemError, match="upper to the limit"):
            open_client(w)
        assert view is not None
        assert bytes(view) == b"kept"
        del view
        deadline = time.monotonic() + 10
        while True:
            try:
                open_client(w).close()
                break
            except DatasystemError:
                assert time.monotonic() < deadline
                time.sleep(0.02)


def test_clients_left_open_end_in_an_error_that_names_their_process(
    tmp_path: Path,
) -> None:
    with running_worker(tmp_path, "--max_client_num=3", shared_memory_size_mb=64) as w:
        clients = [open_client(w) for _ in range(3)]
        with pytest.raises(DatasystemError) as caught:
            open_client(w)
        text = str(caught.value)
        assert "Client number upper to the limit: all 3 places" in text
        assert "--max_client_num" in text
        assert f"3 of them by PID {os.getpid()} (" in text
        clients[0].set("k", b"1")  # The others go on.
        assert clients[2].get(["k"]) == [b"1"]
        for client in clients:
            client.close()
