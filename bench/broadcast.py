"""Measures how one node's object comes to eight others.

    python bench/broadcast.py [--mb N] [--rounds N]

Nine workers on network namespaces of this machine. All of the eight ask at the same
time; each passes on what it gets. They share the cores of the machine, so the time is
that of all copies together. Needs root, and nine times the size in memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from _cluster import Cluster, Network, why_impossible

READERS = 8


def sent_bytes(cluster: Cluster, i: int) -> int:
    return int(str(cluster.status(i)["bytes_fetched_total"]))


def measure(cluster: Cluster, size: int, rounds: int) -> None:
    seconds, copies, most = [], [], 0.0
    readers = range(1, READERS + 1)
    for serial in range(rounds):
        words = f"k{serial} {size} 1"
        before = [sent_bytes(cluster, i) for i in range(READERS + 1)]
        cluster.ask(0, f"set {words}")
        for i in readers:
            cluster.tell(i, f"get {words}")
        seconds.append(max([cluster.hear(i) for i in readers]))
        cluster.ask(0, f"delete {words}")
        sent = [sent_bytes(cluster, i) - before[i] for i in range(READERS + 1)]
        copies.append(sent[0] / size)
        most = max(most, *(bytes_ / size for bytes_ in sent))
    median = statistics.median(seconds)
    print(
        f"{size >> 20} MiB to {READERS} nodes, {rounds} rounds: all have it after "
        f"{median:.2f} s (p50; least {min(seconds):.2f} s), "
        f"{READERS * size / median / 1e9:.2f} GB/s together; the source sends "
        f"{max(copies):.2f} copies at most, no node more than {most:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if why_impossible() is not None:
        sys.exit(why_impossible())
    network = Network(READERS + 1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            arena_mb = str(options.mb + options.mb // 8 + 16)
            flags = ("--shared_memory_size_mb", arena_mb)
            cluster = Cluster(network.hosts, Path(folder), *flags)
            try:
                measure(cluster, options.mb << 20, options.rounds)
            finally:
                cluster.stop()
        finally:
            network.end()


if __name__ == "__main__":
    main()
