"""The guide's FAQ as far as it is about a worker: every fault is made for real."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from e2e import free_port, wait_until
from worker_process import WorkerProcess, find_program, running_worker

from yr.datasystem import DatasystemError, KVClient

SUPPORT = Path(__file__).parents[1] / "support"
MB = 1 << 20
CANNOT_ALLOCATE = "failed to mmap shared memory: Cannot allocate memory"


def refusal(home: Path, *flags: str) -> str:
    """What a worker says that must refuse to start, with exit code 1 and few words."""
    command = [str(find_program("datasystem_worker"))]
    command += [f"--worker_address=127.0.0.1:{free_port()}"]
    command += [f"--datasystem_home_dir={home}", *flags]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1, done
    assert done.stdout == ""
    return done.stderr.strip()


def run_dscli(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "yr.datasystem.cli", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


# ---- Killed ----------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_pkill_by_name_ends_both_processes_for_good_50_times(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.fail("only root can make a PID namespace, where pkill reaches no other")
    done = subprocess.run(
        [
            *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *(sys.executable, str(SUPPORT / "kill_by_name.py"), str(tmp_path), "50"),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "50 workers ended for good\n"


def test_a_crash_loop_ends_with_a_clear_state(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path, shared_memory_size_mb=64)
    worker.start()
    address = f"{worker.host}:{worker.port}"
    try:
        assert address in run_dscli("status").stdout
        killed: set[int] = set()
        for _ in range(5):
            wait_until(lambda: child_of(worker) not in {0, *killed})
            killed.add(child_of(worker))
            os.kill(child_of(worker), signal.SIGSEGV)
        assert worker.wait(10.0) == 64
    finally:
        worker.stop()
    assert re.fullmatch(
        rf"datasystem_worker gave up after 5 crashes within a minute; see {tmp_path}"
        r"/logs\n",
        worker.output(),
    )
    log = (tmp_path / "logs" / "datasystem_worker.log").read_text()
    assert log.count("signal=11(Segmentation fault)") == 5
    assert "crashes=5 restart=no" in log
    assert address not in run_dscli("status").stdout
    assert not (tmp_path / "ready").exists()
    assert not (tmp_path / "healthy").exists()
    with socket.socket() as probe:
        assert probe.connect_ex((worker.host, worker.port)) != 0
    worker.start()  # Home and port are free again.
    worker.stop()


def child_of(worker: WorkerProcess) -> int:
    """0 while there is none."""
    with contextlib.suppress(ValueError, OSError):
        return worker.child_pid()
    return 0


# ---- Memory ----------------------------------------------------------------------


def test_an_arena_above_free_memory_is_refused_with_the_guides_words(
    tmp_path: Path,
) -> None:
    size_mb = above_all_memory_mb()
    said = refusal(tmp_path, f"--shared_memory_size_mb={size_mb}")
    assert said.startswith(
        f"Runtime error: {CANNOT_ALLOCATE} "
        f"(--shared_memory_size_mb {size_mb}, but only "
    )
    assert said.endswith("; reduce --shared_memory_size_mb or free memory)")


def test_huge_pages_that_are_not_there_are_refused_with_the_setting(
    tmp_path: Path,
) -> None:
    pages = memory_info("HugePages_Free") + 32
    said = refusal(
        tmp_path, "--enable_huge_tlb=true", f"--shared_memory_size_mb={2 * pages}"
    )
    assert said.startswith(f"Runtime error: {CANNOT_ALLOCATE} (--enable_huge_tlb needs")
    assert f"'sysctl -w vm.nr_hugepages={pages}'" in said
    assert "leave out --enable_huge_tlb" in said


def test_dscli_says_the_words_the_remedy_and_the_log(tmp_path: Path) -> None:
    size_mb = above_all_memory_mb()
    done = run_dscli(
        *("start", "-d", str(tmp_path), "-w", "--shared_memory_size_mb", str(size_mb)),
        *("--worker_address", f"127.0.0.1:{free_port()}"),
        *("--metastore_address", f"127.0.0.1:{free_port()}"),
        *("--start_metastore_service", "true"),
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert CANNOT_ALLOCATE in said
    assert "remedy: Give a smaller --shared_memory_size_mb" in said
    assert "worker cannot start reason=" in said  # The log's tail.


def above_all_memory_mb() -> int:
    """An even number: an arena is whole pages of 2 MiB."""
    return memory_info("MemTotal") // 2048 * 2 + 1024


def memory_info(name: str) -> int:
    found = re.search(rf"^{name}: *(\d+)", Path("/proc/meminfo").read_text(), re.M)
    assert found is not None
    return int(found[1])


@pytest.fixture
def client(tmp_path: Path) -> Iterator[KVClient]:
    with (
        running_worker(tmp_path, shared_memory_size_mb=64) as worker,
        KVClient(worker.host, worker.port) as client,
    ):
        yield client


def test_a_full_arena_is_an_error_at_once_and_delete_makes_room(
    client: KVClient,
) -> None:
    stored = []
    with pytest.raises(DatasystemError) as caught:
        for number in range(64):
            begun = time.monotonic()
            client.set(f"k{number}", bytes(4 * MB))
            stored.append(f"k{number}")
    assert time.monotonic() - begun < 2.0  # Not its time limit, which is 60 s.
    assert str(caught.value).startswith(
        "code: [Out of memory], msg: [Shared memory no space in arena: "
    )
    assert 8 <= len(stored) <= 16  # Of 64 MiB.
    client.delete(stored[:1])
    client.set("again", bytes(4 * MB))
    assert client.exist([*stored, "again"]) == [False, *[True] * len(stored)]


# ---- Flags and surroundings ------------------------------------------------------


def test_a_port_in_use_is_named_with_its_process(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refusal(tmp_path, f"--worker_address=127.0.0.1:{port}")
    assert said.startswith(f"port {port} is already in use at 127.0.0.1 by ")
    assert str(os.getpid()) in said
    assert said.endswith("; stop that process or choose another port")


def test_proxies_do_not_matter(tmp_path: Path) -> None:
    nonsense = "http://[no such proxy"
    names = ("http_proxy", "https_proxy", "all_proxy")
    proxies = dict.fromkeys((*names, *map(str.upper, names)), nonsense)
    done = subprocess.run(
        [
            *(sys.executable, str(SUPPORT / "one_worker.py")),
            *("127.0.0.1", str(free_port()), "-d", str(tmp_path / "home")),
        ],
        env={**os.environ, **proxies, "no_proxy": "", "NO_PROXY": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "works\n"), done.stderr


def test_an_unknown_flag_is_refused_with_the_nearest(tmp_path: Path) -> None:
    said = refusal(tmp_path, "--shared_memory_size=64")
    assert said == (
        "unknown flag '--shared_memory_size'; did you mean '--shared_memory_size_mb'?"
    )


def test_rdma_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    said = refusal(tmp_path, "--enable_rdma", "true")
    assert "needs UCX and an RDMA NIC" in said
    assert "Leave out --enable_rdma to use TCP" in said
