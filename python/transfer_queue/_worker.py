"""Starting and stopping this node's datasystem worker through dscli."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer_queue._process import OwnerText
from transfer_queue.utils.yuanrong_utils import (
    check_port_connectivity,
    find_reachable_host,
    join_address,
    split_address,
    worker_port_of,
)

_log = logging.getLogger("transfer_queue.worker")

_START_TIMEOUT_S = 90
_STOP_TIMEOUT_S = 60
_STATUS_TIMEOUT_S = 15
_OUTPUT_TAIL_LINES = 30
_ARENA_MB_DEFAULT = 8192
_ARENA_MB_LEAST = 64


@dataclass(frozen=True, slots=True)
class _Done:
    """How a command ended; `output` has both streams."""

    returncode: int
    output: str


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """Everything about one worker to be started. `home` gets its files and its log."""

    home: Path
    address: str
    metastore_address: str
    is_head: bool
    owner: OwnerText
    arguments: Sequence[str]
    environment: Mapping[str, str]
    auth_key_file: Path | None = None

    def command(self, dscli: str) -> list[str]:
        command = [dscli, "start", "-d", str(self.home)]
        command += ["-w", "--worker_address", self.address]
        command += ["--metastore_address", self.metastore_address]
        if self.is_head:
            command += ["--start_metastore_service", "true"]
        command += ["--arena_per_tenant", "1"]
        command += ["--enable_worker_worker_batch_get", "true"]
        if self.auth_key_file is not None:
            command += ["--auth_key_file", str(self.auth_key_file)]
        return [*command, *self.arguments, "--owner", str(self.owner)]


def find_dscli() -> str:
    """dscli of this environment: beside the interpreter, else on PATH."""
    beside = Path(sys.executable).parent / "dscli"
    if os.access(beside, os.X_OK):
        return str(beside)
    on_path = shutil.which("dscli")
    if on_path is not None:
        return on_path
    raise RuntimeError(
        f"dscli executable not found beside {sys.executable} and not found in PATH. "
        'Please run `pip install "TransferQueue[yuanrong]"`.'
    )


def build_arguments(section: Mapping[str, Any]) -> list[str]:
    """The words that a Yuanrong section adds to `dscli start`; refuses what lacks."""
    arguments = str(section.get("worker_args") or "").split()
    if any(word.partition("=")[0] == "--encrypt_connections" for word in arguments):
        raise ValueError(
            "worker_args has --encrypt_connections, which does not reach the queue's "
            "controller; set backend.Yuanrong.encrypt_connections instead"
        )
    if section.get("enable_rdma"):
        raise RuntimeError(
            "Failed to start datasystem worker: enable_rdma is true, but RDMA "
            "transport (UCX) is not built yet in this version. Set enable_rdma: false; "
            "transfer within a node does not need it."
        )
    _device_ids(arguments)
    if encrypts_connections(section):
        arguments = ["--encrypt_connections", "true", *arguments]
    return arguments


def encrypts_connections(section: Mapping[str, Any]) -> bool:
    """What a Yuanrong section says; ValueError when that is neither yes nor no."""
    value = section.get("encrypt_connections", False)
    if not isinstance(value, bool):
        raise ValueError(
            f"backend.Yuanrong.encrypt_connections must be true or false, not {value!r}"
        )
    return value


def build_environment(
    section: Mapping[str, Any], parent: Mapping[str, str]
) -> dict[str, str]:
    """The worker's environment: ucx_env_vars, then the parent's, then defaults."""
    environment = dict(parent)
    device_ids = _device_ids(str(section.get("worker_args") or "").split())
    if device_ids is not None:
        environment["ASCEND_RT_VISIBLE_DEVICES"] = device_ids
        environment.setdefault("DS_D2H_MEMCPY_POLICY", "direct")
        environment.setdefault("DS_H2D_MEMCPY_POLICY", "direct")
    if section.get("enable_rdma"):
        environment.setdefault("UCX_TLS", "rc_x")
    for name, value in (section.get("ucx_env_vars") or {}).items():
        environment[str(name)] = str(value)
    return environment


def with_arena_size(worker_args: str) -> str:
    """worker_args with a size of the arena that this machine can bear."""
    words = worker_args.split()
    while "--shared_memory_size_mb" in words:
        at = words.index("--shared_memory_size_mb")
        del words[at : at + 2]
    available_mb = available_memory_bytes() >> 20
    size_mb = max(_ARENA_MB_LEAST, min(_ARENA_MB_DEFAULT, available_mb // 2))
    _log.info(
        "shared memory: %d MB (half of the %d MB available, at most %d); "
        "set --shared_memory_size_mb in worker_args to choose",
        size_mb,
        available_mb,
        _ARENA_MB_DEFAULT,
    )
    return " ".join(["--shared_memory_size_mb", str(size_mb), *words])


def available_memory_bytes() -> int:
    """What this process could still use: the machine's memory and its cgroup's."""
    import psutil  # type: ignore[import-untyped,unused-ignore]

    available = int(psutil.virtual_memory().available)
    for limit_file, usage_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        limit, usage = _read_number(limit_file), _read_number(usage_file)
        if limit is not None and usage is not None:
            available = min(available, max(0, limit - usage))
    return available


def say_how_npu_tensors_travel(section: Mapping[str, Any]) -> None:
    if section.get("enable_yr_npu_transport") and not _npu_is_present():
        _log.info(
            "enable_yr_npu_transport is true, but there is no NPU here (torch_npu is "
            "not installed): tensors travel through host memory"
        )


def start_worker(plan: WorkerPlan) -> None:
    """Start it and wait until it serves; RuntimeError says why it does not."""
    dscli = find_dscli()
    clear_the_way(plan.address, plan.owner)
    try:
        done = _run(plan.command(dscli), _START_TIMEOUT_S, plan.environment)
    except subprocess.TimeoutExpired as error:
        stop_worker_of(plan.address, plan.owner)
        raise RuntimeError(
            f"Failed to start datasystem worker at {plan.address}: dscli did not end "
            f"within {_START_TIMEOUT_S} s."
        ) from error
    except BaseException:  # Ctrl-C while dscli waits for the worker.
        stop_worker_of(plan.address, plan.owner)
        raise
    if done.returncode != 0 or "[  OK  ]" not in done.output:
        raise RuntimeError(
            f"Failed to start datasystem worker at {plan.address} (dscli ended with "
            f"code {done.returncode}).\n{_tail(done.output)}"
        )
    _log.info("datasystem worker serves %s", plan.address)


def stop_worker_of(address: str, owner: OwnerText) -> None:
    """Stop the worker at `address` if it says that `owner` started it."""
    if is_worker_of(address, owner):
        stop_worker(address)


def is_worker_of(address: str, owner: OwnerText) -> bool:
    """Whether there is a worker which says that `owner` started it."""
    host, port = split_address(address)
    if not check_port_connectivity(host, port, timeout=1.0):
        return False
    status = read_status(address)
    return status is not None and str(status.get("owner") or "") == str(owner)


def stop_worker(address: str) -> bool:
    """Stop it gracefully. Never raises; what went wrong is logged.

    Nothing is moved to other nodes: their workers are about to end as well."""
    try:
        command = [find_dscli(), "stop", "--discard", "--worker_address", address]
        done = _run(command, _STOP_TIMEOUT_S, os.environ)
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        _log.warning("the datasystem worker at %s was not stopped: %s", address, error)
        return False
    if done.returncode != 0:
        text = _tail(done.output)
        _log.warning("the datasystem worker at %s was not stopped: %s", address, text)
    return done.returncode == 0


def clear_the_way(address: str, own: OwnerText) -> None:
    """Make sure that no worker serves `address`: residue goes, also `own`'s, others'
    are kept while they live."""
    status = read_status(address)
    if status is None:
        return  # Should something else listen there, the start fails and names it.
    owner = OwnerText.parse(str(status.get("owner") or ""))
    worker = f"datasystem worker (PID {status.get('pid', 'unknown')})"
    if owner is None:
        raise RuntimeError(
            f"Failed to start datasystem worker at {address}: a {worker} that was "
            "started by hand serves it already. Set auto_init: False to use it, stop "
            f"it with `dscli stop --worker_address {address}`, or set another "
            "worker_port."
        )
    if owner.process.alive and owner.process != own.process:
        raise RuntimeError(
            f"Failed to start datasystem worker at {address}: a {worker} serves it "
            f"already for process PID {owner.process.pid}, which is alive (owner: "
            f"{owner}). Call tq.close() there, or set another worker_port and "
            "metastore_port."
        )
    _log.warning(
        "replacing a residual %s at %s: its owner, PID %d, ended without close()",
        worker,
        address,
        owner.process.pid,
    )
    if not stop_worker(address):
        raise RuntimeError(
            f"Failed to start datasystem worker at {address}: a residual {worker} "
            "there could not be stopped. Stop it with `dscli stop --worker_address "
            f"{address}` or `pkill -9 -f datasystem_worker`."
        )


def read_status(address: str) -> dict[str, Any] | None:
    """What `dscli status` says of the worker there; None when it is no worker."""
    command = [find_dscli(), "status", "--json", "--worker_address", address]
    try:
        done = _run(command, _STATUS_TIMEOUT_S, os.environ)
        status: dict[str, Any] = json.loads(done.output)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        _log.debug("no status of %s: %s", address, error)
        return None
    return status if done.returncode == 0 else None


def find_socket(section: Mapping[str, Any], host: str | None = None) -> str | None:
    """The Unix socket of this node's worker, which its controller uses.

    None where the worker does not say: blocks are then deleted by the clients.
    """
    port = worker_port_of(section)
    host = host or find_reachable_host(port)
    if host is None:
        return None
    status = read_status(join_address(host, port)) or {}
    socket = status.get("unix_socket")
    return str(socket) if socket else None


def plan_for(
    section: Mapping[str, Any],
    host: str,
    head_host: str,
    owner: OwnerText,
    home: Path,
    auth_key_file: Path | None = None,
) -> WorkerPlan:
    """The plan of one node's worker from its Yuanrong section, which is checked."""
    port = worker_port_of(section)
    metastore_port = int(section["metastore_port"])
    return WorkerPlan(
        home=home,
        address=join_address(host, port),
        metastore_address=join_address(head_host, metastore_port),
        is_head=host == head_host,
        owner=owner,
        arguments=build_arguments(section),
        environment=build_environment(section, os.environ),
        auth_key_file=auth_key_file,
    )


def _device_ids(arguments: Sequence[str]) -> str | None:
    if "--remote_h2d_device_ids" not in arguments:
        return None
    at = arguments.index("--remote_h2d_device_ids")
    value = arguments[at + 1] if at + 1 < len(arguments) else ""
    if not all(part.isdigit() for part in value.split(",")):
        raise ValueError(
            "--remote_h2d_device_ids in worker_args takes device numbers separated by "
            f"commas, such as 0,1,2,3; got '{value}'"
        )
    return value


def _npu_is_present() -> bool:
    return importlib.util.find_spec("torch_npu") is not None


def _read_number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _run(
    command: Sequence[str], timeout_s: float, environment: Mapping[str, str]
) -> _Done:
    """Output goes through a file: a pipe would stay open in the daemon that starts."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
        )
        try:
            _wait_for_end(process, timeout_s)
        except BaseException:
            process.kill()
            process.wait()
            raise
        output.seek(0)
        text = output.read().decode("utf-8", errors="replace")
        return _Done(process.returncode, text)


def _wait_for_end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """As process.wait(), which looks every 50 ms only."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:  # Not here, or no more descriptors.
        process.wait(timeout_s)
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        ended = poll.poll(timeout_s * 1000)
    finally:
        os.close(descriptor)
    process.wait(None if ended else 0)


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_OUTPUT_TAIL_LINES:])
