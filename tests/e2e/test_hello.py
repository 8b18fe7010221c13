"""The C library as a C programmer gets it: cmake --install, pkg-config, a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from installs import REPOSITORY, run
from worker_process import running_worker

SAID = """\
connected through shared memory
hello = world
later = worth the wait
deleted: yes
"""


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `make install PREFIX=...` would put it, of a build of its own."""
    folder = tmp_path_factory.mktemp("hello")
    build, prefix = folder / "build", folder / "prefix"
    configure = ["cmake", "-S", REPOSITORY, "-B", build, "-G", "Ninja"]
    run([*configure, "-DCMAKE_BUILD_TYPE=Release"])
    run(["cmake", "--build", build], timeout_s=240)
    run(["cmake", "--install", build, "--prefix", prefix])
    return prefix


def flags_of(prefix: Path) -> list[str]:
    (folder,) = prefix.glob("lib*/**/pkgconfig")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(folder)}
    command = ["pkg-config", "--cflags", "--libs", "datasystem"]
    return run(command, environment=environment).split()


@pytest.mark.timeout(300)
def test_hello_runs_against_the_installed_library(prefix: Path, tmp_path: Path) -> None:
    flags, program = flags_of(prefix), tmp_path / "hello"
    source = REPOSITORY / "examples" / "hello.c"
    compiler = ["cc", "-Wall", "-Wextra", "-Werror", source]
    run([*compiler, *flags, "-pthread", "-o", program], cwd=tmp_path)
    libraries = [flag.removeprefix("-L") for flag in flags if flag.startswith("-L")]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
    home = tmp_path / "worker"
    home.mkdir()
    with running_worker(home, shared_memory_size_mb=64) as worker:
        command = [program, worker.host, str(worker.port)]
        assert run(command, environment=environment) == SAID


def test_hello_says_that_nobody_answers(prefix: Path, tmp_path: Path) -> None:
    flags, program = flags_of(prefix), tmp_path / "hello"
    source = REPOSITORY / "examples" / "hello.c"
    rpath = [f"-Wl,-rpath,{flag[2:]}" for flag in flags if flag.startswith("-L")]
    run(["cc", source, *flags, *rpath, "-pthread", "-o", program], cwd=tmp_path)
    done = subprocess.run(
        [program, "127.0.0.1", "1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("hello: ") and "127.0.0.1:1" in done.stderr


def test_programs_are_installed(prefix: Path) -> None:
    for name in ("datasystem_worker", "transfer_queue_controller"):
        done = run_wrongly(prefix / "bin" / name)
        assert done.returncode != 0
        assert "--no_such_flag" in done.stderr


def run_wrongly(program: Path) -> subprocess.CompletedProcess[str]:
    command = [program, "--no_such_flag=1"]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False
    )
