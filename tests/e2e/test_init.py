"""Starting, finding, attaching, closing: what processes see of each other."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from e2e import SMALL, Site, expect_line, finish, tell

OWNER = """
tq.init(conf())
say("ready")
wait_for_line()
tq.close()
say("closed")
"""


def test_the_first_returns_the_merged_configuration_others_their_argument(
    site: Site,
) -> None:
    done = site.run(
        """
        merged = tq.init(conf())
        assert merged.backend.storage_backend == "Yuanrong"
        assert merged.controller.sampler == "SequentialSampler"
        mine = {"a": 1}
        assert tq.init(mine) is mine and tq.init() is None
        import subprocess
        other = (
            "import transfer_queue as tq\\n"
            "assert tq.init() is None\\n"
            "tq.close()\\n"
            "conf = {'a': 1}\\n"
            "assert tq.init(conf) is conf\\n"
        )
        subprocess.run([sys.executable, "-c", other], check=True)
        tq.close()
        """
    )
    assert done.code == 0, done.err


def test_a_queue_may_survive_power_cuts(site: Site) -> None:
    done = site.run(
        """
        from pathlib import Path
        disk = Path("disk")
        disk.mkdir()
        keeping = {"journal_fsync": True, "journal_dir": "disk", "journal_copies": 1}
        tq.init({**conf(), "controller": keeping})
        tq.kv_put("key", "p", tag={"score": 1})
        (journal,) = disk.iterdir()
        assert b"score" in journal.read_bytes()
        commands = [
            path.read_bytes().split(bytes(1))
            for path in Path("/proc").glob("[0-9]*/cmdline")
        ]
        mine = [
            words
            for words in commands
            if words[0].endswith(b"/transfer_queue_controller")
            and words[2].startswith(os.environ["XDG_RUNTIME_DIR"].encode())
        ]
        assert mine and all(b"--fsync" in words for words in mine), mine
        copies = [words[words.index(b"--journal_copies") + 1] for words in mine]
        assert set(copies) == {b"1"}, mine
        tq.close()
        assert list(disk.iterdir()) == []
        """
    )
    assert done.code == 0, done.err


def test_a_process_without_tensors_loads_neither_torch_nor_ray(site: Site) -> None:
    """Seconds of start-up for one that looks at keys and tags, or keeps a queue."""
    program = f"""
import os, sys
import transfer_queue as tq
section = {{
    "worker_port": int(os.environ["TQ_TEST_WORKER_PORT"]),
    "metastore_port": int(os.environ["TQ_TEST_METASTORE_PORT"]),
    "worker_args": {SMALL!r},
}}
tq.init({{"backend": {{"Yuanrong": section}}}})
tq.kv_put("key", "p", tag={{"score": 1}})
assert tq.kv_list("p") == {{"p": {{"key": {{"score": 1}}}}}}
tq.kv_clear("key", "p")
tq.close()
loaded = {{"torch", "tensordict", "ray", "numpy", "asyncio"}} & set(sys.modules)
assert not loaded, loaded
"""
    done = site.command(sys.executable, "-c", program)
    assert done.code == 0, done.err


def test_init_close_init_works_and_the_second_queue_is_new(site: Site) -> None:
    done = site.run(
        """
        for _ in range(3):
            merged = tq.init(conf())
            assert tq.kv_list() == {}
            tq.kv_put("a", "p", {"v": torch.ones(3)})
            tq.close()
            tq.close()
        tq.init(merged)  # What init() returned is good for another init().
        tq.close()
        """
    )
    assert done.code == 0, done.err


def test_many_processes_call_init_at_once_and_one_of_them_starts_it(site: Site) -> None:
    racers = [
        site.start(
            """
            say("ready")
            wait_for_line()
            mine = conf()
            say("attached" if tq.init(mine) is mine else "owner")
            tq.kv_put(f"from {os.getpid()}", "p", {"v": 1})
            wait_for_line()
            tq.close()
            """
        )
        for _ in range(4)
    ]
    for racer in racers:
        expect_line(racer, "ready")
    for racer in racers:
        tell(racer)
    roles = [expect_line(racer, "") for racer in racers]
    assert sorted(roles) == ["attached", "attached", "attached", "owner"]
    assert len(site.pids_of("transfer_queue_controller")) >= 1
    owner = racers.pop(roles.index("owner"))
    for racer in racers:  # Those who attached leave first and end nothing.
        tell(racer)
        done = finish(racer)
        assert done.code == 0, done.err
    assert site.session.exists()
    tell(owner)
    done = finish(owner)
    assert done.code == 0, done.err


def test_what_an_attached_process_closes_lives_on(site: Site) -> None:
    owner = site.start(OWNER)
    expect_line(owner, "ready")
    done = site.run("tq.kv_put('a', 'p', {'v': 1}); tq.close()")
    assert done.code == 0, done.err
    done = site.run("assert list(tq.kv_batch_get('a', 'p')['v']) == [1]")
    assert done.code == 0, done.err
    tell(owner)
    expect_line(owner, "closed")


def test_an_owner_that_forgets_close_leaves_nothing(site: Site) -> None:
    done = site.run("tq.init(conf()); tq.kv_put('a', 'p', {'v': 1})")
    assert done.code == 0, done.err


def test_a_killed_owners_session_is_replaced_with_a_warning(site: Site) -> None:
    owner = site.start(OWNER)
    expect_line(owner, "ready")
    first = site.pids_of("transfer_queue_controller")
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert site.pids_of("datasystem_worker") != []
    done = site.run(
        """
        tq.init(conf())
        assert tq.kv_list() == {}
        say("replaced")
        tq.close()
        """
    )
    assert done.code == 0, done.err
    assert f"its owner PID {owner.pid} ended without close()" in done.err
    assert set(site.pids_of("transfer_queue_controller")) & set(first) == set()


def test_a_session_of_another_name_does_not_take_a_living_owners_worker(
    site: Site,
) -> None:
    owner = site.start(OWNER)
    expect_line(owner, "ready")
    done = site.run("tq.init(conf())", environment={"TQ_SESSION": "other"})
    assert done.code != 0
    assert "RuntimeError: Failed to start datasystem worker" in done.err
    assert f"PID {owner.pid}, which is alive" in done.err
    assert "session=default" in done.err
    tell(owner)
    expect_line(owner, "closed")


def test_two_sessions_on_ports_of_their_own_do_not_mix(site: Site) -> None:
    owner = site.start(OWNER)
    expect_line(owner, "ready")
    done = site.run(
        """
        from e2e import free_port
        tq.init(conf(worker_port=free_port(), metastore_port=free_port()))
        tq.kv_put("a", "p", {"v": 1})
        tq.close()
        """,
        environment={
            "TQ_SESSION": "other",
            "PYTHONPATH": os.pathsep.join(
                [os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
            ),
        },
    )
    assert done.code == 0, done.err
    done = site.run("assert tq.kv_list() == {}; tq.close()")
    assert done.code == 0, done.err
    tell(owner)
    expect_line(owner, "closed")


def test_a_given_address_is_attached_to(site: Site) -> None:
    owner = site.start(OWNER, environment={"TQ_SESSION": "named"})
    expect_line(owner, "ready")
    address = f"unix:{site.runtime}/transfer_queue/named/controller.sock"
    done = site.run(
        "assert tq.init() is None; tq.kv_put('a', 'p', {'v': 1}); tq.close()",
        environment={"TQ_CONTROLLER_ADDRESS": address},
    )
    assert done.code == 0, done.err
    tell(owner)
    expect_line(owner, "closed")


def test_a_given_address_where_nobody_answers_is_named(site: Site) -> None:
    done = site.run(
        "tq.init()", environment={"TQ_CONTROLLER_ADDRESS": "unix:/nowhere/at/all"}
    )
    assert done.code != 0
    assert "unix:/nowhere/at/all" in done.err.splitlines()[-1]


def test_auto_init_false_uses_the_worker_that_runs_and_leaves_it(site: Site) -> None:
    home = site.folder / "home"
    started = site.command(
        *("dscli", "start", "-d", str(home), "-w"),
        *("--worker_address", site.worker_address),
        *("--metastore_address", f"127.0.0.1:{site.metastore_port}"),
        *("--start_metastore_service", "true", "--shared_memory_size_mb", "64"),
    )
    assert started.code == 0, started.out + started.err
    worker = site.pids_of("datasystem_worker")
    done = site.run(
        """
        tq.init(conf(auto_init=False))
        tq.kv_put("a", "p", {"v": torch.ones(1000)})
        assert tq.kv_batch_get("a", "p")["v"].unbind()[0].sum() == 1000
        tq.close()
        """
    )
    assert done.code == 0, done.err
    assert site.pids_of("datasystem_worker") == worker
    stopped = site.command("dscli", "stop", "--worker_address", site.worker_address)
    assert stopped.code == 0, stopped.out + stopped.err


def test_auto_init_false_without_a_worker_says_so(site: Site) -> None:
    done = site.run("tq.init(conf(auto_init=False))")
    assert done.code != 0
    assert "Could not find any reachable host for Yuanrong port" in done.err
    assert not site.session.exists()


def test_automatic_init_starts_over_a_worker_started_by_hand_refuse(site: Site) -> None:
    started = site.command(
        *("dscli", "start", "-d", str(site.folder / "home"), "-w"),
        *("--worker_address", site.worker_address),
        *("--metastore_address", f"127.0.0.1:{site.metastore_port}"),
        *("--start_metastore_service", "true", "--shared_memory_size_mb", "64"),
    )
    assert started.code == 0, started.out + started.err
    done = site.run("tq.init(conf())")
    assert done.code != 0
    assert "Failed to start datasystem worker" in done.err
    assert "auto_init: False" in done.err
    stopped = site.command("dscli", "stop", "--worker_address", site.worker_address)
    assert stopped.code == 0, stopped.out + stopped.err


def test_a_failed_start_leaves_nothing_and_the_next_one_works(site: Site) -> None:
    done = site.run(
        """
        import socket
        port = conf()["backend"]["Yuanrong"]["worker_port"]
        taken = socket.create_server(("127.0.0.1", port))
        try:
            tq.init(conf())
        except RuntimeError as error:
            say(str(error).replace("\\n", " "))
        taken.close()
        tq.init(conf())
        tq.close()
        """
    )
    assert done.code == 0, done.err
    assert done.out.startswith("Failed to start datasystem worker")
    assert str(site.worker_port) in done.out


def test_rdma_is_refused_at_the_start(site: Site) -> None:
    done = site.run("tq.init(conf(enable_rdma=True))")
    assert done.code != 0
    assert "Failed to start datasystem worker" in done.err
    assert "UCX" in done.err
    assert not site.session.exists()


def test_ucx_variables_reach_the_workers_environment(site: Site) -> None:
    owner = site.start(
        """
        tq.init(conf(ucx_env_vars={"UCX_LOG_LEVEL": "ERROR"}))
        say("ready")
        wait_for_line()
        tq.close()
        say("closed")
        """,
        environment={"UCX_LOG_LEVEL": "DEBUG", "UCX_TLS": "ud"},
    )
    expect_line(owner, "ready")
    for pid in site.pids_of("datasystem_worker"):
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read().split(b"\0")
        assert b"UCX_LOG_LEVEL=ERROR" in environment
        assert b"UCX_TLS=ud" in environment
    tell(owner)
    expect_line(owner, "closed")


def test_where_the_queue_is_and_how_large_is_said_at_info(site: Site) -> None:
    done = site.run(
        "tq.init(conf(worker_args='', enable_yr_npu_transport=True)); tq.close()",
        environment={"TQ_LOGGING_LEVEL": "INFO"},
    )
    assert done.code == 0, done.err
    for words in ("local session 'default'", "shared memory: ", "no NPU here"):
        assert done.err.count(words) >= 1, words
    quiet = site.run("tq.init(conf()); tq.close()")
    assert "transfer_queue" not in quiet.err


def test_an_init_in_progress_is_waited_for_but_not_for_ever(site: Site) -> None:
    slow = site.start(
        """
        from transfer_queue import _local
        start_worker = _local._worker.start_worker
        def slowly(plan):
            say("starting")
            wait_for_line()
            start_worker(plan)
        _local._worker.start_worker = slowly
        tq.init(conf())
        say("ready")
        wait_for_line()
        tq.close()
        """
    )
    expect_line(slow, "starting")
    done = site.run("tq.init({'controller': {'init_timeout_s': 0.5}})")
    assert done.code != 0
    assert f"PID {slow.pid} is still starting" in done.err
    patient = site.start(
        "say('waiting'); mine = conf(); say(tq.init(mine) is mine); tq.close()"
    )
    expect_line(patient, "waiting")
    tell(slow)
    expect_line(patient, "True")
    expect_line(slow, "ready")
    tell(slow)
    done = finish(slow)
    assert done.code == 0, done.err


@pytest.mark.parametrize("backend", ["SimpleStorage", "Nope"])
def test_a_backend_that_does_not_exist_is_refused_before_anything_starts(
    site: Site, backend: str
) -> None:
    done = site.run(f"tq.init({{'backend': {{'storage_backend': {backend!r}}}}})")
    assert done.code != 0
    assert f"Unknown manager_type: {backend}. Supported managers include" in done.err
