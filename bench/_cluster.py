"""Workers on network namespaces of this machine, each with a client."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from _sides import OURS, ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from hosts import Host, Network, why_impossible

__all__ = ["Cluster", "Host", "Network", "why_impossible"]

ENVIRONMENT = "DATASYSTEM_AUTH_KEY_FILE"

# One node's client: "set|get NAME SIZE COUNT" a line, seconds of one are the answer.
CLIENT = """
import sys, time
from yr.datasystem import KVClient
client = KVClient(sys.argv[1], 31501, req_timeout_ms=60_000)
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


class Cluster:
    """A worker and a client on each host; the first is the head. Use `stop`."""

    def __init__(self, hosts: list[Host], folder: Path, *flags: str) -> None:
        self._hosts, self._folder = hosts, folder
        self._key = folder / f"key{hosts[0].number}"
        self._key.write_text(secrets.token_hex(32))
        self._key.chmod(0o600)
        self._clients: list[subprocess.Popen[str]] = []
        for host in hosts:
            own = [*flags, "--auth_key_file", str(self._key)]
            own += ["--metastore_address", f"{hosts[0].address}:2379"]
            if host is hosts[0]:
                own += ["--start_metastore_service", "true"]
            home = str(folder / f"host{host.number}")
            words = ["start", "-d", home, "-w", "--worker_address"]
            self._dscli(host, words, own)
        self._workers = [
            int(str(self.status(i)["child_pid"])) for i in range(len(hosts))
        ]
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
            assert self._line_of(len(self._clients) - 1) == "ready"

    def status(self, i: int) -> dict[str, object]:
        """Of the worker on that host."""
        words = ["status", "--json", "--worker_address"]
        status: dict[str, object] = json.loads(self._dscli(self._hosts[i], words))
        return status

    def tell(self, i: int, line: str) -> None:
        """What the client on that host is to do; `hear` says how long it took."""
        stdin = self._clients[i].stdin
        assert stdin is not None
        stdin.write(line + "\n")
        stdin.flush()

    def hear(self, i: int) -> float:
        """Seconds of one."""
        return float(self._line_of(i))

    def ask(self, i: int, line: str) -> float:
        self.tell(i, line)
        return self.hear(i)

    def busy_seconds(self) -> float:
        """CPU time of all workers."""
        return sum(map(busy_seconds_of, self._workers))

    def stop(self) -> None:
        for client in self._clients:
            client.communicate()
        for host in reversed(self._hosts):
            self._dscli(host, ["stop", "--discard", "--worker_address"])

    def _dscli(self, host: Host, before: list[str], after: Sequence[str] = ()) -> str:
        """With the host's worker between those words."""
        command = [*host.within, str(OURS / "dscli"), *before]
        command += [f"{host.address}:31501", *after]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def _line_of(self, i: int) -> str:
        stdout = self._clients[i].stdout
        assert stdout is not None
        return stdout.readline().strip()


def busy_seconds_of(pid: int) -> float:
    """By the scheduler, in nanoseconds: ticks are too coarse."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return (
        sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
        / 1e9
    )
