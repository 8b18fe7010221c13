#!/usr/bin/env python3
"""Writes what is made from the worker's flag table; ``--check`` only compares.

docs/flags.md and python/yr/datasystem/cli/worker_config.json come from
src/worker/flags_table.h, through the program tools/flags_dump.c.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _repository import ROOT

SOURCES = (
    "tools/flags_dump.c",
    "src/worker/flags.c",
    "src/base/status.c",
    "src/base/check.c",
)
OUTPUTS = (
    ("markdown", ROOT / "docs/flags.md"),
    ("json", ROOT / "python/yr/datasystem/cli/worker_config.json"),
)


def build(program: Path) -> None:
    compiler = os.environ.get("CC", "cc")
    options = ["-std=c11", "-D_GNU_SOURCE", "-Iinclude", "-Isrc", "-o", str(program)]
    subprocess.run([compiler, *options, *SOURCES], cwd=ROOT, check=True, timeout=120)


def generate(program: Path, form: str) -> str:
    done = subprocess.run(
        [str(program), form], check=True, timeout=60, capture_output=True, text=True
    )
    return done.stdout


def main() -> int:
    only_check = sys.argv[1:] == ["--check"]
    stale = []
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "flags_dump"
        build(program)
        for form, path in OUTPUTS:
            text = generate(program, form)
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            stale.append(path.relative_to(ROOT))
            if not only_check:
                path.write_text(text, encoding="utf-8")
    if only_check and stale:
        for path in stale:
            print(f"{path}: not current; run `make flags`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
