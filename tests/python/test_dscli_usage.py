"""dscli as a command: help, exit codes, and what it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "yr.datasystem.cli"]


def dscli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("arguments", [[], ["help"], ["-h"]])
def test_help_is_shown_with_success(arguments: list[str]) -> None:
    done = dscli(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: dscli")
    assert "generate_config" in done.stdout


def test_the_version_is_shown() -> None:
    done = dscli("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("dscli 1.")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["start"], ["start", "-t", "x"], ["stop", "--worker"], ["query"]],
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    done = dscli(*arguments)
    assert done.returncode == 2
    assert "usage: dscli" in done.stderr


@pytest.mark.parametrize("command", ["generate_helm_chart"])
def test_what_is_not_built_yet_says_so(command: str) -> None:
    done = dscli(command, "-f", "x")
    assert done.returncode == 1
    assert done.stderr.endswith("not built yet\n")


def test_stop_needs_to_know_which() -> None:
    done = dscli("stop")
    assert done.returncode == 1
    assert done.stderr == (
        "[ERROR] Stop failed: worker_address, coordinator_address, or config_path must "
        "be specified\n"
    )


def test_a_timeout_of_nothing_is_refused() -> None:
    done = dscli("start", "-t", "0", "-w", "--metastore_address", "127.0.0.1:1")
    assert done.returncode == 1
    assert "--timeout must be at least 1 second" in done.stderr


def test_generate_config_writes_the_file_and_says_so(tmp_path: Path) -> None:
    done = dscli("generate_config", "-o", str(tmp_path / "new"))
    assert done.returncode == 0
    files = ["cluster_config.json", "worker_config.json"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == files
    assert done.stdout.splitlines() == [
        *(
            f"[INFO] Configuration file {name} has been generated to {tmp_path / 'new'}"
            for name in files
        ),
        "[INFO] Configuration generation completed successfully",
    ]


def test_generate_config_refuses_the_folders_of_the_system() -> None:
    done = dscli("generate_config", "-o", "/etc/datasystem")
    assert done.returncode == 1
    assert "is outside allowed directory" in done.stderr


def test_nothing_heavy_is_imported() -> None:
    script = (
        "import sys\n"
        "from yr.datasystem.cli import _main, _start, _stop, _status, _query\n"
        "heavy = {'ray', 'torch', 'numpy', 'rich', 'tensordict', 'psutil'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"
