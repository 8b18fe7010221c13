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
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from _sides import OURS, ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from hosts import Host, Network, why_impossible

CASES = ((1000, 50), (1_000_000, 10), (64_000_000, 2))  # Bytes, and gets of one turn.
ENVIRONMENT = "DATASYSTEM_AUTH_KEY_FILE"

# One node's client: "set|get NAME SIZE COUNT" a line, seconds of one are the answer.
CLIENT = """
import sys, time
from yr.datasystem import KVClient
client = KVClient(sys.argv[1], 31501)
client.init()
print("ready", flush=True)
for line in sys.stdin:
    step, name, size, count = line.split()
    names = [f"{name}.{i}" for i in range(int(count))]
    if step == "set":
        for each in names:
            client.set(each, bytes(int(size)))
    begin = time.perf_counter()
    if step == "get":
        for each in names:
            assert len(client.get_buffers([each])[0]) == int(size)
    seconds = time.perf_counter() - begin
    if step == "delete":
        client.delete(names)
    print(seconds / int(count), flush=True)
"""


class Pair:
    """Two workers, and a client of each. Use `stop`."""

    def __init__(self, hosts: list[Host], folder: Path, encrypts: bool) -> None:
        self._hosts, self._folder = hosts, folder
        self._key = folder / f"key{hosts[0].number}"
        self._key.write_text(secrets.token_hex(32))
        self._key.chmod(0o600)
        self._clients: list[subprocess.Popen[str]] = []
        for host in hosts:
            flags = ["--encrypt_connections", "true" if encrypts else "false"]
            flags += ["--auth_key_file", str(self._key)]
            flags += ["--metastore_address", f"{hosts[0].address}:2379"]
            flags += ["--shared_memory_size_mb", "768"]
            if host is hosts[0]:
                flags += ["--start_metastore_service", "true"]
            home = str(folder / f"host{host.number}")
            words = ["start", "-d", home, "-w", "--worker_address"]
            self._dscli(host, words, flags)
        self._workers = [self._child_of(host) for host in hosts]
        for host in hosts:
            words = [*host.within, str(OURS / "python"), "-c", CLIENT, host.address]
            self._clients.append(
                subprocess.Popen(
                    ["env", f"{ENVIRONMENT}={self._key}", *words],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert self._answer(self._clients[-1]) == "ready"

    def get(self, serial: int, size: int, count: int) -> tuple[float, float]:
        """Seconds of one, and CPU seconds of both workers."""
        getter, setter = self._clients
        words = f"k{serial}.{size} {size} {count}"
        self._ask(setter, f"set {words}")
        busy = self._busy_seconds()
        seconds = self._ask(getter, f"get {words}")
        busy = self._busy_seconds() - busy
        self._ask(setter, f"delete {words}")
        return seconds, busy / count

    def stop(self) -> None:
        for client in self._clients:
            client.communicate()
        for host in reversed(self._hosts):
            self._dscli(host, ["stop", "--worker_address"])

    def _dscli(self, host: Host, before: list[str], after: Sequence[str] = ()) -> str:
        """With the host's worker between those words."""
        command = [*host.within, str(OURS / "dscli"), *before]
        command += [f"{host.address}:31501", *after]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def _child_of(self, host: Host) -> int:
        status = self._dscli(host, ["status", "--json", "--worker_address"])
        return int(json.loads(status)["child_pid"])

    def _busy_seconds(self) -> float:
        return sum(map(busy_seconds_of, self._workers))

    def _ask(self, client: subprocess.Popen[str], line: str) -> float:
        assert client.stdin is not None
        client.stdin.write(line + "\n")
        client.stdin.flush()
        return float(self._answer(client))

    def _answer(self, client: subprocess.Popen[str]) -> str:
        assert client.stdout is not None
        return client.stdout.readline().strip()


def busy_seconds_of(pid: int) -> float:
    """By the scheduler, in nanoseconds: ticks are too coarse."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return (
        sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
        / 1e9
    )


def measure(pairs: dict[str, Pair], rounds: int) -> None:
    print(
        "| bytes | way | p50 | least | GB/s (p50) | CPU of both workers |\n"
        "|---|---|---|---|---|---|"
    )
    for size, count in CASES:
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in pairs}
        for serial in range(rounds + 1):
            for way, pair in pairs.items():
                times[way].append(pair.get(serial, size, count))
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
    pairs: dict[str, Pair] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for way, hosts in (
                ("plain", network.hosts[:2]),
                ("encrypted", network.hosts[2:]),
            ):
                pairs[way] = Pair(hosts, Path(folder), way == "encrypted")
            measure(pairs, options.rounds)
        finally:
            for pair in pairs.values():
                pair.stop()
            network.end()


if __name__ == "__main__":
    main()
