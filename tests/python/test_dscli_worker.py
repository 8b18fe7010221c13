"""dscli with real workers: start, status, query, stop, and starts that fail."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from yr.datasystem import BlockClient, KVClient
from yr.datasystem.cli._processes import find_workers_at, owner_is_alive


@dataclass
class Site:
    """A home folder and two ports of a test's own."""

    home: Path
    address: str
    metastore: str

    def run(
        self, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "yr.datasystem.cli", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **environment},
        )

    def start(
        self, *flags: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        words = ["start", "-t", "20", "-d", str(self.home), "-w"]
        words += ["--worker_address", self.address]
        words += ["--metastore_address", self.metastore]
        words += ["--start_metastore_service", "true", "--shared_memory_size_mb", "64"]
        return self.run(*words, *flags, **environment)

    def stop(self) -> subprocess.CompletedProcess[str]:
        return self.run("stop", "--worker_address", self.address)

    def status(self) -> dict[str, object]:
        done = self.run("status", "--json", "--worker_address", self.address)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "home", free_address(), free_address())
    yield site
    for worker in find_workers_at(site.address):
        for pid in (worker.pid, worker.child_pid):
            with contextlib.suppress(ProcessLookupError):
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)


def test_a_worker_starts_shows_itself_and_stops(site: Site) -> None:
    started = site.start("--cluster_name", "blue")
    assert started.returncode == 0, started.stderr
    pid = find_workers_at(site.address)[0].pid
    assert started.stdout.splitlines() == [
        f"[INFO] Log directory configured at: {site.home}/datasystem/logs",
        f"[INFO] Starting worker service with PID: {pid}",
        f"[INFO] [  OK  ] Start worker service @ {site.address} success, PID: {pid}",
    ]

    status = site.status()
    assert status["worker_address"] == site.address
    assert status["pid"] == pid
    assert status["state"] == "HEALTHY"
    assert status["memory_total_bytes"] == 64 << 20
    assert status["objects"] == 0
    assert status["alive_owner"] is None
    assert Path(str(status["unix_socket"])).is_socket()

    table = site.run("status", "--worker_address", site.address).stdout.splitlines()
    assert table[0].split()[:4] == ["ADDRESS", "PID", "UPTIME", "STATE"]
    assert table[1].split()[:2] == [site.address, str(pid)]
    assert "64 MiB" in table[1]

    stopped = site.stop()
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout == (
        f"[INFO] [  OK  ] Stop worker service @ {site.address} normally, PID: {pid}\n"
    )
    assert find_workers_at(site.address) == []
    assert not (site.home / "datasystem/probe/ready").exists()


def test_query_answers_one_json_document(site: Site) -> None:
    assert site.start("--cluster_name", "blue").returncode == 0
    done = site.run("query", "cluster", "--metastore_address", site.metastore)
    assert done.returncode == 0, done.stdout
    document = json.loads(done.stdout)
    assert document["status"] == "OK"
    assert document["nodes"] == [
        {
            "worker_address": site.address,
            "health": "HEALTHY",
            "state": "ACTIVE",
            "hash_ranges": ["[0,4294967295]"],
        }
    ]
    route = site.run(
        *("query", "route", "--metastore_address", site.metastore),
        *("--keys", "b", "a", "b"),
    )
    assert json.loads(route.stdout)["routes"] == [
        {
            "worker_address": site.address,
            "keys": ["b", "a", "b"],
            "health": "HEALTHY",
        }
    ]
    other = site.run(
        *("query", "cluster", "--metastore_address", site.metastore),
        *("--cluster_name", "green"),
    )
    assert other.returncode == 1
    assert json.loads(other.stdout)["status"] == "Key not found"


def test_query_without_a_cluster_is_a_document_too(site: Site) -> None:
    nobody = site.run("query", "cluster", "--metastore_address", site.metastore)
    assert nobody.returncode == 1
    assert json.loads(nobody.stdout)["status"] == "RPC unavailable"
    no_backend = site.run("query", "cluster")
    assert no_backend.returncode == 1
    assert json.loads(no_backend.stdout)["error"] == (
        "exactly one coordination backend address is required"
    )


def test_a_second_worker_at_the_address_is_refused_by_name(site: Site) -> None:
    owner = f"pid={os.getpid()} start=1 session=test"
    assert site.start("--owner", owner).returncode == 0
    pid = find_workers_at(site.address)[0].pid
    second = site.start()
    assert second.returncode == 1
    assert f"[  FAILED  ] Start worker service @ {site.address} failed" in second.stderr
    assert f"worker PID {pid} serves it already; its owner: {owner}" in second.stderr
    assert "Start failed: The worker service exited abnormally" in second.stderr
    assert find_workers_at(site.address)[0].pid == pid


def test_a_port_in_use_is_named_with_a_remedy(site: Site) -> None:
    host, port = site.address.split(":")
    with socket.socket() as other:
        other.bind((host, int(port)))
        other.listen()
        done = site.start()
    assert done.returncode == 1
    assert "[ERROR] [  FAILED  ] Worker exited with code 1\n output: " in done.stderr
    assert port in done.stderr
    assert "remedy: " in done.stderr
    assert f"last lines of {site.home}/datasystem/logs/datasystem_worker.log:" in (
        done.stderr
    )
    assert done.stderr.rstrip().endswith(
        "[ERROR] Start failed: The worker service exited abnormally"
    )
    assert find_workers_at(site.address) == []


def test_an_arena_larger_than_the_machine_is_refused_with_a_remedy(site: Site) -> None:
    done = site.start("--shared_memory_size_mb", "16777216")
    assert done.returncode == 1
    assert "failed to mmap shared memory: Cannot allocate memory" in done.stderr
    assert "remedy: Give a smaller --shared_memory_size_mb" in done.stderr


def test_an_unknown_flag_is_refused_with_the_nearest(site: Site) -> None:
    done = site.start("--shared_memory_mb", "64")
    assert done.returncode == 1
    assert "unknown flag '--shared_memory_mb'; did you mean" in done.stderr
    assert "--shared_memory_size_mb" in done.stderr


def test_rdma_is_refused_with_what_is_missing(site: Site) -> None:
    done = site.start("--enable_rdma", "true")
    assert done.returncode == 1
    assert "RDMA" in done.stderr
    assert find_workers_at(site.address) == []


def test_the_environment_reaches_the_worker_without_proxies(site: Site) -> None:
    done = site.start(
        UCX_TLS="rc", http_proxy="http://127.0.0.1:1", HTTPS_PROXY="http://127.0.0.1:1"
    )
    assert done.returncode == 0, done.stderr
    worker = find_workers_at(site.address)[0]
    for pid in (worker.pid, worker.child_pid):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert b"UCX_TLS=rc" in environment
        assert not any(b"proxy=" in entry.lower() for entry in environment)


def test_without_shared_memory_bytes_travel_through_the_socket(site: Site) -> None:
    done = site.start("--ipc_through_shared_memory", "false")
    assert done.returncode == 0, done.stderr
    host, port = site.address.split(":")
    client = BlockClient(host, int(port), 5000, 5000)
    assert not client.uses_shared_memory
    client.put("key", b"value" * 1000, 0, False, 0)
    assert client.get_bytes(["key"], 0) == [b"value" * 1000]
    client.close()


def test_stop_of_nothing_is_an_error(site: Site) -> None:
    done = site.stop()
    assert done.returncode == 1
    assert done.stderr.startswith(
        "[ERROR] Stop failed: No matching process found for "
        f"worker_address={site.address}"
    )


def test_status_says_who_holds_memory(site: Site) -> None:
    assert site.start().returncode == 0
    host, port = site.address.split(":")
    client = KVClient(host, int(port))
    client.init()
    client.set("deleted", b"x" * (1 << 20))
    held = client.get_buffers(["deleted"])
    client.delete(["deleted"])
    reserved = client.mcreate(["reserved"], [2 << 20])
    done = site.run("status", "--pins", "--json", "--worker_address", site.address)
    assert done.returncode == 0, done.stderr
    (holder,) = json.loads(done.stdout)["holders"]
    assert holder["pid"] == os.getpid()
    assert holder["deleted"] == 1
    assert holder["deleted_bytes"] == 1 << 20
    assert holder["unsealed"] == 1
    assert holder["unsealed_bytes"] == 2 << 20
    assert holder["pinned"] == 2
    assert holder["pinned_bytes"] == 3 << 20

    done = site.run("status", "--pins", "--worker_address", site.address)
    assert f"PID {os.getpid()} (" in done.stdout
    assert "1 (1 MiB)" in done.stdout

    with pytest.raises(RuntimeError, match=f"most by PID {os.getpid()}: 3.0 MiB"):
        client.set("too-large", bytes(63 << 20))

    del held, reserved
    client.delete(["any"])  # What is given up goes with the next request.
    done = site.run("status", "--pins", "--worker_address", site.address)
    assert "nobody holds memory" in done.stdout
    client.close()


def test_status_of_nothing_is_an_error(site: Site) -> None:
    done = site.run("status", "--json", "--worker_address", site.address)
    assert done.returncode == 1
    assert done.stdout == ""
    assert site.address in done.stderr


def test_a_killed_dscli_leaves_no_worker_that_never_became_ready(site: Site) -> None:
    """Ctrl-C while it waits: what was started is ended."""
    words = ["start", "-t", "20", "-d", str(site.home), "-w"]
    words += ["--worker_address", site.address, "--metastore_address", site.metastore]
    # The ready file is where dscli does not look, so it waits.
    words += ["--ready_check_path", str(site.home / "folder")]
    (site.home / "folder").mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "yr.datasystem.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 20
    while not find_workers_at(site.address):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert find_workers_at(site.address) == []


def test_an_owner_is_alive_dead_or_unknown() -> None:
    own_start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    assert owner_is_alive(f"pid={os.getpid()} start={own_start} session=x") is True
    assert owner_is_alive(f"pid={os.getpid()} start=1 session=x") is False
    assert owner_is_alive("user root") is None
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert owner_is_alive(f"pid={ended.pid}") is False
