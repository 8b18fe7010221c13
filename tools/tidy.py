#!/usr/bin/env python3
"""Runs clang-tidy on the C sources; skips those that passed and have not changed.

    tidy.py BUILD_FOLDER

A file has changed when it, a header of ours that it includes, or the configuration has.
What passed is remembered in BUILD_FOLDER/tidy. Only files that are part of that build
are looked at.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _repository import ROOT, read

INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', re.MULTILINE)
INCLUDE_FOLDERS = ("src", "include", "tests/support", "python/ext")
TIMEOUT_S = 300


def main() -> int:
    build = Path(sys.argv[1]).resolve()
    passed = build / "tidy"
    passed.mkdir(exist_ok=True)
    todo = [
        (name, passed / key)
        for name in _sources(build)
        if not (passed / (key := _key(name))).exists()
    ]
    _write_commands(build, passed)
    complaints = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for output in pool.map(lambda item: _tidy(passed, *item), todo):
            if output:
                complaints += 1
                print(output, file=sys.stderr, flush=True)
    print(f"clang-tidy: {len(todo)} files read, {complaints} with warnings")
    return 1 if complaints else 0


def _write_commands(build: Path, folder: Path) -> None:
    """The simulation compiles the sources again: of a file that is read twice in one
    run, clang's analyzer says that a va_list was never started."""
    entries = json.loads((build / "compile_commands.json").read_text("utf-8"))
    by_file: dict[str, dict[str, str]] = {}
    for entry in entries:
        if entry["file"] not in by_file or " -o src/" in entry["command"]:
            by_file[entry["file"]] = entry
    text = json.dumps(list(by_file.values()))
    (folder / "compile_commands.json").write_text(text, "utf-8")


def _sources(build: Path) -> list[str]:
    entries = json.loads((build / "compile_commands.json").read_text("utf-8"))
    names = (Path(entry["file"]).resolve() for entry in entries)
    inside = {
        str(name.relative_to(ROOT)) for name in names if name.is_relative_to(ROOT)
    }
    return sorted(name for name in inside if _is_product(name))


def _is_product(name: str) -> bool:
    """Tests are compiled with all warnings; the analyzer does not know that a CHECK
    ends the test, and follows paths that are none."""
    is_test = name.endswith(("_test.c", "fixture.c")) or "testing" in name
    return name.startswith("src/") and not is_test


def _key(name: str) -> str:
    """A digest of all that the outcome depends on."""
    digest = hashlib.sha256(name.encode())
    for part in (".clang-tidy", *sorted(_closure(name, set()))):
        digest.update(read(part).encode())
    return digest.hexdigest()


def _closure(name: str, seen: set[str]) -> set[str]:
    """The file and all headers of ours that it sees."""
    seen.add(name)
    for header in INCLUDE.findall(read(name)):
        for folder in (str(Path(name).parent), *INCLUDE_FOLDERS):
            found = f"{folder}/{header}"
            if (ROOT / found).is_file() and found not in seen:
                _closure(found, seen)
    return seen


def _tidy(commands: Path, name: str, mark: Path) -> str:
    done = subprocess.run(
        ["clang-tidy", "--quiet", "--warnings-as-errors=*", "-p", str(commands), name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode == 0:
        mark.touch()
        return ""
    return done.stdout or done.stderr


if __name__ == "__main__":
    sys.exit(main())
