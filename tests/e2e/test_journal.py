"""The controller's journal: what a killed controller knows when it comes back."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from queue_fixtures import folder as folder
from queue_fixtures import worker as worker

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from queue_client import (
    FULL,
    NOT_FOUND,
    Controller,
    FakeWorker,
    QueueClient,
    QueueError,
    block_id,
    find_controller,
    running_controller,
)

HEADER_BYTES = 64
RECORD_HEADER_BYTES = 40


def put(client: QueueClient, keys: list[str], counter: int, tag: int = 0) -> Any:
    block = [[block_id(counter)], "Yuanrong", ["x"], [64], []]
    return client.call("kv_put", "p", keys, block, [{"t": tag}] * len(keys))


def kill_all(controller: Controller) -> None:
    """Supervisor and child: nobody starts it again."""
    controller.process.kill()
    controller.process.wait(timeout=10)


def journal_of(folder: Path) -> Path:
    return folder / "socket.journal"


def records_of(journal: bytes) -> list[tuple[int, int]]:
    """Where each record begins and ends."""
    found = []
    at = HEADER_BYTES
    while journal[at : at + 4] != b"\0\0\0\0":
        (body_bytes,) = struct.unpack_from("<I", journal, at + 4)
        end = (at + RECORD_HEADER_BYTES + body_bytes + 7) // 8 * 8
        found.append((at, end))
        at = end
    return found


def refusal(folder: Path) -> str:
    """What a controller says that must refuse to start, without another try."""
    done = subprocess.run(
        [str(find_controller()), "--socket", str(folder / "socket")],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "gave up" not in done.stderr
    return done.stderr


def test_a_killed_controller_comes_back_with_everything(folder: Path) -> None:
    with running_controller(folder) as controller:
        with controller.client() as client:
            put(client, ["a", "b"], 1, tag=1)
            put(client, ["b", "c"], 2, tag=2)
            client.call("kv_put", "other", ["x"], None, [{"only": "a tag"}])
            client.call("kv_clear", "p", ["a"])
            client.call("config_set", b"settings")
            with pytest.raises(QueueError):  # Refused: nothing to come back.
                put(client, ["d", "d"], 3)
            listed = client.call("kv_list", None)
            got = client.call("kv_get", "p", ["b", "c"], None)
        controller.kill_child()
        with controller.client() as client:
            assert client.call("kv_list", None) == listed
            assert client.call("kv_get", "p", ["b", "c"], None) == got
            assert client.call("config_get", 0) == b"settings"
            assert client.call("stats")["puts"] == 3
            put(client, ["e"], 4)
        controller.kill_child()
        with controller.client() as client:
            assert set(client.call("kv_list", "p")["p"]) == {"b", "c", "e"}
    assert list(folder.iterdir()) == [folder / "stderr"]


def test_a_long_journal_begins_anew_with_a_snapshot(folder: Path) -> None:
    """It stays short however much is done, and says the same."""
    with running_controller(folder, "--journal_compact_bytes", "20000") as controller:
        with controller.client() as client:
            for i in range(3000):
                put(client, [f"{i % 50}", f"{i % 70}x"], i + 1, tag=i)
                if i % 3 == 0:
                    client.call("kv_clear", "p", [f"{i % 50}"])
            client.call("config_set", b"settings")
            listed = client.call("kv_list", None)
            got = client.call("kv_get", "p", list(listed["p"]), None)
        assert "controller journal compacted" in controller.log.read_text()
        assert len(records_of(journal_of(folder).read_bytes())) < 600  # Of 4,000.
        for _ in range(3):
            controller.kill_child()
            with controller.client() as client:
                assert client.call("kv_list", None) == listed
                assert client.call("kv_get", "p", list(listed["p"]), None) == got
                assert client.call("config_get", 0) == b"settings"
                assert client.call("stats")["puts"] == 3000
    assert list(folder.iterdir()) == [folder / "stderr"]


def test_a_new_supervisor_goes_on_where_the_old_one_was_killed(folder: Path) -> None:
    first = Controller(folder)
    with first.client() as client:
        put(client, ["a"], 1)
    kill_all(first)
    with running_controller(folder) as second, second.client() as client:
        assert client.call("kv_list", None) == {"p": {"a": {"t": 0}}}


def durability_of(folder: Path) -> tuple[int, int]:
    """Whether it is synced, and when it is written anew, as its header says."""
    syncs, compact_bytes = struct.unpack_from(
        "<QQ", journal_of(folder).read_bytes(), 40
    )
    return syncs, compact_bytes


def test_who_goes_on_with_a_queue_keeps_its_journal_as_it_was(folder: Path) -> None:
    """A worker that starts another controller does not know the first one's options."""
    asked = ("--fsync", "--journal_compact_bytes", "20000")
    first = Controller(folder, *asked)
    with first.client() as client:
        put(client, ["a"], 1)
    kill_all(first)
    second = Controller(folder, "--term", "2")
    assert durability_of(folder) == (1, 20000)
    with second.client() as client:
        for i in range(400):
            put(client, [f"{i % 5}"], i + 2)
    assert "controller journal compacted" in second.log.read_text()
    assert durability_of(folder) == (1, 20000)
    kill_all(second)
    with running_controller(folder):  # By its owner, who says what it wants.
        assert durability_of(folder) == (0, 0)


def test_who_waits_for_a_connection_gets_it_from_the_next_process(folder: Path) -> None:
    """The socket is the supervisor's: no connect is refused while nobody runs."""
    with running_controller(folder) as controller:
        for _ in range(20):
            controller.kill_child()
            with controller.client() as client:
                assert client.call("kv_list", None) == {}


def test_a_record_that_was_cut_off_is_dropped_with_a_line(folder: Path) -> None:
    """Cut at different places; what was whole before it is there, and it goes on."""
    first = Controller(folder)
    with first.client() as client:
        put(client, ["a"], 1)
        put(client, ["b"], 2)
    kill_all(first)
    whole = journal_of(folder).read_bytes()
    (_, _), (begin, end) = records_of(whole)
    for cut in (begin + 1, begin + RECORD_HEADER_BYTES, end - 9):
        for tail in (b"", bytes(1000)):  # The file ends there, or room follows.
            journal_of(folder).write_bytes(whole[:cut] + tail)
            again = Controller(folder)
            with again.client() as client:
                assert client.call("kv_list", None) == {"p": {"a": {"t": 0}}}
                put(client, ["c"], 3)
            assert f"at={begin}" in again.log.read_text()
            assert "was not written to its end" in again.log.read_text()
            again.kill_child()
            with again.client() as client:
                assert set(client.call("kv_list", "p")["p"]) == {"a", "c"}
            kill_all(again)


def test_damage_before_whole_records_is_reported_not_cut(folder: Path) -> None:
    first = Controller(folder)
    with first.client() as client:
        for i in range(4):
            put(client, [f"k{i}"], i + 1)
    kill_all(first)
    damaged = bytearray(journal_of(folder).read_bytes())
    begin, _ = records_of(bytes(damaged))[1]
    damaged[begin + RECORD_HEADER_BYTES + 3] ^= 1
    journal_of(folder).write_bytes(damaged)
    text = refusal(folder)
    assert f"'{journal_of(folder)}' is damaged at byte {begin}" in text
    assert "records 2 to 2 cannot be read" in text
    assert "remove it to start with an empty queue" in text
    assert journal_of(folder).read_bytes() == damaged
    assert not (folder / "socket").exists()


def test_what_is_no_journal_is_left_alone(folder: Path) -> None:
    journal_of(folder).write_bytes(b"somebody's file")
    assert "does not begin as a journal does" in refusal(folder)
    journal_of(folder).write_bytes(b"TQJOURN\n" + struct.pack("<Q", 99) + bytes(48))
    assert "is a journal of version 99" in refusal(folder)


def test_a_journal_of_another_session_only_loses_its_blocks(
    folder: Path, tmp_path: Path, worker: FakeWorker
) -> None:
    options = ["--worker_socket", str(tmp_path / "worker")]
    first = Controller(folder, *options, "--session", "one")
    with first.client() as client:
        put(client, ["a"], 1)
        client.call("config_set", b"of the first")
    assert worker.next_orders(1) == [("adopt", block_id(1))]
    kill_all(first)
    with running_controller(folder, *options, "--session", "two") as second:
        assert worker.next_orders(1) == [("delete", block_id(1))]
        with second.client() as client:
            assert client.call("kv_list", None) == {}
            assert client.call("config_get", 0) is None
            put(client, ["b"], 2)
        assert worker.next_orders(1) == [("adopt", block_id(2))]
        second.kill_child()
        with second.client() as client:
            assert set(client.call("kv_list", "p")["p"]) == {"b"}


def test_orders_that_a_kill_cut_short_are_given_again(
    folder: Path, tmp_path: Path, worker: FakeWorker
) -> None:
    worker.mute = True  # It never says that it has done them.
    path = str(tmp_path / "worker")
    with running_controller(folder, "--worker_socket", path) as controller:
        with controller.client() as client:
            put(client, ["a", "b"], 1)
            put(client, ["b"], 2)
            client.call("kv_clear", "p", ["a"])  # The first block is dead.
        worker.mute = False
        controller.kill_child()
        orders: set[tuple[str, bytes]] = set()
        while {("adopt", block_id(2)), ("delete", block_id(1))} - orders:
            orders |= set(worker.next_orders(1))


def test_a_refused_block_stays_refused(
    folder: Path, tmp_path: Path, worker: FakeWorker
) -> None:
    path = str(tmp_path / "worker")
    with running_controller(folder, "--worker_socket", path) as controller:
        worker.report_orphans([block_id(9)])
        assert worker.next_orders(1) == [("delete", block_id(9))]
        controller.kill_child()
        with controller.client() as client:
            with pytest.raises(QueueError, match="given up") as refused:
                put(client, ["a"], 9)
            assert refused.value.status == NOT_FOUND
            assert client.call("kv_list", None) == {}


def test_with_fsync_the_same_holds(folder: Path) -> None:
    with running_controller(folder, "--fsync") as controller:
        with controller.client() as client:
            put(client, ["a"], 1)
        controller.kill_child()
        with controller.client() as client:
            assert client.call("kv_list", None) == {"p": {"a": {"t": 0}}}


def test_without_a_journal_a_killed_controller_is_empty(folder: Path) -> None:
    with running_controller(folder, "--journal", "none") as controller:
        with controller.client() as client:
            put(client, ["a"], 1)
        assert not journal_of(folder).exists()
        controller.kill_child()
        with controller.client() as client:
            assert client.call("kv_list", None) == {}


def limited(folder: Path, file_bytes: int) -> Controller:
    """Its files cannot grow beyond this: to it, that is a full disk."""
    controller = Controller(folder)
    limit_files(controller, file_bytes)
    return controller


def limit_files(controller: Controller, file_bytes: int) -> None:
    for pid in (controller.process.pid, controller.child_pid()):
        subprocess.run(
            ["prlimit", f"--fsize={file_bytes}:unlimited", f"--pid={pid}"], check=True
        )


def test_a_full_disk_makes_it_read_only_until_there_is_room(folder: Path) -> None:
    controller = limited(folder, 1 << 20)
    try:
        with controller.client() as client:
            names = [f"k{i}" for i in range(1000)]
            put(client, ["first"], 1)
            acknowledged = ["first"]
            refused = None
            for i in range(2, 1000):
                keys = [f"{name}-{i}" for name in names]
                try:
                    put(client, keys, i)
                except QueueError as error:
                    refused = error
                    break
                acknowledged += keys
            assert refused is not None
            assert refused.status == FULL
            assert "can be read but not changed" in str(refused)
            assert f"'{journal_of(folder)}': no room for" in str(refused)
            assert "free in its file system" in str(refused)
            listed = client.call("kv_list", "p")["p"]
            assert list(listed) == acknowledged
            for request in (
                ("kv_put", "p", ["z" * 5000], None, None),
                ("kv_clear", "p", [*acknowledged]),
                ("config_set", bytes(5000)),
            ):
                with pytest.raises(QueueError) as again:
                    client.call(*request)
                assert again.value.status == FULL
            assert list(client.call("kv_list", "p")["p"]) == acknowledged
        controller.kill_child()  # Full, killed, and still nothing is lost.
        with controller.client() as client:
            assert list(client.call("kv_list", "p")["p"]) == acknowledged
            with pytest.raises(QueueError, match="no room for"):
                client.call("config_set", bytes(5000))
            limit_files(controller, 1 << 30)
            client.call("kv_clear", "p", acknowledged[1:])
            put(client, ["last"], 1001)
            assert list(client.call("kv_list", "p")["p"]) == ["first", "last"]
        log = controller.log.read_text()
        assert log.count("journal full, the queue is read-only") == 2
        assert log.count("journal has room again") == 1
        controller.kill_child()
        with controller.client() as client:
            assert list(client.call("kv_list", "p")["p"]) == ["first", "last"]
    finally:
        controller.stop()


def test_a_small_file_system_that_is_full_loses_nothing(folder: Path) -> None:
    """Something else fills it up, and later makes room; compacting never does harm."""
    disk = folder / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=4m tmpfs {disk} && exec "$@"'
    controller = Controller(
        folder,
        *("--journal", str(disk / "journal"), "--journal_compact_bytes", "500000"),
        within=("unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"),
    )
    filler = Path(f"/proc/{controller.process.pid}/root{disk}/filler")
    try:
        with controller.client() as client:
            put(client, ["first"], 1)
            filler.write_bytes(bytes(2500 << 10))
            names = [f"k{i}" for i in range(1000)]
            acknowledged = ["first"]
            with pytest.raises(QueueError, match="no room for") as refused:
                for i in range(2, 1000):
                    keys = [f"{name}-{i}" for name in names]
                    put(client, keys, i)
                    acknowledged += keys
            assert refused.value.status == FULL
            assert len(acknowledged) > 1
            assert list(client.call("kv_list", "p")["p"]) == acknowledged
        controller.kill_child()
        with controller.client() as client:
            assert list(client.call("kv_list", "p")["p"]) == acknowledged
            filler.unlink()
            client.call("kv_clear", "p", acknowledged[1:])
            for i in range(1000, 3000):
                put(client, names[:10], i)
            assert set(client.call("kv_list", "p")["p"]) == {"first", *names[:10]}
        log = controller.log.read_text()
        assert "journal full, the queue is read-only" in log
        assert "controller journal compacted" in log.rpartition("is read-only")[2]
        controller.kill_child()
        with controller.client() as client:
            assert set(client.call("kv_list", "p")["p"]) == {"first", *names[:10]}
    finally:
        controller.stop()
    disk.rmdir()
