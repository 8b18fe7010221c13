#!/usr/bin/env python3
"""check_wheel.py WHEEL: does the wheel hold what it must, and run on older hosts?

Every program and library in it may need only the C library, and no version of a symbol
that came after glibc 2.34.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from _repository import report

GLIBC_MAX = (2, 34)
NEEDED_ALLOWED = re.compile(
    r"lib(c|m|dl|rt|pthread)\.so|ld-linux|libdatasystem\.so\.1$"
)
MEMBERS = (
    "transfer_queue/__init__.py",
    "transfer_queue/config.yaml",
    "yr/datasystem/__init__.py",
    "yr/datasystem/_core.pyi",
    "yr/datasystem/py.typed",
    "yr/datasystem/libdatasystem.so.1",
    "yr/datasystem/bin/datasystem_worker",
    "yr/datasystem/bin/transfer_queue_controller",
    "yr/datasystem/cli/worker_config.json",
    "yr/datasystem/include/datasystem/datasystem.h",
    "yr/datasystem/lib/pkgconfig/datasystem.pc",
)


def main() -> int:
    complaints = []
    with zipfile.ZipFile(sys.argv[1]) as wheel, tempfile.TemporaryDirectory() as folder:
        names = set(wheel.namelist())
        complaints += [f"{name} is missing" for name in MEMBERS if name not in names]
        if "yr/__init__.py" in names:
            complaints.append("yr/__init__.py: yr must stay a namespace package")
        wheel.extractall(folder)
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and path.read_bytes()[:4] == b"\x7fELF":
                complaints += _check_binary(path, name)
    return report(complaints)


def _check_binary(path: Path, name: str) -> list[str]:
    text = subprocess.run(
        ["readelf", "--wide", "--dynamic", "--version-info", str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    complaints = [
        f"{name}: needs {library}"
        for library in re.findall(r"\(NEEDED\).*\[(.*)\]", text)
        if not NEEDED_ALLOWED.match(library)
    ]
    versions = set(re.findall(r"GLIBC_(\d+)\.(\d+)", text))
    complaints += [
        f"{name}: needs glibc {major}.{minor}"
        for major, minor in sorted(versions)
        if (int(major), int(minor)) > GLIBC_MAX
    ]
    return complaints


if __name__ == "__main__":
    sys.exit(main())
