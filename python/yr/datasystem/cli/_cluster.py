"""`dscli up`, `down`, `runscript` and `collect_log`: the same on every node, over ssh.

Nothing is left on the nodes but what the worker itself keeps there: configuration and
scripts travel by standard input, logs by standard output.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

from yr.datasystem.cli._config import check_path, read_config
from yr.datasystem.cli._nodes import (
    Cluster,
    NodeError,
    address_of,
    on_each,
    read_cluster,
    run_on,
)
from yr.datasystem.cli._output import CommandError, say

_METASTORE_PORT = 2379
_REACH_S = 30  # Beyond what a command itself may take.
_STOP_S = 300
_SCRIPT_S = 3600


def up(file: str, timeout_s: int, home: str | None, head: str | None) -> int:
    """Start a worker on every node; the one with the metastore first."""
    cluster = read_cluster(file, head)
    flags = read_config(cluster.worker_config)
    has_backend = flags.get("metastore_address") or flags.get("etcd_address")
    if cluster.head is not None and not has_backend:
        flags["metastore_address"] = address_of(cluster.head, _METASTORE_PORT)
    words = [cluster.dscli, "start", "-t", str(timeout_s)]
    words += ["-d", home] if home else []
    words += ["-f", "-"]

    def start(node: str) -> None:
        own = {**flags, "worker_address": cluster.address(node)}
        if cluster.head is not None and not flags.get("etcd_address"):
            own["start_metastore_service"] = str(node == cluster.head).lower()
        config = json.dumps({name: {"value": value} for name, value in own.items()})
        run_on(
            *(cluster, node, words),
            timeout_s=timeout_s + _REACH_S,
            stdin=config.encode(),
        )
        say(f"Start worker service @ {cluster.address(node)} success.")

    first, others = _head_first(cluster)
    if not (on_each(first, start) and on_each(others, start)):
        raise CommandError("Up cluster failed: Some nodes failed during processing")
    return 0


def down(file: str) -> int:
    """Stop the worker of every node; the one with the metastore last.

    None moves anything, as all the others go as well."""
    cluster = read_cluster(file)

    def stop(node: str) -> None:
        words = [cluster.dscli, "stop", "--discard", "-w", cluster.address(node)]
        run_on(cluster, node, words, timeout_s=_STOP_S)
        say(f"Stop worker service @ {cluster.address(node)} success.")

    first, others = _head_first(cluster)
    others_well = on_each(others, stop)
    if not (on_each(first, stop) and others_well):
        raise CommandError("Down cluster failed: Some nodes failed during processing")
    return 0


def runscript(file: str, script: str) -> int:
    """Run a script of bash on every node, and print what it says there."""
    cluster = read_cluster(file)
    try:
        content = Path(script).read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {script}: {error.strerror}") from error

    def run(node: str) -> None:
        words = ["bash", "-l", "-s"]
        output = run_on(cluster, node, words, timeout_s=_SCRIPT_S, stdin=content)
        for line in output.decode("utf-8", "replace").splitlines():
            say(f"{node}: {line}")
        say(f"Script executed successfully on {node}.")

    if not on_each(cluster.nodes, run):
        raise CommandError("Run script failed: Some nodes failed during processing")
    return 0


def collect_log(file: str, remote: str, output: str | None) -> int:
    """Bring a folder of every node here, each into a folder of its node's name."""
    cluster = read_cluster(file)
    now = time.strftime("%Y%m%d%H%M%S", time.gmtime())
    target = Path(output or f"log_{now}").absolute()
    check_path(target)

    def collect(node: str) -> None:
        folder = target / node
        folder.mkdir(parents=True, exist_ok=True)
        words = ["tar", "-C", remote, "-czf", "-", "."]
        with tempfile.TemporaryFile(dir=target) as archive:
            run_on(cluster, node, words, timeout_s=_SCRIPT_S, stdout=archive)
            archive.seek(0)
            _unpack(archive.fileno(), folder)
        say(f"Collect logs from {node} successfully.")

    if not on_each(cluster.nodes, collect):
        raise CommandError("Collect log failed: Some nodes failed during processing")
    say(f"Logs are in {target}")
    return 0


def _head_first(cluster: Cluster) -> tuple[list[str], list[str]]:
    first = [node for node in cluster.nodes if node == cluster.head]
    return first, [node for node in cluster.nodes if node != cluster.head]


def _unpack(archive: int, folder: Path) -> None:
    command = ["tar", "-C", str(folder), "--no-same-owner", "-xzf", "-"]
    done = subprocess.run(command, stdin=archive, capture_output=True, check=False)
    if done.returncode != 0:
        raise NodeError(done.stderr.decode("utf-8", "replace").strip())
