"""The unmodified transferqueue 0.1.11 from PyPI runs on our SDK and our dscli.

What it does is in tests/support/reference_program.py. Our package is installed from its
wheel: the import hook of an editable install goes before PYTHONPATH.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from e2e import MARK, Site, free_port, wait_until
from installs import clean_environment, distributions, drop_in, make_environment, pip

PROGRAM = Path(__file__).parents[1] / "support" / "reference_program.py"
CASES = (
    "the_reference_runs_on_our_sdk",
    "demo",
    "small_rows",
    "large_rows_are_freed_by_clear",
    "ragged",
    "objects",
    "dtypes",
    "missing_key",
    "clear",
    "other_process",
    "close",
)


@pytest.fixture(scope="module")
def own_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An environment with our wheel, where `transfer_queue` is the reference."""
    folder = tmp_path_factory.mktemp("drop-in")
    python = make_environment(folder / "env")
    wheel, _ = distributions()
    pip(python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    ray_folder = Path(f"/tmp/tq-ray-{uuid.uuid4().hex[:8]}")  # Short: Ray's sockets.
    ray_folder.mkdir(mode=0o700)
    site = Site(folder, "drop-in-" + ray_folder.name)
    own = {name: site.environment[name] for name in site.environment if "TQ_" in name}
    site.environment = clean_environment(
        folder / "env",
        **own,
        PYTHONPATH=str(drop_in()),
        XDG_RUNTIME_DIR=str(site.runtime),
        RAY_TMPDIR=str(ray_folder),
        RAY_ADDRESS=f"127.0.0.1:{free_port()}",
        RAY_AUTH_MODE="token",  # Nobody else reaches the cluster of the test.
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        RAY_USAGE_STATS_ENABLED="0",
    )
    assert site.environment[MARK] == site.mark
    yield site
    site.end()
    subprocess.run(["rm", "-rf", str(ray_folder)], check=True)


@pytest.fixture(scope="module")
def outcome(own_site: Site) -> dict[str, str | None]:
    """What became of each case, all run by one process on one Ray cluster."""
    python = str(own_site.folder / "env" / "bin" / "python")
    start_cluster(python, own_site)
    done = own_site.command(python, str(PROGRAM), timeout_s=200)
    lines = [line for line in done.out.splitlines() if line.startswith("CASE ")]
    assert done.code == 0 and lines, done.out[-3000:] + done.err[-6000:]
    return dict(json.loads(line.removeprefix("CASE ")) for line in lines)


def start_cluster(python: str, site: Site) -> None:
    host, port = site.environment["RAY_ADDRESS"].split(":")
    start = [python, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus=16"]
    start += [f"--node-ip-address={host}", f"--port={port}"]
    start += [f"--ray-client-server-port={free_port()}"]
    start += ["--include-dashboard=false", "--disable-usage-stats"]
    start += ["--min-worker-port=0", "--max-worker-port=0"]
    environment = {**site.environment}
    del environment["RAY_ADDRESS"]  # Else it would join that cluster.
    log = site.folder / "ray.log"
    with log.open("w") as sink:  # A pipe would stay open in the daemons.
        ended = subprocess.run(
            start, env=environment, stdout=sink, stderr=sink, timeout=90, check=False
        )
    assert ended.returncode == 0, log.read_text()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", CASES)
def test_the_reference_runs_unmodified(
    case: str, outcome: dict[str, str | None]
) -> None:
    assert set(outcome) == set(CASES)
    assert outcome[case] is None, outcome[case]


def test_close_of_the_reference_leaves_no_worker(
    outcome: dict[str, str | None], own_site: Site
) -> None:
    assert outcome["close"] is None
    wait_until(lambda: own_site.pids_of("datasystem_worker") == [])
