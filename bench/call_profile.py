"""Where the time of a call goes: the section "profile" of docs/benchmarks.md.

    python bench/call_profile.py store|kv CALL SECONDS    a driver, as bench/run.py
                                                          starts it

Two views of a driver that repeats one call on one node:

- the store, by `perf record -e cpu-clock` on client and worker: CPU time per call in
  each program and library of both. What is left of the wall time is one waiting for the
  other to be woken, so far as they do not work at the same time.
- the key-value API, by a wall-clock timer in the client: the function of Python that
  was innermost, with all the C code and the waiting that it called.
"""

from __future__ import annotations

import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from _sides import OURS, DscliDaemon, children_of, free_port

STORE_CALLS = ["put 1 KB and delete", "get 1 KB"]
KV_CALLS = ["put 1x1x16", "get 1x1x16", "put 1024x10x128", "get 1024x10x128"]
PERF = ["perf", "record", "-q", "-F", "4000", "-e", "cpu-clock"]
TOP = 12
_SAMPLE_S = 0.001

# ---- The drivers, each in a process of its own ---------------------------------------


def store_call(name: str) -> Callable[[], None]:
    from store_driver import KVClientStore

    store = KVClientStore()
    values = [memoryview(os.urandom(1024))]

    def put_and_delete() -> None:
        store.put(["key"], values)
        store.delete(["key"])

    def get() -> None:
        _ = store.get(["read"])[0][0]

    store.put(["read"], values)
    return get if name.startswith("get") else put_and_delete


def kv_call(name: str) -> Callable[[], None]:
    import transfer_queue as tq
    from kv_driver import batch

    ports = {"worker_port": free_port(), "metastore_port": free_port()}
    section = {**ports, "worker_args": "--shared_memory_size_mb 1024"}
    tq.init({"backend": {"Yuanrong": section}})
    operation, case = name.split()
    data = batch(case)
    keys = [f"key_{i}" for i in range(data.batch_size[0])]

    def put() -> None:
        tq.kv_batch_put(keys=keys, partition_id="bench", fields=data)

    def get() -> None:
        tq.kv_batch_get(keys=keys, partition_id="bench")

    put()
    return get if operation == "get" else put


def repeat(call: Callable[[], None], seconds: float) -> float:
    """Wall time per call in microseconds."""
    begin, count = time.perf_counter(), 0
    while (now := time.perf_counter()) - begin < seconds:
        call()
        count += 1
    return (now - begin) * 1e6 / count


def drive_store(name: str, seconds: float) -> None:
    call = store_call(name)
    repeat(call, 1.0)
    print("{}", flush=True)
    sys.stdin.readline()  # perf is there now.
    cpu = time.process_time()
    begin = time.perf_counter()
    wall_us = repeat(call, seconds)
    cpu_share = (time.process_time() - cpu) / (time.perf_counter() - begin)
    print(json.dumps({"wall_us": wall_us, "cpu_us": wall_us * cpu_share}), flush=True)


def drive_kv(name: str, seconds: float) -> None:
    import transfer_queue as tq

    call = kv_call(name)
    repeat(call, 1.0)
    wall_us = repeat(call, seconds)  # Without the timer.
    innermost: collections.Counter[str] = collections.Counter()

    def sample(_number: int, frame: FrameType | None) -> None:
        if frame is not None:
            innermost[_place(frame)] += 1

    signal.signal(signal.SIGALRM, sample)
    signal.setitimer(signal.ITIMER_REAL, _SAMPLE_S, _SAMPLE_S)
    repeat(call, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    tq.close()
    print(json.dumps({"wall_us": wall_us, "samples": innermost}), flush=True)


def _place(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    known = ("transfer_queue", "torch", "tensordict", "numpy")
    package = next((name for name in known if name in path.parts), "")
    if package == "transfer_queue":
        return f"{path.name} {frame.f_code.co_name}"
    return package or "other"


# ---- What bench/run.py calls ---------------------------------------------------------


def store_profile(name: str, seconds: float) -> list[str]:
    """Lines of a table: CPU time per call in each program and library."""
    with tempfile.TemporaryDirectory(prefix="tqbench-") as folder:
        daemon = DscliDaemon(OURS, Path(folder))
        try:
            return _store_lines(name, daemon, seconds, Path(folder))
        finally:
            daemon.stop()


def _store_lines(
    name: str, daemon: DscliDaemon, seconds: float, folder: Path
) -> list[str]:
    (worker,) = children_of(daemon.supervisor_pid())
    with subprocess.Popen(
        [str(OURS / "python"), __file__, "store", name, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **daemon.environment},
    ) as driver:
        assert driver.stdin is not None and driver.stdout is not None
        driver.stdout.readline()
        data = folder / "perf.data"
        perf = subprocess.Popen(
            [*PERF, "-o", str(data), "-p", f"{driver.pid},{worker}"],
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.5)
        worker_cpu = cpu_seconds(worker)
        driver.stdin.write("\n")
        driver.stdin.flush()
        answer = json.loads(driver.stdout.readline())
        worker_cpu = cpu_seconds(worker) - worker_cpu
        perf.send_signal(signal.SIGINT)
        perf.wait(30)
    calls = seconds * 1e6 / answer["wall_us"]
    cpu = {"client": answer["cpu_us"], "worker": worker_cpu * 1e6 / calls}
    lines = [f"| **{name}**, wall time | | {answer['wall_us']:.1f} us |"]
    for process, pid in (("client", driver.pid), ("worker", worker)):
        shares = samples_by_object(data, pid)
        total = sum(shares.values()) or 1
        lines.append(f"| {name} | {process}, CPU | {cpu[process]:.1f} us |")
        for where, count in shares.most_common(5):
            part = cpu[process] * count / total
            lines.append(f"| {name} | {process}: {where} | {part:.1f} us |")
    return lines


def samples_by_object(data: Path, pid: int) -> collections.Counter[str]:
    """Samples of a process by program, library or "kernel"."""
    shown = subprocess.run(
        ["perf", "script", "-i", str(data), "-F", "pid,ip,dso", "--pid", str(pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: collections.Counter[str] = collections.Counter()
    for line in shown.splitlines():
        _, opened, name = line.rpartition("(")
        if opened:
            name = Path(name.rstrip(")")).name
            found["kernel" if name.startswith("[") else name] += 1
    return found


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kv_profile(name: str, seconds: float) -> list[str]:
    """Lines of a table: wall time per call by innermost function."""
    with tempfile.TemporaryDirectory(prefix="tqbench-") as folder:
        environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": folder,
            "RAY_TMPDIR": folder,
            "PATH": f"{OURS}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            [str(OURS / "python"), __file__, "kv", name, str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            check=True,
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    samples = collections.Counter(answer["samples"])
    total = sum(samples.values())
    lines = [f"| **{name}**, wall time | | {answer['wall_us']:.0f} us |"]
    for where, count in samples.most_common(TOP):
        lines.append(
            f"| {name} | {where} | {answer['wall_us'] * count / total:.0f} us |"
        )
    return lines


def profile(quick: bool) -> list[str]:
    """All of the section."""
    seconds = 1.0 if quick else 5.0
    lines = ["| call | where | time per call |", "|---|---|---|"]
    for name in STORE_CALLS:
        if shutil.which("perf"):
            lines += store_profile(name, seconds)
        else:
            lines.append(f"| {name} | not measured: perf is not installed | |")
    for name in KV_CALLS:
        lines += kv_profile(name, seconds)
    return lines


if __name__ == "__main__":
    drive = drive_store if sys.argv[1] == "store" else drive_kv
    drive(sys.argv[2], float(sys.argv[3]))
