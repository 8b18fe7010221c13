"""Installs of our distribution in virtual environments of a test's own.

torch and ray are gigabytes: an environment made here sees the distributions of the one
that runs the tests, all but ours, through links and a .pth file. pip there finds them
installed, and everything of ours is what the test installs.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_OURS = ("transferqueue", "_transferqueue", "__editable__", "transfer_queue", "yr")
_BUILD_TIMEOUT_S = 240


def run(
    command: Sequence[object],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 60,
) -> str:
    """What the command prints; it must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-4000:]}"
    return done.stdout


def pip(python: Path, *words: str | Path, cwd: Path | None = None) -> str:
    """Our pip, working on another interpreter's environment."""
    command = [sys.executable, "-m", "pip", "--python", python, *words]
    return run(command, cwd=cwd, timeout_s=_BUILD_TIMEOUT_S)


def copy_tree(target: Path) -> Path:
    """What a clone of the repository would hold: all files that git does not ignore."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = run(listing, cwd=REPOSITORY).split("\0")
    for name in filter(None, names):
        if (source := REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target


@functools.cache
def distributions() -> tuple[Path, Path]:
    """Our wheel and sdist, built once per run as tools/wheel.sh builds them."""
    folder = _lasting_folder()
    tree, target = copy_tree(folder / "tree"), folder / "dist"
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, tree]
    run(build, timeout_s=_BUILD_TIMEOUT_S)
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


@functools.cache
def drop_in() -> Path:
    """A folder with the reference, unmodified, from PyPI, and what only it needs.

    Fails, as the test should, where PyPI cannot be reached.
    """
    folder = _lasting_folder()
    needs = ["transferqueue==0.1.11", "pyzmq", "hydra-core", "prometheus_client"]
    pip_install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    run([*pip_install, "--target", folder, *needs], timeout_s=_BUILD_TIMEOUT_S)
    return folder


def make_environment(folder: Path) -> Path:
    """A virtual environment with our dependencies and without us; its interpreter."""
    python = bare_environment(folder, Path(sys.executable))
    links = folder / "dependencies"
    links.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.lower().startswith(_OURS):
            (links / entry.name).symlink_to(entry)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{links}\n")
    return python


def bare_environment(folder: Path, base: Path) -> Path:
    """A virtual environment with nothing in it; its interpreter."""
    run([base, "-m", "venv", "--without-pip", folder])
    return folder / "bin" / "python"


def unpack(sdist: Path, target: Path) -> Path:
    """The folder in the archive."""
    with tarfile.open(sdist) as archive:
        archive.extractall(target, filter="data")
    (tree,) = target.iterdir()
    return tree


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """For programs of an environment: nothing of this process leads to our tree."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    return {**kept, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **more}


@functools.cache
def _root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="installs-")  # Removed at exit.


def _lasting_folder() -> Path:
    """A folder that lasts as long as the test run."""
    return Path(tempfile.mkdtemp(dir=_root().name))
