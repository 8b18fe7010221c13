"""The folder of a local session: privacy, its lock, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from transfer_queue import _local, _ray, _session
from transfer_queue._local import LocalPlace, SessionFolder, State


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("TQ_SESSION", raising=False)
    monkeypatch.delenv("TQ_CONTROLLER_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return tmp_path / "transfer_queue"


def test_the_folder_is_for_its_user_alone(root: Path) -> None:
    SessionFolder.made("default")
    assert root.stat().st_mode & 0o777 == 0o700
    assert (root / "default").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_enter_is_refused(root: Path) -> None:
    root.mkdir()
    root.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"can be entered by others \(mode 755\)"):
        SessionFolder.made("default")


def test_a_link_in_place_of_the_folder_is_refused(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "default").mkdir(parents=True, mode=0o700)
    root.symlink_to(elsewhere)
    with pytest.raises(RuntimeError, match="is not a folder of this user"):
        SessionFolder.made("default")
    with pytest.raises(RuntimeError, match="is not a folder of this user"):
        SessionFolder.existing("default")


def test_without_a_runtime_folder_tmp_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert _local.session_root() == Path(f"/tmp/transfer_queue-{os.getuid()}")


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "a b", "x" * 65])
def test_a_session_name_cannot_leave_the_folder(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_SESSION", name)
    with pytest.raises(ValueError, match="cannot name a session"):
        _local.session_name()


def test_one_process_at_a_time_and_the_others_learn_its_pid(root: Path) -> None:
    folder = SessionFolder.made("default")
    code = (
        "import sys; from transfer_queue._local import SessionFolder\n"
        "with SessionFolder.made('default').locked(5.0):\n"
        "    print('locked', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    busy = pytest.raises(RuntimeError, match=f"PID {holder.pid} is still starting")
    with busy, folder.locked(0.2):
        pass
    holder.communicate(b"")
    with folder.locked(0.2) as is_there:
        assert is_there


def test_who_waited_for_a_folder_that_vanished_does_not_hold_a_dead_lock(
    root: Path,
) -> None:
    folder = SessionFolder.made("default")
    seen: list[bool] = []

    def wait() -> None:
        with folder.locked(5.0) as is_there:
            seen.append(is_there)

    with folder.locked(1.0):
        waiter = threading.Thread(target=wait)
        waiter.start()
        folder.remove()
    waiter.join()
    assert seen == [False]
    with folder.locked(1.0, make=True) as is_there:
        assert is_there
        assert (root / "default" / "lock").exists()


def test_a_forked_child_does_not_keep_the_lock() -> None:
    folder = SessionFolder.made("default")
    reader, writer = os.pipe()
    with folder.locked(1.0):
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    with folder.locked(0.2) as is_there:
        assert is_there
    os.close(writer)
    os.waitpid(child, 0)
    os.close(reader)


def test_state_is_written_whole_and_read_back() -> None:
    folder = SessionFolder.made("default")
    assert folder.read_state() is None
    state = State(1, 2, "default", "/s", 3, 4, "127.0.0.1:1", ready=True)
    folder.write_state(state)
    assert folder.read_state() == state


def test_a_damaged_state_is_ignored_with_a_warning(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = SessionFolder.made("default")
    (root / "default" / "state.json").write_text('{"owner_pid": ')
    assert folder.read_state() is None
    assert "unreadable" in caplog.text


def test_nothing_is_left_after_the_last_session(root: Path) -> None:
    one, two = SessionFolder.made("one"), SessionFolder.made("two")
    one.remove()
    assert root.exists()
    two.remove()
    assert not root.exists()


# ---- The order of places -------------------------------------------------------------


def conf_with(address: str | None) -> object:
    return OmegaConf.create({"controller": {"address": address}})


def test_a_given_address_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQ_CONTROLLER_ADDRESS", "unix:/by/environment")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    place = _session.find_place(conf_with("unix:/by/conf"))
    assert place.description == "the controller at unix:/by/conf"
    place = _session.find_place(conf_with(None))
    assert place.description == "the controller at unix:/by/environment"


def test_then_ray_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    place = _session.find_place(conf_with(None))
    assert place.description == "Ray cluster (RAY_ADDRESS=127.0.0.1:1)"


def test_then_this_users_running_ray_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text("127.0.0.1:6379\n")
    asked: list[str] = []

    def answers(address: str) -> bool:
        asked.append(address)
        return len(asked) == 1

    monkeypatch.setattr(_ray, "_answers", answers)
    assert "127.0.0.1:6379" in _session.find_place(conf_with(None)).description
    # The second time it does not answer: a cluster that has ended.
    assert isinstance(_session.find_place(conf_with(None)), LocalPlace)


def test_another_users_ray_cluster_is_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text("127.0.0.1:6379\n")
    monkeypatch.setattr(_ray, "_answers", lambda _: True)
    monkeypatch.setattr(os, "getuid", lambda: file.stat().st_uid + 1)
    assert _ray.find_cluster() is None


def test_at_last_the_local_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQ_SESSION", "mine")
    description = _session.find_place(conf_with(None)).description
    assert description.startswith("local session 'mine' in ")


def test_attaching_where_nothing_is_creates_nothing(root: Path) -> None:
    assert LocalPlace().attach(1.0) is None
    assert not root.exists()


def test_a_kv_function_without_any_queue_says_to_call_init() -> None:
    import transfer_queue as tq

    with pytest.raises(AssertionError) as caught:
        tq.kv_list()
    assert str(caught.value) == (
        "TransferQueueController has not been initialized yet. "
        "Please call init() first."
    )
