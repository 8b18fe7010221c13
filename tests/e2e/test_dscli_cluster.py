"""`dscli up`, `down`, `runscript` and `collect_log` on three hosts, each with sshd."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import METASTORE_PORT, NEEDS_HOSTS, WORKER_PORT, await_that
from e2e import Done, Site
from hosts import Host, Network

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

pytestmark = [
    NEEDS_HOSTS,
    pytest.mark.skipif(not Path(SSHD).exists(), reason="there is no sshd here"),
]


class Nodes:
    """Hosts that are reached by ssh with a key of the test. Owner: its fixture."""

    def __init__(self, site: Site, hosts: list[Host]) -> None:
        self.site = site
        self.hosts = hosts
        self.key = site.folder / "id"
        self.file = site.folder / "cluster_config.json"
        self._make_key(self.key)
        self._make_key(site.folder / "host_key")
        Path("/run/sshd").mkdir(exist_ok=True)
        self.daemons = {host.number: self._start_sshd(host) for host in hosts}
        self.write_file()

    def write_file(self) -> None:
        known = self.site.folder / "known_hosts"
        (self.site.folder / "ssh_config").write_text(f"UserKnownHostsFile {known}\n")
        flags = {"shared_memory_size_mb": "64", "node_timeout_s": "2"}
        (self.site.folder / "worker_config.json").write_text(json.dumps(flags))
        content = {
            "ssh_auth": {
                "ssh_private_key": "id",
                "ssh_user_name": "root",
                "ssh_config": "ssh_config",
            },
            "worker_nodes": [host.address for host in self.hosts],
            "worker_port": WORKER_PORT,
            "metastore_head_node": self.hosts[0].address,
            "dscli": str(Path(sys.executable).parent / "dscli"),
        }
        self.file.write_text(json.dumps(content))

    def dscli(self, *words: str) -> Done:
        program = [*self.hosts[0].within, sys.executable, "-m", "yr.datasystem.cli"]
        return self.site.command(*program, *words)

    def members(self) -> list[str]:
        address = f"{self.hosts[0].address}:{METASTORE_PORT}"
        done = self.dscli("query", "cluster", "--metastore_address", address)
        nodes = json.loads(done.out).get("nodes", [])
        return sorted(node["worker_address"] for node in nodes)

    def stop_sshd(self, host: Host) -> None:
        daemon = self.daemons[host.number]
        daemon.terminate()
        daemon.wait(timeout=10)

    def end(self) -> None:
        for host in self.hosts:
            address = f"{host.address}:{WORKER_PORT}"
            words = (sys.executable, "-m", "yr.datasystem.cli", "stop", "-w", address)
            self.site.command(*host.within, *words)
            self.stop_sshd(host)

    def _make_key(self, path: Path) -> None:
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(words, check=True, timeout=30)

    def _start_sshd(self, host: Host) -> subprocess.Popen[bytes]:
        folder = self.site.folder
        (folder / f"run{host.number}").mkdir(mode=0o700)
        lines = [
            f"ListenAddress {host.address}:22",
            f"HostKey {folder}/host_key",
            f"AuthorizedKeysFile {folder}/id.pub",
            f"SetEnv XDG_RUNTIME_DIR={folder}/run{host.number}",
            *("PidFile none", "StrictModes no", "UsePAM no", "PermitRootLogin yes"),
        ]
        file = folder / f"sshd{host.number}"
        file.write_text("\n".join(lines) + "\n")
        command = [*host.within, SSHD, "-D", "-e", "-f", str(file)]
        daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        probe = ["ssh-keyscan", "-T", "1", host.address]
        await_that(
            lambda: (
                subprocess.run(
                    [*host.within, *probe], capture_output=True, check=False
                ).stdout
                != b""
            )
        )
        return daemon


@pytest.fixture
def nodes(network: Network, site: Site) -> Iterator[Nodes]:
    for host in network.hosts:
        host.heal()
    nodes = Nodes(site, network.hosts)
    yield nodes
    nodes.end()


def test_a_cluster_comes_up_is_looked_at_and_goes_down(nodes: Nodes) -> None:
    file = str(nodes.file)
    addresses = [f"{host.address}:{WORKER_PORT}" for host in nodes.hosts]
    done = nodes.dscli("up", "-f", file, "-t", "20")
    assert done.code == 0, done.out + done.err
    for address in addresses:
        assert f"[INFO] Start worker service @ {address} success." in done.out
    await_that(lambda: nodes.members() == addresses)

    script = nodes.site.folder / "script.sh"
    script.write_text('echo "from $SSH_CONNECTION"\n')
    done = nodes.dscli("runscript", "-f", file, str(script))
    assert done.code == 0, done.err
    for host in nodes.hosts:
        assert f"[INFO] Script executed successfully on {host.address}." in done.out
        assert f"{host.address}: from {nodes.hosts[0].address}" in done.out

    output = nodes.site.folder / "logs"
    remote = nodes.site.folder
    done = nodes.dscli(
        *("collect_log", "-f", file, "-d", str(remote / "run1"), "-o", str(output))
    )
    assert done.code == 0, done.err
    for host in nodes.hosts:
        assert f"[INFO] Collect logs from {host.address} successfully." in done.out
        logs = list((output / host.address).rglob("datasystem_worker.log"))
        assert len(logs) == 1

    done = nodes.dscli("down", "-f", file)
    assert done.code == 0, done.out + done.err
    for address in addresses:
        assert f"[INFO] Stop worker service @ {address} success." in done.out
    assert nodes.members() == []


def test_nodes_that_fail_are_named_and_the_others_are_done(nodes: Nodes) -> None:
    gone = nodes.hosts[2]
    nodes.stop_sshd(gone)
    done = nodes.dscli("up", "-f", str(nodes.file), "-t", "20")
    assert done.code == 1
    assert f"[ERROR] Node {gone.address} execute failed: " in done.err
    assert "Up cluster failed: Some nodes failed during processing" in done.err
    assert done.out.count("success.") == 2
    await_that(lambda: len(nodes.members()) == 2)
    done = nodes.dscli("down", "-f", str(nodes.file))
    assert done.code == 1
    assert done.out.count("success.") == 2
    assert "Down cluster failed: Some nodes failed during processing" in done.err


def test_a_head_that_does_not_start_starts_nobody(nodes: Nodes) -> None:
    (nodes.site.folder / "worker_config.json").write_text('{"nonsense": "1"}')
    done = nodes.dscli("up", "-f", str(nodes.file), "-t", "20")
    assert done.code == 1
    assert f"Node {nodes.hosts[0].address} execute failed: " in done.err
    assert "nonsense" in done.err
    assert nodes.hosts[1].address not in done.err + done.out
