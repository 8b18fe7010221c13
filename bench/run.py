"""Measures us beside the peers and writes the tables of docs/benchmarks.md.

    python bench/run.py [--quick] [--dry]
        [--only store|copy|kv|fields|start|memory|growth|profile]

Both sides of a row run in one go, in alternating chunks, after a warm-up chunk that is
not counted; a ratio is the best peer's p50 divided by ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import call_profile
import growth
from _sides import (
    OURS,
    PEERS,
    ROOT,
    DscliDaemon,
    MooncakeDaemon,
    RayCluster,
    RayTemp,
    RedisDaemon,
    Side,
    WorkerPorts,
    children_of,
)

STORE_CASES = [
    ("1 KB", 1, 1 << 10, 60),
    ("64 KB", 1, 64 << 10, 60),
    ("1 MB", 1, 1 << 20, 30),
    ("64 MB", 1, 64 << 20, 5),
    ("1000 x 1 KB", 1000, 1 << 10, 4),
    ("500 x 64 KB", 500, 64 << 10, 4),
]
KV_CASES = [
    ("1x1x16", 50),
    ("64x4x128", 20),
    ("1024x10x128", 4),
    ("1024x10x8192", 2),
    ("512x4xr3072", 4),
    ("16x2x1000000", 4),
]
CHUNKS = 4
SETTLE_S = 10.0  # Peers go on touching their memory after they are ready.


def store_side(name: str) -> Side:
    """A side of the store benchmark, not started."""
    python = (OURS if name == "ours" else PEERS) / "python"
    side = Side(name, python, "store_driver.py", name)
    if name == "ours":
        side.add(DscliDaemon(OURS, side.folder))
    elif name == "yuanrong":
        side.add(DscliDaemon(PEERS, side.folder))
    elif name == "redis":
        side.add(RedisDaemon(side.folder))
    elif name == "mooncake":
        side.add(MooncakeDaemon(side.folder))
    else:
        side.add(RayTemp(side.folder))
    return side


def kv_side(name: str, with_ray: bool = True) -> Side:
    """A side of the key-value benchmark, not started."""
    programs = OURS if name == "ours" else PEERS
    backend = "SimpleStorage" if name == "SimpleStorage" else "Yuanrong"
    side = Side(name, programs / "python", "kv_driver.py", backend)
    side.add(WorkerPorts())
    if with_ray:
        side.add(RayCluster(programs, side.folder))
    return side


def measure(
    sides: list[Side], request: dict[str, Any], rounds: int
) -> dict[str, dict[str, float]]:
    """p50, p99 (us), first call (us) and CPU per call (us) of each side."""
    times: dict[str, list[int]] = {side.name: [] for side in sides}
    first: dict[str, float] = {}
    cpu: dict[str, list[float]] = {side.name: [] for side in sides}
    for chunk in range(CHUNKS + 1):
        for side in sides:
            answer = side.ask({**request, "rounds": rounds})
            if chunk == 0:
                first[side.name] = answer["ns"][0] / 1e3
                continue
            times[side.name] += answer["ns"]
            cpu[side.name].append(answer["cpu_us"])
    result = {}
    for side in sides:
        ordered = sorted(times[side.name])
        result[side.name] = {
            "p50": statistics.median(ordered) / 1e3,
            "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] / 1e3,
            "first": first[side.name],
            "cpu": statistics.median(cpu[side.name]),
        }
    return result


def us(value: float) -> str:
    """Microseconds for people."""
    if value < 1000:
        return f"{value:.0f} us"
    if value < 1e6:
        return f"{value / 1e3:.2f} ms"
    return f"{value / 1e6:.2f} s"


def row(
    label: str, result: dict[str, dict[str, float]], unlike: Sequence[str] = ()
) -> str:
    """One line of a table: ours, the best peer, the ratio. Peers that are `unlike` do
    something else under this name: they are shown, but are not the best."""
    ours = result["ours"]
    peers = {name: r for name, r in result.items() if name != "ours"}
    cells = [label, us(ours["p50"]), us(ours["p99"]), us(ours["first"])]
    cells.append(us(ours["cpu"]))
    for name, peer in peers.items():
        cells.append(us(peer["p50"]) + ("*" if name in unlike else ""))
    if peers:
        best = min(peer["p50"] for name, peer in peers.items() if name not in unlike)
        cells.append(f"{best / ours['p50']:.1f}x")
    return "| " + " | ".join(cells) + " |"


def header(first: str, names: list[str]) -> list[str]:
    """Head of a table."""
    cells = [first, "ours p50", "p99", "first call", "CPU per call"]
    cells += [f"{name} p50" for name in names if name != "ours"] + ["ratio"]
    return ["| " + " | ".join(cells) + " |", "|" + "---|" * len(cells)]


def progress(text: str) -> None:
    """A line per case, so that a long run shows where it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def start_sides(names: list[str], make: Callable[[str], Side]) -> list[Side]:
    """Starts those that can be; one that cannot is reported and left out."""
    sides = []
    for name in names:
        progress(f"start {name}")
        side = None
        try:
            side = make(name)
            side.start()
        except (RuntimeError, TimeoutError) as error:
            if side is not None:
                side.stop()
            if name == "ours":
                raise
            progress(f"{name} left out: {error}")
            continue
        sides.append(side)
    progress("wait until the memory is populated")
    time.sleep(SETTLE_S)
    for side in sides:
        side.wait_until_populated()
    return sides


def bench_store(quick: bool) -> list[str]:
    """The store: every operation at every size."""
    names = ["ours", "yuanrong", "mooncake", "redis", "ray"]
    sides = start_sides(names, store_side)
    lines = header("store", [side.name for side in sides])
    try:
        for label, count, size, rounds in STORE_CASES:
            rounds = max(2, rounds // 10) if quick else rounds
            for operation in ("put", "set", "get", "delete"):
                if operation == "set" and count > 1:
                    continue
                able = [s for s in sides if operation != "set" or has_set(s)]
                progress(f"store {operation} {label}")
                request = {"case": [count, size], "operation": operation}
                result = measure(able, request, rounds)
                unlike = ["ray"] if operation == "delete" else []
                lines.append(row(f"{operation} {label}", result, unlike))
                progress(lines[-1])
    finally:
        for side in sides:
            side.stop()
    return lines


def has_set(side: Side) -> bool:
    """KVClient.set exists on ours and on the peer with the same API."""
    return side.name in ("ours", "yuanrong")


def bench_kv(quick: bool) -> list[str]:
    """The queue's key-value API."""
    names = ["ours", "SimpleStorage", "Yuanrong"]
    sides = start_sides(names, kv_side)
    lines = header("kv, rows x fields x length", [side.name for side in sides])
    try:
        for case, rounds in KV_CASES:
            rounds = max(2, rounds // 5) if quick else rounds
            for operation in ("put", "get", "get_all", "clear"):
                progress(f"kv {operation} {case}")
                request = {"case": case, "operation": operation}
                lines.append(
                    row(f"{operation} {case}", measure(sides, request, rounds))
                )
                progress(lines[-1])
    finally:
        for side in sides:
            side.stop()
    return lines


def bench_fields(quick: bool) -> list[str]:
    """What each further field of a get costs: few fields beside many, without Ray, and
    without a look at the values, which is torch's time."""
    few, many = 2, 34
    side = kv_side("ours", with_ray=False)
    side.start()
    times: dict[int, list[float]] = {}
    try:
        for fields in (few, many, few, many):
            request = {"case": f"256x{fields}x128", "operation": "get_only"}
            result = measure([side], request, 5 if quick else 50)["ours"]
            times.setdefault(fields, []).append(result["p50"])
    finally:
        side.stop()
    each = (min(times[many]) - min(times[few])) / (many - few)
    return [
        f"| get 256x{few}x128 | get 256x{many}x128 | each further field |",
        "|---|---|---|",
        f"| {us(min(times[few]))} | {us(min(times[many]))} | {us(each)} |",
    ]


def start_seconds(name: str) -> float:
    """Of `dscli start`."""
    programs = OURS if name == "ours" else PEERS
    side = Side(name, programs / "python", "store_driver.py", name)
    daemon = DscliDaemon(programs, side.folder)
    side.add(daemon)
    side.stop()
    return daemon.start_seconds


def init_seconds(name: str, with_ray: bool) -> float:
    """Of `tq.init()`, in a process that has imported it."""
    side = kv_side(name, with_ray)
    try:
        side.start()
    finally:
        side.stop()
    return float(side.hello["init_ns"]) / 1e9


def import_seconds(name: str) -> float:
    """Of `import transfer_queue`, in a fresh interpreter."""
    import subprocess

    code = "import time; t = time.perf_counter(); import transfer_queue; "
    code += "print(time.perf_counter() - t)"
    python = (OURS if name == "ours" else PEERS) / "python"
    done = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def start_row(
    label: str, work: Callable[[str], float], peers: Sequence[str], rounds: int
) -> str:
    """One line: the median of ours, of each peer, and the ratio to the best."""
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    for _ in range(rounds):
        for name, measured in seconds.items():
            measured.append(work(name))
            progress(f"{label} {name} {measured[-1]:.3f} s")
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    ours = medians.pop("ours")
    others = ", ".join(f"{name} {each:.2f} s" for name, each in medians.items())
    ratio = f"{min(medians.values()) / ours:.1f}x" if medians else ""
    return f"| {label} | {ours:.3f} s | {others} | {ratio} |"


def bench_start(quick: bool) -> list[str]:
    """What a user waits for before anything is stored, in turn."""
    rounds = 2 if quick else 5
    queues = ["SimpleStorage", "Yuanrong"]
    return [
        "| | ours | peers | ratio |",
        "|---|---|---|---|",
        start_row("dscli start", start_seconds, ["yuanrong"], rounds),
        start_row("import transfer_queue", import_seconds, ["SimpleStorage"], rounds),
        start_row(
            "tq.init, Ray is up", lambda name: init_seconds(name, True), queues, 2
        ),
        start_row(
            "tq.init without Ray", lambda name: init_seconds(name, False), [], rounds
        ),
    ]


def pss_bytes(pid: int) -> int:
    """Proportional set size of one process and of its children."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return total + sum(map(pss_bytes, children_of(pid)))


def bench_memory(quick: bool) -> list[str]:
    """Memory of the worker per key of 64 bytes: growth of its PSS."""
    count = 100_000 if quick else 1_000_000
    side = Side("ours", OURS / "python", "store_driver.py", "ours")
    daemon = DscliDaemon(OURS, side.folder)
    side.add(daemon)
    script = (
        "import sys, json\n"
        "from yr.datasystem import KVClient, BlockClient\n"
        "host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n"
        "client = KVClient(host, port); client.init()\n"
        "for begin in range(0, count, 5000):\n"
        "    keys = [f'k{i:09d}' for i in range(begin, min(begin + 5000, count))]\n"
        "    client.mset(keys, [b'x' * 64] * len(keys))\n"
        "client.close()\n"
    )
    host, port = daemon.address.split(":")
    pid = daemon.supervisor_pid()
    before = pss_bytes(pid)
    begin = time.perf_counter()
    subprocess.run(
        [str(OURS / "python"), "-c", script, host, port, str(count)], check=True
    )
    seconds = time.perf_counter() - begin
    grown = pss_bytes(pid) - before
    side.stop()
    return [
        "| keys of 64 B | memory per key | time for all |",
        "|---|---|---|",
        f"| {count} | {grown / count:.0f} B | {seconds:.2f} s |",
    ]


def bench_copy(quick: bool) -> list[str]:
    """A put of 64 MiB beside the copy that it contains; both ratios are of speeds."""
    side = Side("ours", OURS / "python", "store_driver.py", "ours")
    daemon = DscliDaemon(OURS, side.folder)
    side.add(daemon)
    side.wait_until_populated()
    host, port = daemon.address.split(":")
    command = [str(OURS / "python"), str(ROOT / "bench" / "copy_driver.py")]
    done = subprocess.run(
        [*command, host, port, "8" if quick else "40"],
        check=True,
        capture_output=True,
        text=True,
    )
    side.stop()
    times = json.loads(done.stdout)
    lines = [
        "| 64 MiB | p50 | least | put runs at (p50) | (least) |",
        "|---|---|---|---|---|",
    ]
    put = times["put"]
    for name, text in (
        ("put", "put, with checksum"),
        ("memcpy", "memcpy() into touched memory"),
        ("streamed", "our copy past the caches"),
    ):
        middle, least = statistics.median(times[name]), min(times[name])
        lines.append(
            f"| {text} | {us(middle / 1e3)} | {us(least / 1e3)} "
            f"| {middle / statistics.median(put):.2f} | {least / min(put):.2f} |"
        )
    return lines


BENCHES = {
    "store": bench_store,
    "copy": bench_copy,
    "kv": bench_kv,
    "fields": bench_fields,
    "start": bench_start,
    "memory": bench_memory,
    "growth": growth.bench_growth,
    "profile": call_profile.profile,
}


def write_section(name: str, lines: list[str]) -> None:
    """Replaces what stands between the section's markers in docs/benchmarks.md."""
    path = ROOT / "docs" / "benchmarks.md"
    begin, end = f"<!-- {name} begin -->", f"<!-- {name} end -->"
    text = path.read_text()
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    path.write_text(f"{head}{begin}\n" + "\n".join(lines) + f"\n{end}{tail}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--dry", action="store_true", help="do not write the tables")
    parser.add_argument("--only", choices=sorted(BENCHES), action="append")
    options = parser.parse_args()
    for name in options.only or list(BENCHES):
        lines = BENCHES[name](options.quick)
        print("\n".join(lines), flush=True)
        if not options.dry:
            write_section(name, lines)


if __name__ == "__main__":
    main()
