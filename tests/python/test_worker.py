"""Starting a worker, with a dscli that only writes down how it was called."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from transfer_queue import _worker
from transfer_queue._process import OwnerText, ProcessId

SECTION: dict[str, Any] = {
    "worker_port": 31501,
    "metastore_port": 2379,
    "worker_args": "--shared_memory_size_mb 64",
}
DEAD = OwnerText(ProcessId(4_000_000, 12345), "default")
OWN = OwnerText(ProcessId.own(), "default")
HOME = Path("/home/of/it")
ADDRESS = "127.0.0.1:31501"


class Dscli:
    """Answers by sub-command; `calls` has the arguments and environment of each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.answers: dict[str, tuple[int, str]] = {
            "start": (0, "[INFO] [  OK  ] Start worker service @ ... success"),
            "stop": (0, "[  OK  ] Stop worker service @ ... normally"),
            "status": (1, "no worker there"),
        }

    @property
    def calls(self) -> list[dict[str, Any]]:
        lines = (self._folder / "calls").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def commands(self) -> list[str]:
        return [call["arguments"][0] for call in self.calls]

    def install(self) -> None:
        script = self._folder / "dscli"
        script.write_text(
            f"#!{sys.executable}\n"
            "import json, os, sys\n"
            f"answers = {self.answers!r}\n"
            f"with open({str(self._folder / 'calls')!r}, 'a') as calls:\n"
            "    call = {'arguments': sys.argv[1:], 'environment': dict(os.environ)}\n"
            "    calls.write(json.dumps(call) + '\\n')\n"
            "code, text = answers[sys.argv[1]]\n"
            "print(text)\n"
            "sys.exit(code)\n"
        )
        script.chmod(0o755)


@pytest.fixture
def dscli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dscli:
    fake = Dscli(tmp_path)
    fake.install()
    monkeypatch.setattr(_worker, "find_dscli", lambda: str(tmp_path / "dscli"))
    return fake


def plan(**section: Any) -> _worker.WorkerPlan:
    return _worker.plan_for({**SECTION, **section}, "127.0.0.1", "127.0.0.1", OWN, HOME)


def test_the_command_line_is_that_of_the_guide(dscli: Dscli) -> None:
    _worker.start_worker(plan())
    assert dscli.calls[-1]["arguments"] == [
        *("start", "-d", "/home/of/it", "-w", "--worker_address", ADDRESS),
        *("--metastore_address", "127.0.0.1:2379", "--start_metastore_service", "true"),
        *("--arena_per_tenant", "1", "--enable_worker_worker_batch_get", "true"),
        *("--shared_memory_size_mb", "64", "--owner", str(OWN)),
    ]


def test_only_the_head_starts_a_metastore() -> None:
    other = _worker.plan_for(SECTION, "10.0.0.2", "10.0.0.1", OWN, HOME)
    assert other.metastore_address == "10.0.0.1:2379"
    assert "--start_metastore_service" not in other.command("dscli")


def test_a_failed_start_has_what_dscli_says(dscli: Dscli) -> None:
    dscli.answers["start"] = (1, "[  FAILED  ] port 31501 is taken by PID 77")
    dscli.install()
    with pytest.raises(RuntimeError) as caught:
        _worker.start_worker(plan())
    assert str(caught.value).startswith("Failed to start datasystem worker")
    assert "port 31501 is taken by PID 77" in str(caught.value)


def test_success_without_the_marker_is_no_success(dscli: Dscli) -> None:
    dscli.answers["start"] = (0, "nothing to say")
    dscli.install()
    with pytest.raises(RuntimeError, match="Failed to start datasystem worker"):
        _worker.start_worker(plan())


def test_a_dead_owners_worker_is_replaced_with_a_warning(
    dscli: Dscli, caplog: pytest.LogCaptureFixture
) -> None:
    status = json.dumps({"owner": str(DEAD), "pid": 77})
    dscli.answers["status"] = (0, status)
    dscli.install()
    _worker.start_worker(plan())
    assert dscli.commands == ["status", "stop", "start"]
    assert "residual datasystem worker (PID 77)" in caplog.text


def test_a_live_owners_worker_is_never_touched(dscli: Dscli) -> None:
    living = OwnerText(ProcessId.of(os.getppid()), "other")
    dscli.answers["status"] = (0, json.dumps({"owner": str(living), "pid": 77}))
    dscli.install()
    with pytest.raises(RuntimeError) as caught:
        _worker.start_worker(plan())
    assert dscli.commands == ["status"]
    for part in ("PID 77", f"PID {os.getppid()}", "session=other", ADDRESS):
        assert part in str(caught.value)


def test_a_worker_started_by_hand_is_never_touched(dscli: Dscli) -> None:
    dscli.answers["status"] = (0, json.dumps({"owner": "user root", "pid": 77}))
    dscli.install()
    with pytest.raises(RuntimeError, match=r"by hand.*auto_init: False"):
        _worker.start_worker(plan())
    assert dscli.commands == ["status"]


def test_an_own_half_started_worker_is_replaced(dscli: Dscli) -> None:
    dscli.answers["status"] = (0, json.dumps({"owner": str(OWN), "pid": 77}))
    dscli.install()
    _worker.start_worker(plan())
    assert dscli.commands == ["status", "stop", "start"]


def test_stopping_never_raises(dscli: Dscli, caplog: pytest.LogCaptureFixture) -> None:
    dscli.answers["stop"] = (1, "Stop failed: No matching process")
    dscli.install()
    assert _worker.stop_worker(ADDRESS) is False
    assert "No matching process" in caplog.text


def test_a_missing_dscli_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"not found in PATH.*TransferQueue\[yuanr"):
        _worker.find_dscli()


def test_dscli_beside_the_interpreter_is_preferred(
    dscli: Dscli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert _worker.find_dscli() == str(tmp_path / "dscli")


def test_encryption_reaches_dscli() -> None:
    flag = ["--encrypt_connections", "true"]
    assert plan(encrypt_connections=True).arguments[:2] == flag
    assert "--encrypt_connections" not in plan().arguments


def test_rdma_is_refused_and_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match=r"^Failed to start datasystem worker.*UCX"):
        plan(enable_rdma=True)


# ucx_env_vars > parent's environment > rc_x, the default with RDMA.
@pytest.mark.parametrize(
    ("own", "parent", "rdma", "expected"),
    [
        ({"UCX_TLS": "rc"}, {"UCX_TLS": "ud"}, True, "rc"),
        ({}, {"UCX_TLS": "ud"}, True, "ud"),
        ({}, {}, True, "rc_x"),
        ({}, {}, False, None),
        ({"UCX_TLS": "rc"}, {}, False, "rc"),
    ],
)
def test_precedence_of_ucx_variables(
    own: dict[str, str], parent: dict[str, str], rdma: bool, expected: str | None
) -> None:
    section = {**SECTION, "ucx_env_vars": own, "enable_rdma": rdma}
    assert _worker.build_environment(section, parent).get("UCX_TLS") == expected


def test_ucx_variables_reach_dscli(dscli: Dscli) -> None:
    _worker.start_worker(plan(ucx_env_vars={"UCX_LOG_LEVEL": "ERROR"}))
    assert dscli.calls[-1]["environment"]["UCX_LOG_LEVEL"] == "ERROR"


def test_device_ids_are_checked_and_made_visible() -> None:
    section = {**SECTION, "worker_args": "--remote_h2d_device_ids 0,1"}
    environment = _worker.build_environment(section, {})
    assert environment["ASCEND_RT_VISIBLE_DEVICES"] == "0,1"
    assert environment["DS_D2H_MEMCPY_POLICY"] == "direct"
    with pytest.raises(ValueError, match="takes device numbers"):
        plan(worker_args="--remote_h2d_device_ids 0;rm")


def test_npu_transport_without_an_npu_is_one_info_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "transfer_queue")
    _worker.say_how_npu_tensors_travel({"enable_yr_npu_transport": True})
    _worker.say_how_npu_tensors_travel({"enable_yr_npu_transport": False})
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "host memory" in caplog.text
