"""What a get returns is the caller's own and stays right, whatever happens to the data,
the client, the worker or the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap

from e2e import Done, Site, expect_line, finish, tell
from kv_fixtures import client as client
from kv_fixtures import kv_worker as kv_worker
from worker_process import WorkerProcess

from yr.datasystem import BlockClient, KVClient

HELPERS = textwrap.dedent(
    """
    KEYS = [f"row-{i}" for i in range(4)]
    FILLER = [f"filler-{i}" for i in range(4)]

    def put(byte, keys=KEYS):
        rows = torch.full((4, 1 << 19), byte, dtype=torch.uint8)
        tq.kv_batch_put(keys, fields=TensorDict({"v": rows}, 4), partition_id="p")

    def get():
        "The bytes of all rows, 2 MiB, in one private view."
        values = tq.kv_batch_get(KEYS, partition_id="p")["v"].values()
        first, last = values.data_ptr(), values.data_ptr() + values.nbytes
        assert any(begin <= first and last <= end for begin, end in views())
        return values

    def view_count():
        return len(views())

    def views():
        with open("/proc/self/maps") as maps:
            lines = [line for line in maps if " rw-p " in line and "memfd:data" in line]
        return [[int(n, 16) for n in line.split()[0].split("-")] for line in lines]

    def is_all(values, byte):
        return bool((values == byte).all())

    def forget_and_refill():
        "The rows are gone, and everything free is written again and again."
        tq.kv_clear(KEYS, partition_id="p")
        for round in range(80):
            put(200 + round % 50, FILLER)
            tq.kv_clear(FILLER, partition_id="p")
    """
)


def start(site: Site, code: str) -> subprocess.Popen[str]:
    return site.start(HELPERS + textwrap.dedent(code))


def run(site: Site, code: str) -> Done:
    return finish(start(site, code))


def check_done(done: Done) -> None:
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1:] == ["done"], done.err


def test_what_a_caller_changes_nobody_else_sees(site: Site) -> None:
    owner = start(
        site,
        """
        tq.init(conf())
        put(1)
        mine, other = get(), get()
        mine += 1
        assert is_all(mine, 2) and is_all(other, 1) and is_all(get(), 1)
        say("changed")
        wait_for_line()
        other += 8
        assert is_all(mine, 2) and is_all(other, 9) and is_all(get(), 1)
        tq.close()
        say("done")
        """,
    )
    expect_line(owner, "changed")
    guest = run(
        site,
        """
        tq.init(conf())
        values = get()
        assert is_all(values, 1)
        values += 4
        assert is_all(values, 5) and is_all(get(), 1)
        say("done")
        """,
    )
    check_done(guest)
    tell(owner)
    check_done(finish(owner))


def test_views_stay_right_after_clear_and_close(site: Site) -> None:
    done = run(
        site,
        """
        tq.init(conf())
        put(1)
        read, changed = get(), get()
        changed[:100] = 7
        forget_and_refill()
        assert is_all(read, 1)
        tq.close()
        assert is_all(read, 1)
        assert is_all(changed[:100], 7) and is_all(changed[100:], 1)
        read += 1
        assert is_all(read, 2)
        del read, changed
        assert view_count() == 0
        say("done")
        """,
    )
    check_done(done)


def test_views_stay_right_after_kills_of_the_worker(site: Site) -> None:
    """First of its child, then the arena is refilled; then of both processes."""
    owner = start(
        site,
        """
        tq.init(conf())
        put(1)
        read, changed = get(), get()
        changed[:100] = 7
        say("ready")
        wait_for_line()
        put(2, FILLER)
        forget_and_refill()
        assert is_all(read, 1)
        say("ready")
        wait_for_line()
        assert is_all(read, 1)
        assert is_all(changed[:100], 7) and is_all(changed[100:], 1)
        del read, changed
        say("done")
        """,
    )
    expect_line(owner, "ready")
    _, child = site.pids_of("datasystem_worker")
    os.kill(child, signal.SIGKILL)
    tell(owner)
    expect_line(owner, "ready")
    for pid in site.pids_of("datasystem_worker"):
        os.kill(pid, signal.SIGKILL)
    tell(owner)
    done = finish(owner)
    assert "done" in done.out, done.err


def test_views_stay_right_after_dscli_stop(site: Site) -> None:
    address = site.worker_address
    started = site.command(
        *("dscli", "start", "-d", str(site.folder / "home"), "-w"),
        *("--worker_address", address),
        *("--metastore_address", f"127.0.0.1:{site.metastore_port}"),
        *("--start_metastore_service", "true", "--shared_memory_size_mb", "64"),
    )
    assert started.code == 0, started.out + started.err
    host, _, port = address.rpartition(":")
    holder = site.start(
        f"""
        from yr.datasystem import KVClient
        client = KVClient({host!r}, {port})
        client.init()
        client.set("key", b"a" * 2_000_000)
        (buffer,) = client.get_buffers(["key"])
        view = memoryview(buffer.view())
        view[:3] = b"own"
        say("ready")
        wait_for_line()
        assert bytes(view) == b"own" + b"a" * 1_999_997
        assert bytes(buffer) == b"a" * 2_000_000
        say("done")
        """
    )
    expect_line(holder, "ready")
    stopped = site.command("dscli", "stop", "--worker_address", address)
    assert stopped.code == 0, stopped.out + stopped.err
    tell(holder)
    check_done(finish(holder))


def test_views_of_a_child_stay_right_when_its_parent_drops_them(site: Site) -> None:
    done = run(
        site,
        """
        import multiprocessing

        def look(values, go, answer):
            torch.set_num_threads(1)
            go.wait(60)
            is_right = is_all(values, 1)
            values += 2
            answer.put(is_right and is_all(values, 3))

        tq.init(conf())
        put(1)
        values = get()
        fork = multiprocessing.get_context("fork")
        go, answers = fork.Event(), fork.Queue()
        children = [
            fork.Process(target=look, args=(values, go, answers)) for _ in range(2)
        ]
        for child in children:
            child.start()
        assert is_all(values, 1)
        del values
        forget_and_refill()
        go.set()
        assert [answers.get(timeout=60) for _ in children] == [True, True]
        for child in children:
            child.join(60)
            assert child.exitcode == 0
        tq.close()
        say("done")
        """,
    )
    check_done(done)


def test_a_program_may_end_with_live_views(site: Site) -> None:
    code = """
        import threading
        tq.init(conf())
        put(1)
        module = sys.modules["__main__"]
        held = [get() for _ in range(20)]
        changed = get()
        changed += 1
        cycle = [get()]
        cycle.append(cycle)
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        dropped = get()
        del dropped
        say("done")
    """
    done = run(site, code)
    check_done(done)
    said = [line for line in done.err.splitlines() if "is_fx_tracing" not in line]
    assert said == []  # That line is torch's, at import.


def test_views_are_dropped_by_any_thread_and_by_the_collector(site: Site) -> None:
    done = run(
        site,
        """
        import gc, threading

        def use(byte):
            for _ in range(30):
                values = get_any()
                values += byte
                assert is_all(values, byte + 1)
                cycle = [values]
                cycle.append(cycle)

        def get_any():
            return tq.kv_batch_get(KEYS, partition_id="p")["v"].values()

        tq.init(conf())
        put(1)
        threads = [threading.Thread(target=use, args=(n,)) for n in range(6)]
        failed = []
        threading.excepthook = failed.append
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed
        gc.collect()
        end = time.monotonic() + 20
        while view_count() > 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert view_count() == 0
        assert is_all(get(), 1)
        tq.close()
        say("done")
        """,
    )
    check_done(done)


def test_views_are_ordinary_tensors(site: Site) -> None:
    done = run(
        site,
        """
        import io, pickle, warnings
        warnings.simplefilter("error")
        tq.init(conf())
        put(1)
        values = get()
        assert is_all(pickle.loads(pickle.dumps(values)), 1)
        file = io.BytesIO()
        torch.save(values, file)
        file.seek(0)
        assert is_all(torch.load(file), 1)
        array = values.numpy()
        array[0] = 3
        assert array.flags.writeable and int(values[0]) == 3
        values[0] = 1
        shared = get()
        shared.share_memory_()
        assert shared.is_shared() and is_all(shared, 1)
        shared += 1
        assert is_all(get(), 1)
        loader = torch.utils.data.DataLoader(values[:8], batch_size=4, num_workers=1)
        assert [batch.tolist() for batch in loader] == [[1] * 4] * 2
        tq.close()
        say("done")
        """,
    )
    check_done(done)


def pins_of(worker: WorkerProcess) -> int:
    watcher = BlockClient(worker.host, worker.port, 5000, 5000)
    pins: int = json.loads(watcher.stats())["pins"]
    watcher.close()
    return pins


def test_a_hundred_thousand_live_results(
    client: KVClient, kv_worker: WorkerProcess
) -> None:
    """As many as the budget are views, the others copies; each is its owner's."""
    values = {f"key-{n}": bytes([n]) * 4096 for n in range(10)}
    for key, value in values.items():
        client.set(key, value)
    keys = [f"key-{n % 10}" for n in range(100_000)]
    results: list[memoryview] = []
    viewed = 0
    for key in keys:
        (buffer,) = client.get_buffers([key])
        assert buffer is not None
        view = buffer.view()
        viewed += view is not None
        results.append(memoryview(bytearray(buffer) if view is None else view))
        buffer.release()
    assert 1000 < viewed < 40_000
    bytearray(64 << 20)  # The program's own mappings are not in danger.
    for number, result in enumerate(results[::7]):
        result[:4] = number.to_bytes(4, "little")
    for number, (key, result) in enumerate(zip(keys[::7], results[::7], strict=True)):
        expected = number.to_bytes(4, "little") + values[key][4:]
        assert result == expected
    assert all(client.get(list(values))[n] == values[f"key-{n}"] for n in range(10))
    assert pins_of(kv_worker) >= 10
    client.delete(list(values))
    assert bytes(results[1]) == values["key-1"]
    del result, view
    results.clear()
    client.delete(["none"])  # Waits for what was dropped.
    assert pins_of(kv_worker) == 0
