"""The nodes of a cluster as a file names them, and commands on them, over ssh."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from yr.datasystem.cli._config import check_path
from yr.datasystem.cli._output import CommandError, complain

_CONNECT_TIMEOUT_S = 10
_PARALLEL_MAX = 64
_ERROR_BYTES = 2000
_NAME = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]*")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A file of `dscli up -f`, checked. `user`, `key` and `ssh_config` None: as ssh
    chooses; `head` None: no worker has the metastore."""

    nodes: tuple[str, ...]
    port: int
    worker_config: Path
    head: str | None = None
    user: str | None = None
    key: Path | None = None
    ssh_config: Path | None = None
    dscli: str = "dscli"

    def address(self, node: str) -> str:
        """Of its worker."""
        return address_of(node, self.port)


def address_of(node: str, port: int) -> str:
    return f"[{node}]:{port}" if ":" in node else f"{node}:{port}"


class NodeError(Exception):
    """A command failed on a node; the text says how."""


def read_cluster(file: str, head: str | None = None) -> Cluster:
    """CommandError with the file and what is wrong in it. `head` goes before what the
    file says of it."""
    path = Path(file)
    check_path(path)
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CommandError(f"{path} must hold a JSON object")
    return _checked(content, path, head)


def _checked(content: dict[str, Any], path: Path, head: str | None) -> Cluster:
    nodes = content.get("worker_nodes")
    port = content.get("worker_port", 31501)
    ssh = content.get("ssh_auth", {})
    if not isinstance(nodes, list) or not nodes or not isinstance(ssh, dict):
        raise CommandError(
            f"{path}: worker_nodes must be a list of hosts, and ssh_auth an object"
        )
    for node in nodes:
        _check_name("worker_nodes", node, path)
    if len(set(nodes)) < len(nodes):
        raise CommandError(f"{path}: worker_nodes names a host twice")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise CommandError(f"{path}: worker_port must be from 1 to 65535, not {port!r}")
    head = head or content.get("metastore_head_node") or None
    if head is not None and head not in nodes:
        raise CommandError(f"{path}: metastore_head_node {head} is no worker node")
    user = ssh.get("ssh_user_name") or None
    if user is not None:
        _check_name("ssh_user_name", user, path)
    return Cluster(
        nodes=tuple(nodes),
        port=port,
        worker_config=_beside(path, content.get("worker_config_path"))
        or path.absolute().parent / "worker_config.json",
        head=head,
        user=user,
        key=_beside(path, ssh.get("ssh_private_key")),
        ssh_config=_beside(path, ssh.get("ssh_config")),
        dscli=str(content.get("dscli") or "dscli"),
    )


def _check_name(what: str, name: object, path: Path) -> None:
    """What ssh could take for an option, or a shell for something else, is refused."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CommandError(f"{path}: {what} has {name!r}, which is no name or address")


def _beside(path: Path, name: object) -> Path | None:
    """A path that is not absolute is relative to the folder of the file."""
    if not name:
        return None
    if not isinstance(name, str):
        raise CommandError(f"{path}: {name!r} is no path")
    return path.absolute().parent / Path(name).expanduser()


def run_on(
    cluster: Cluster,
    node: str,
    words: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    stdout: IO[bytes] | int = subprocess.PIPE,
) -> bytes:
    """Run a command in a login shell there; what it printed. NodeError when it cannot
    be reached, or the command fails or takes too long."""
    command = ["ssh", "-o", "BatchMode=yes"]
    command += ["-o", f"ConnectTimeout={_CONNECT_TIMEOUT_S}"]
    command += ["-o", "StrictHostKeyChecking=accept-new"]
    if cluster.ssh_config is not None:
        command += ["-F", str(cluster.ssh_config)]
    if cluster.key is not None:
        command += ["-i", str(cluster.key)]
    if cluster.user is not None:
        command += ["-l", cluster.user]
    command += ["--", node, f"bash -l -c {shlex.quote(shlex.join(words))}"]
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise NodeError("there is no ssh here; install openssh-client") from None
    except subprocess.TimeoutExpired:
        raise NodeError(f"no answer within {timeout_s:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout or b"")[-_ERROR_BYTES:]
        text = said.decode("utf-8", "replace").strip()
        raise NodeError(text or f"exit code {done.returncode}")
    return done.stdout or b""


def on_each(nodes: Sequence[str], action: Callable[[str], None]) -> bool:
    """Do it for all nodes side by side; False when it failed for some, each of which is
    complained about."""
    all_well = True
    with ThreadPoolExecutor(min(len(nodes), _PARALLEL_MAX) or 1) as pool:
        runs = {pool.submit(action, node): node for node in nodes}
        for run in as_completed(runs):
            try:
                run.result()
            except (NodeError, OSError) as error:
                complain(f"Node {runs[run]} execute failed: {error}")
                all_well = False
    return all_well
