"""Measures what encryption costs between two nodes.

    python bench/encryption.py [--rounds N]

Two clusters of two workers each, on network namespaces of this machine: one encrypts,
the other only has a key. By turns a value is set on one node of each, and the time is
taken until it was read on the other node, which had nothing of it. All workers share
the cores of the machine, so the CPU time of both workers says more. Needs root.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from _cluster import Cluster, Network, why_impossible

CASES = ((1000, 50), (1_000_000, 10), (64_000_000, 2))  # Bytes, and gets of one turn.


def get(cluster: Cluster, serial: int, size: int, count: int) -> tuple[float, float]:
    """Seconds of one, and CPU seconds of both workers."""
    words = f"k{serial}.{size} {size} {count}"
    cluster.ask(1, f"set {words}")
    busy = cluster.busy_seconds()
    seconds = cluster.ask(0, f"get {words}")
    busy = cluster.busy_seconds() - busy
    cluster.ask(1, f"delete {words}")
    return seconds, busy / count


def measure(pairs: dict[str, Cluster], rounds: int) -> None:
    print(
        "| bytes | way | p50 | least | GB/s (p50) | CPU of both workers |\n"
        "|---|---|---|---|---|---|"
    )
    for size, count in CASES:
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in pairs}
        for serial in range(rounds + 1):
            for way, pair in pairs.items():
                times[way].append(get(pair, serial, size, count))
        for way, found in times.items():
            seconds = sorted(time for time, _ in found[1:])  # The first one connects.
            busy = statistics.median(cpu for _, cpu in found[1:])
            median = statistics.median(seconds)
            print(
                f"| {size} | {way} | {median * 1e3:.2f} ms | {seconds[0] * 1e3:.2f} ms "
                f"| {size / median / 1e9:.2f} | {busy * 1e3:.1f} ms |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    if why_impossible() is not None:
        sys.exit(why_impossible())
    print(json.dumps({"load": Path("/proc/loadavg").read_text().split()[:3]}))
    network = Network(4)
    pairs: dict[str, Cluster] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for way, hosts in (
                ("plain", network.hosts[:2]),
                ("encrypted", network.hosts[2:]),
            ):
                flags = ["--shared_memory_size_mb", "768"]
                if way == "encrypted":
                    flags += ["--encrypt_connections", "true"]
                pairs[way] = Cluster(hosts, Path(folder), *flags)
            measure(pairs, options.rounds)
        finally:
            for pair in pairs.values():
                pair.stop()
            network.end()


if __name__ == "__main__":
    main()
