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
from collections.abc import Sequence
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
KEY_CASES = [  # keys x bytes of each, -, rounds of a chunk
    ("keys 1x1000", None, 20),
    ("keys 50x1000 each", None, 2),
    ("keys 1x1000000", None, 10),
    ("keys 1x64000000", None, 2),
    ("keys 1000x1000", None, 4),
    ("keys 500x64000", None, 2),
]
CHUNKS = 4
IPERF_S = 1
STREAMS = 4  # As many connections as our workers make to a node (LINKS_MAX, peers.c).
STREAM_BYTES_MIN = 500_000  # Less is compared with a round trip.
CPU_S_MIN = 0.05  # Less says nothing: the kernel counts ticks of 10 ms.
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


def is_bulk(case: str, fields: int | None) -> bool:
    """Compared with a stream of bytes, not with a round trip."""
    return payload_bytes(case, fields) >= STREAM_BYTES_MIN


class Wire:
    """The link between the hosts, by itself. Use `stop`."""

    name = "wire"

    def __init__(self, network: Network) -> None:
        self._first, self._second = network.hosts
        program = [sys.executable, str(ROOT / "bench" / "ping_pong.py")]
        address = self._first.address
        self._answers = piped([*self._first.within, *program, address])
        port = line_of(self._answers)
        self._asks = piped([*self._second.within, *program, address, port])

    def get(self, case: str, fields: int | None, check: bool) -> dict[str, float]:
        """Of as many bytes as a get of ours; a round trip where they are few. The
        second host sends."""
        payload = payload_bytes(case, fields)
        if not is_bulk(case, fields):
            return {"s": self._round_trip(gets_of(case)), "bytes": 1.0, "cpu": 0.0}
        rate, cpu_per_byte = self._iperf()
        return {"s": payload / rate, "bytes": payload, "cpu": payload * cpu_per_byte}

    def stop(self) -> None:
        self._asks.communicate()
        self._answers.communicate()

    def _round_trip(self, count: int) -> float:
        """Seconds, p50 of so many one right after the other."""
        assert self._asks.stdin is not None
        self._asks.stdin.write(f"{count}\n")
        self._asks.stdin.flush()
        return int(line_of(self._asks)) / 1e9

    def _iperf(self) -> tuple[float, float]:
        """Bytes a second, and CPU seconds of a byte."""
        address = self._first.address
        words = [*self._first.within, "iperf3", "-s", "-1", "-B", address]
        server = piped([*words, "--forceflush"])
        while "listening" not in line_of(server):
            pass
        words = [*self._second.within, "iperf3", "-c", address, "-J"]
        words += ["-t", str(IPERF_S), "-P", str(STREAMS)]
        busy = busy_seconds()
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        busy = busy_seconds() - busy
        server.communicate(timeout=30)
        received = json.loads(done.stdout)["end"]["sum_received"]
        return float(received["bits_per_second"]) / 8, busy / float(received["bytes"])


def piped(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended")
    return line.strip()


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
    pairs: Sequence[Pair | Wire], case: str, fields: int | None, rounds: int
) -> dict[str, dict[str, float]]:
    """Medians of each pair; the first chunk is a warm-up, with all bytes compared. All
    take turns, as a shared machine is not as fast at any time."""
    samples: dict[str, list[dict[str, float]]] = {pair.name: [] for pair in pairs}
    for chunk in range(CHUNKS + 1):
        for pair in pairs:
            is_stream = isinstance(pair, Wire) and is_bulk(case, fields)
            for _ in range(1 if chunk == 0 or is_stream else rounds):
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


def beside_wire(
    payload: int, ours: dict[str, float], wire: dict[str, float], bulk: bool
) -> list[str]:
    """The cells of ours and of the wire."""
    if not bulk:
        trips = f"{ours['s'] / wire['s']:.1f} round trips"
        moved = f"{ours['bytes'] / payload:.2f}"
        return [us(ours["s"] * 1e6), us(wire["s"] * 1e6), trips, moved, "-"]
    rate, limit = payload / ours["s"] / 1e9, payload / wire["s"] / 1e9
    return [
        f"{us(ours['s'] * 1e6)}, {rate:.2f} GB/s",
        f"{limit:.2f} GB/s",
        f"{rate / limit:.2f} of iperf3",
        f"{ours['bytes'] / payload:.2f}",
        f"{ours['cpu'] / wire['cpu']:.1f}" if ours["cpu"] >= CPU_S_MIN else "-",
    ]


def table(
    title: str,
    pairs: list[Pair],
    wire: Wire,
    cases: Sequence[tuple[str, int | None, int]],
    quick: bool,
) -> list[str]:
    head = [title, "ours p50", "wire", "beside it", "bytes moved", "CPU of iperf3's"]
    head += [f"{pair.name} p50" for pair in pairs if pair.name != "ours"]
    head += ["best peer / ours"] if len(pairs) > 1 else []
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for case, fields, rounds in cases:
        progress(f"get {case}")
        result = measure([*pairs, wire], case, fields, 1 if quick else rounds)
        ours, alone = result.pop("ours"), result.pop("wire")
        label = case if fields is None else f"{case}, {fields} of its fields"
        payload, bulk = payload_bytes(case, fields), is_bulk(case, fields)
        cells = [label, *beside_wire(payload, ours, alone, bulk)]
        cells += [us(peer["s"] * 1e6) for peer in result.values()]
        if result:
            best = min(peer["s"] for peer in result.values())
            cells.append(f"{best / ours['s']:.1f}x")
        lines.append("| " + " | ".join(cells) + " |")
        progress(lines[-1])
    return lines


def bench(quick: bool) -> list[str]:
    pairs = start_pairs()
    wire = None
    try:
        wire = Wire(pairs[0].nodes.network)
        lines = table("get on the other node", pairs, wire, CASES, quick)
        with_keys = [pair for pair in pairs if pair.name != "SimpleStorage"]
        title = "KVClient get on the other node"
        lines += ["", *table(title, with_keys, wire, KEY_CASES, quick)]
    finally:
        if wire is not None:
            wire.stop()
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
