"""The distribution as a user gets it: wheel, sdist, folder; for each Python.

Dependencies are not installed again: see tests/support/installs.py. Other versions of
Python are those on PATH (pyenv's too), or those named, separated by colons, in
TEST_PYTHONS; on a machine without one the tests of other versions do not exist.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from e2e import SMALL, Done, Site
from installs import (
    REPOSITORY,
    bare_environment,
    clean_environment,
    copy_tree,
    distributions,
    make_environment,
    pip,
    run,
    unpack,
)

# An install may have to wait for another one's compiler.
pytestmark = pytest.mark.timeout(300)

ROUND_TRIP = """
import sys
from yr.datasystem import KVClient
with KVClient("127.0.0.1", int(sys.argv[1])) as client:
    client.set("key", b"value" * 1000)
    assert client.get(["key"]) == [b"value" * 1000]
    assert client.delete(["key"]) == []
import yr.datasystem
print(yr.datasystem.__file__)
"""


class Installed:
    """An environment that our distribution was installed in."""

    def __init__(self, site: Site, python: Path) -> None:
        self.python, self.bin = python, python.parent
        self.site = site
        self.site.environment = {
            **clean_environment(self.bin.parent),
            "XDG_RUNTIME_DIR": str(site.runtime),
        }

    def run(self, *words: str) -> Done:
        return self.site.command(*words)

    def print_of(self, code: str, *arguments: str) -> str:
        done = self.run(str(self.python), "-c", code, *arguments)
        assert done.code == 0, done.err
        return done.out.strip()

    def dscli(self, *words: str) -> Done:
        return self.run(str(self.bin / "dscli"), *words)

    def store_and_read(self) -> str:
        """A round trip through a worker that dscli starts; where the SDK lies."""
        port = str(self.site.worker_port)
        address = ["--worker_address", self.site.worker_address]
        metastore = ["--metastore_address", f"127.0.0.1:{self.site.metastore_port}"]
        metastore += ["--start_metastore_service", "true"]
        start = ["start", "-d", str(self.site.folder / "home"), "-w", *address]
        started = self.dscli(*start, *metastore, *SMALL.split())
        assert started.code == 0, started.out + started.err
        try:
            return self.print_of(ROUND_TRIP, port)
        finally:
            stopped = self.dscli("stop", *address)
            assert stopped.code == 0, stopped.out + stopped.err


def check_install(installed: Installed, package: Path) -> None:
    """All that a user does first; our files must come from below `package`."""
    helped = installed.dscli("-h")
    assert helped.code == 0 and "start" in helped.out, helped.err
    files = installed.print_of(
        "import transfer_queue, yr.datasystem as s\n"
        "print(transfer_queue.__file__); print(s.__file__); print(s.KVClient.__name__)"
    ).split()
    assert files == [
        str(package / "transfer_queue" / "__init__.py"),
        str(package / "yr" / "datasystem" / "__init__.py"),
        "KVClient",
    ]
    assert installed.store_and_read() == files[1]


def packages_of(python: Path) -> Path:
    (packages,) = (python.parent.parent / "lib").glob("python*/site-packages")
    return packages


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Of an environment with our dependencies and without us."""
    return make_environment(tmp_path / "env")


# ---- Three ways ----------------------------------------------------------------------


def test_wheel_installs_from_a_folder_without_an_index(
    site: Site, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, _ = distributions()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    words = ["--no-index", "--find-links", str(wheel.parent), "TransferQueue[yuanrong]"]
    pip(python, "install", "--only-binary", "TransferQueue", *words)
    check_install(Installed(site, python), packages_of(python))


def test_sdist_installs(site: Site, python: Path) -> None:
    _, sdist = distributions()
    options = ["--no-index", "--no-build-isolation"]
    pip(python, "install", *options, f"TransferQueue[yuanrong] @ {sdist.as_uri()}")
    check_install(Installed(site, python), packages_of(python))


def test_folder_installs_editable(site: Site, python: Path, tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    options = ["--no-index", "--no-build-isolation"]
    pip(python, "install", *options, "-e", ".[yuanrong]", cwd=tree)
    check_install(Installed(site, python), tree / "python")


# ---- Other versions of Python --------------------------------------------------------


def other_pythons() -> Mapping[str, Path]:
    """By version, such as 3.12: interpreters that run, other than this version."""
    named = [Path(path) for path in os.environ.get("TEST_PYTHONS", "").split(":")]
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(":")]
    for folder in list(folders):
        if (
            folder.name == "shims"
        ):  # A shim runs only the versions that are switched on.
            folders += sorted((folder.parent / "versions").glob("3.*/bin"))
    found: dict[str, Path] = {}
    for version in ("3.10", "3.11", "3.12", "3.13"):
        if version == "{}.{}".format(*sys.version_info):
            continue
        candidates = [path for path in named if path.name.endswith(version)]
        candidates += [folder / f"python{version}" for folder in folders]
        running = next(filter(runs, candidates), None)
        if running is not None:
            found[version] = running
    return found


def runs(python: Path) -> bool:
    try:
        command = [str(python), "-c", "import venv, ctypes"]
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except OSError:
        return False
    return done.returncode == 0


OTHER_PYTHONS = other_pythons()

if OTHER_PYTHONS:

    @pytest.mark.parametrize("version", OTHER_PYTHONS)
    def test_wheel_of_another_python_stores_and_reads(
        version: str,
        site: Site,
        tmp_path: Path,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        wheel = build_wheel(OTHER_PYTHONS[version], tmp_path, tmp_path_factory)
        assert f"cp{version.replace('.', '')}" in wheel.name
        python = bare_environment(tmp_path / "env", OTHER_PYTHONS[version])
        pip(python, "install", "--no-deps", "--no-index", wheel)
        installed = Installed(site, python)
        code = "import sys; print('{}.{}'.format(*sys.version_info))"
        assert installed.print_of(code) == version
        where = Path(installed.store_and_read())
        assert where == packages_of(python) / "yr" / "datasystem" / "__init__.py"


def build_wheel(
    base: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One build folder for all versions: only the extension is compiled again."""
    shared = tmp_path_factory.getbasetemp() / "wheels-of-other-pythons"
    if not (shared / "tree").exists():
        unpacked = unpack(distributions()[1], shared / "unpacked")
        unpacked.rename(shared / "tree")
    builder = make_builder(folder / "builder", base)
    options = ["--no-deps", "--no-build-isolation", "-C", f"build-dir={shared}/build"]
    wheels = folder / "wheels"
    pip(builder, "wheel", *options, "--wheel-dir", wheels, shared / "tree")
    (wheel,) = wheels.glob("*.whl")
    return wheel


def make_builder(folder: Path, base: Path) -> Path:
    """An environment that can build us: the backend comes from the package index."""
    python = bare_environment(folder, base)
    pip(python, "install", "--quiet", "scikit-build-core>=0.10")
    return python


# ---- What the wheel asks of a machine ------------------------------------------------


def test_binaries_need_only_the_c_library_of_2021() -> None:
    wheel, _ = distributions()
    run([sys.executable, REPOSITORY / "tools" / "check_wheel.py", wheel])


def test_no_source_is_for_one_kind_of_processor() -> None:
    """Unless it says in an #else what the others do."""
    guarded = re.compile(r"^#ifdef __SSE2__.*?^#else", re.MULTILINE | re.DOTALL)
    only = re.compile(r"intrin\.h|\b_mm\w*_|__builtin_ia32|\b(__)?asm\b|-m(arch|cpu)\b")
    folders = ("src", "include", "python/ext", "cmake")
    files = [path for name in folders for path in (REPOSITORY / name).rglob("*")]
    files = [path for path in files if path.suffix in (".c", ".h", ".txt", ".cmake")]
    assert len(files) > 100
    texts = {str(path): guarded.sub("", path.read_text()) for path in files}
    assert [path for path, text in texts.items() if only.search(text)] == []


# ---- Another distribution with our files ---------------------------------------------


@pytest.mark.parametrize(
    "other", ["openyuanrong_datasystem", "openyuanrong_datasystem_sdk"]
)
def test_other_distribution_of_the_same_files_is_named(
    other: str, site: Site, python: Path
) -> None:
    wheel, _ = distributions()
    pip(python, "install", "--no-deps", "--no-index", wheel)
    metadata = packages_of(python) / f"{other}-0.9.2.dist-info"
    metadata.mkdir()
    name = other.replace("_", "-")
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.9.2\n"
    )
    installed = Installed(site, python)
    imported = installed.run(str(python), "-c", "import yr.datasystem")
    for done in (imported, installed.dscli("-h")):
        assert done.code == 1
        assert f"{name} is installed in {packages_of(python)}" in done.err
        assert f"`pip uninstall {name}`" in done.err
    assert "Traceback" not in installed.dscli("-h").err
