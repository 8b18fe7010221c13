"""Measures us beside the peers between two nodes, and the wire by iperf3.

    python bench/across_nodes.py [--quick] [--dry]

The nodes are network namespaces of this machine, joined by veth and a bridge: each side
has two of its own, with a Ray cluster. One process puts on the second node, another
gets on the first, which has nothing of it yet. Both share the cores of the machine, so
that the wire is as fast as these copy. Needs root and iperf3.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from _sides import (
    OURS,
    PEERS,
    ROOT,
    Daemon,
    Side,
    free_port,
    has_populated,
    wait_until,
    worker_status,
)
from run import progress, us, write_section

sys.path.insert(0, str(ROOT / "tests" / "support"))

from hosts import Host, Network, why_impossible
from ray_hosts import RayHosts

SIDES = ("ours", "SimpleStorage", "Yuanrong")
CASES = [  # rows x fields x length of float32, fields wanted, rounds of a chunk
    ("1x1x16", None, 20),
    ("1024x10x128", None, 4),
    ("1024x32x128", 2, 4),
    ("256x8x8192", None, 2),
    ("16x2x1000000", None, 2),
]
KEY_CASES = [  # keys x bytes of each, rounds of a chunk
    ("keys 1x1000", 20),
    ("keys 50x1000 each", 2),
    ("keys 1x1000000", 10),
    ("keys 1x64000000", 2),
    ("keys 1000x1000", 4),
    ("keys 500x64000", 2),
]
CHUNKS = 4
IPERF_S = 3
TICKS = os.sysconf("SC_CLK_TCK")


class Nodes(Daemon):
    """Two hosts with a Ray cluster. Owner: the side."""

    def __init__(self, programs: Path) -> None:
        super().__init__()
        self.network = Network(2)
        try:
            own = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}  # dscli
            self._ray = RayHosts(self.network.hosts, own, programs)
        except BaseException:
            self.network.end()
            raise
        self.environment = {
            **self._ray.environment,
            "BENCH_WORKER_PORT": str(free_port()),
            "BENCH_METASTORE_PORT": str(free_port()),
            "BENCH_ARENA_MB": "1024",
        }

    def stop(self) -> None:
        self._ray.end()
        self.network.end()


class Pair:
    """One side: who gets on the first node, and who puts on the second. Use `stop`."""

    def __init__(self, name: str) -> None:
        self.name = name
        programs = OURS if name == "ours" else PEERS
        backend = "Yuanrong" if name == "ours" else name
        self.nodes = Nodes(programs)
        self._sides: list[Side] = []
        self._serial = 0
        try:
            for host in self.nodes.network.hosts:
                side = Side(
                    name, programs / "python", "node_driver.py", backend, host.address
                )
                side.within = host.within
                side.environment = self.nodes.environment
                self._sides.append(side)
                side.start()
        except BaseException:
            self.stop()
            raise

    @property
    def getter_host(self) -> Host:
        return self.nodes.network.hosts[0]

    def get(self, case: str, fields: int | None, check: bool) -> dict[str, float]:
        """Seconds of one get, bytes that came in for it, and CPU seconds of all."""
        getter, putter = self._sides
        self._serial += 1
        request = {"case": case, "serial": self._serial}
        putter.ask({**request, "step": "put"})
        received, busy = received_bytes(self.getter_host), busy_seconds()
        wanted = {"fields": fields, "check": check}
        answer = getter.ask({**request, "step": "get", **wanted})
        gets = gets_of(case)
        result = {
            "s": answer["ns"] / 1e9,
            "bytes": (received_bytes(self.getter_host) - received) / gets,
            "cpu": (busy_seconds() - busy) / gets,
        }
        getter.ask({**request, "step": "clear"})
        return result

    def wait_until_populated(self) -> None:
        """The peers are ready when they say so, or do not tell."""
        if self.name == "ours":
            port = self.nodes.environment["BENCH_WORKER_PORT"]
            for host in self.nodes.network.hosts:
                address = f"{host.address}:{port}"
                wait_until(partial(is_populated, host, address), seconds=120, every=2)

    def stop(self) -> None:
        for side in reversed(self._sides):
            side.stop()
        self.nodes.stop()


def is_populated(host: Host, address: str) -> bool:
    """Whether our worker there has touched all its memory."""
    return has_populated(worker_status(address, within=host.within))


def received_bytes(host: Host) -> int:
    """By the host's interface."""
    text = Path(f"/proc/{host.namespace.pid}/net/dev").read_text()
    line = next(line for line in text.splitlines() if "eth0:" in line)
    return int(line.split(":")[1].split()[0])


def busy_seconds() -> float:
    """Of all cores together, the kernel's work for the network included."""
    user, nice, system, _, _, irq, softirq = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / TICKS


def gets_of(case: str) -> int:
    """All in one, or one after the other."""
    words = case.split()
    return int(words[1].split("x")[0]) if words[-1] == "each" else 1


def payload_bytes(case: str, fields: int | None) -> int:
    """Of one get."""
    if case.startswith("keys"):
        count, size = map(int, case.split()[1].split("x"))
        return count * size // gets_of(case)
    rows, all_fields, length = map(int, case.split("x"))
    return rows * (fields or all_fields) * length * 4


def iperf(network: Network, streams: int, seconds: int) -> dict[str, float]:
    """Bytes a second from the second host to the first, and CPU seconds of a GB."""
    first, second = network.hosts
    server = subprocess.Popen(
        [*first.within, "iperf3", "-s", "-1", "-B", first.address],
        stdout=subprocess.DEVNULL,
    )
    time.sleep(0.5)
    words = ["iperf3", "-c", first.address, "-t", str(seconds), "-J"]
    words += ["-P", str(streams)]
    busy = busy_seconds()
    done = subprocess.run(
        [*second.within, *words], capture_output=True, text=True, check=True
    )
    busy = busy_seconds() - busy
    server.wait(30)
    received = json.loads(done.stdout)["end"]["sum_received"]
    return {
        "rate": float(received["bits_per_second"]) / 8,
        "cpu_per_gb": busy / (float(received["bytes"]) / 1e9),
    }


def round_trip_us(network: Network, count: int) -> float:
    """Median of a ping-pong of one byte between two programs on the hosts."""
    first, second = network.hosts
    program = str(ROOT / "bench" / "ping_pong.py")
    server = subprocess.Popen(
        [*first.within, sys.executable, program, first.address],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    done = subprocess.run(
        [*second.within, sys.executable, program, first.address, port, str(count)],
        capture_output=True,
        text=True,
        check=True,
    )
    server.wait(30)
    return float(done.stdout)


def bench_wire(network: Network, quick: bool) -> tuple[list[str], dict[str, float]]:
    """Table, and the best rate with its CPU."""
    seconds = 1 if quick else IPERF_S
    lines = ["| wire | |", "|---|---|"]
    lines.append(f"| round trip of 1 B | {round_trip_us(network, 3000):.0f} us |")
    results = []
    for streams in (1, 2, 4):
        rounds = [iperf(network, streams, seconds) for _ in range(1 if quick else 3)]
        best = max(rounds, key=lambda result: result["rate"])
        results.append(best)
        lines.append(
            f"| iperf3, {streams} streams | {best['rate'] / 1e9:.2f} GB/s, "
            f"{best['cpu_per_gb']:.2f} CPU seconds a GB |"
        )
    return lines, max(results, key=lambda result: result["rate"])


def start_pairs() -> list[Pair]:
    """Those that can be; one that cannot is reported and left out."""
    pairs = []
    for name in SIDES:
        progress(f"start {name} on two nodes")
        try:
            pairs.append(Pair(name))
        except (RuntimeError, TimeoutError, OSError) as error:
            if name == "ours":
                raise
            progress(f"{name} left out: {error}")
    progress("wait until the memory is populated")
    for pair in pairs:
        pair.wait_until_populated()
    return pairs


def measure(
    pairs: list[Pair], case: str, fields: int | None, rounds: int
) -> dict[str, dict[str, float]]:
    """Medians of each pair; the first chunk is a warm-up, with all bytes compared."""
    samples: dict[str, list[dict[str, float]]] = {pair.name: [] for pair in pairs}
    for chunk in range(CHUNKS + 1):
        for pair in pairs:
            for _ in range(1 if chunk == 0 else rounds):
                sample = pair.get(case, fields, chunk == 0)
                if chunk > 0:
                    samples[pair.name].append(sample)
    return {
        name: {
            key: statistics.median(sample[key] for sample in taken)
            for key in ("s", "bytes", "cpu")
        }
        for name, taken in samples.items()
    }


def row(
    case: str,
    fields: int | None,
    result: dict[str, dict[str, float]],
    wire: dict[str, float],
) -> str:
    ours = result["ours"]
    peers = {name: r for name, r in result.items() if name != "ours"}
    payload = payload_bytes(case, fields)
    label = case if fields is None else f"{case}, {fields} of its fields"
    rate = payload / ours["s"]
    cells = [label, us(ours["s"] * 1e6), f"{rate / 1e9:.2f} GB/s"]
    cells.append(f"{rate / wire['rate']:.2f}")
    cells.append(f"{ours['bytes'] / payload:.2f}")
    cells.append(f"{ours['cpu'] / (payload / 1e9) / wire['cpu_per_gb']:.1f}")
    cells += [us(peer["s"] * 1e6) for peer in peers.values()]
    if peers:
        best = min(peer["s"] for peer in peers.values())
        cells.append(f"{best / ours['s']:.1f}x")
    return "| " + " | ".join(cells) + " |"


def bench_keys(pairs: list[Pair], wire: dict[str, float], quick: bool) -> list[str]:
    """Of the sides that have keys of users."""
    having = [pair for pair in pairs if pair.name != "SimpleStorage"]
    names = [pair.name for pair in having if pair.name != "ours"]
    head = ["KVClient get on the other node", "ours p50", "ours", "of iperf3"]
    head += ["bytes moved", "CPU of iperf3's"]
    head += [f"{name} p50" for name in names]
    head += ["ratio"] if names else []
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for case, rounds in KEY_CASES:
        progress(f"get {case}")
        result = measure(having, case, None, 1 if quick else rounds)
        lines.append(row(case, None, result, wire))
        progress(lines[-1])
    return lines


def bench(quick: bool) -> list[str]:
    pairs = start_pairs()
    try:
        lines, wire = bench_wire(pairs[0].nodes.network, quick)
        names = [pair.name for pair in pairs if pair.name != "ours"]
        head = ["get on the other node", "ours p50", "ours", "of iperf3"]
        head += ["bytes moved", "CPU of iperf3's"]
        head += [f"{name} p50" for name in names]
        head += ["ratio"] if names else []
        lines += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for case, fields, rounds in CASES:
            progress(f"get {case}")
            result = measure(pairs, case, fields, 1 if quick else rounds)
            lines.append(row(case, fields, result, wire))
            progress(lines[-1])
        lines += ["", *bench_keys(pairs, wire, quick)]
    finally:
        for pair in reversed(pairs):
            pair.stop()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--dry", action="store_true", help="do not write the table")
    options = parser.parse_args()
    reason = why_impossible()
    if reason is not None:
        sys.exit(f"bench-cluster: {reason}")
    lines = bench(options.quick)
    print("\n".join(lines), flush=True)
    if not options.dry:
        write_section("cluster", lines)


if __name__ == "__main__":
    main()
