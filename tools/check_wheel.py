#!/usr/bin/env python3
"""check_wheel.py WHEEL: does the wheel hold what it must, and run on older hosts?

Every program and library in it is for the processor that the wheel's name says, may
need only the C library, and no version of a symbol that came after glibc 2.34. Those
for aarch64 must also load where pages have 64 KiB.
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
MACHINES = {"x86_64": "X86-64", "aarch64": "AArch64"}  # In file names, for readelf.
PAGE_BYTES_MAX = {"x86_64": 4 << 10, "aarch64": 64 << 10}
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
    "yr/datasystem/cli/cluster_config.json",
    "yr/datasystem/cli/worker_config.json",
    "yr/datasystem/include/datasystem/datasystem.h",
    "yr/datasystem/lib/pkgconfig/datasystem.pc",
)


def main() -> int:
    complaints = []
    machine = next((name for name in MACHINES if name in Path(sys.argv[1]).name), "")
    if not machine:
        complaints.append(f"{sys.argv[1]}: the name says none of {', '.join(MACHINES)}")
    with zipfile.ZipFile(sys.argv[1]) as wheel, tempfile.TemporaryDirectory() as folder:
        names = set(wheel.namelist())
        complaints += [f"{name} is missing" for name in MEMBERS if name not in names]
        if "yr/__init__.py" in names:
            complaints.append("yr/__init__.py: yr must stay a namespace package")
        wheel.extractall(folder)
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and path.read_bytes()[:4] == b"\x7fELF":
                text = _describe(path)
                complaints += _check_needs(text, name)
                complaints += _check_machine(text, name, machine)
    return report(complaints)


def _describe(path: Path) -> str:
    parts = ("--file-header", "--program-headers", "--dynamic", "--version-info")
    return subprocess.run(
        ["readelf", "--wide", *parts, str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def _check_machine(text: str, name: str, machine: str) -> list[str]:
    if not machine:
        return []
    complaints = []
    found = re.findall(r"^ *Machine: +(.*)$", text, re.MULTILINE)
    if not found or not found[0].endswith(MACHINES[machine]):
        complaints.append(f"{name}: for {found}, not for {machine}")
    alignments = re.findall(r"^ *LOAD .* (0x[0-9a-f]+)$", text, re.MULTILINE)
    if not alignments or min(int(a, 16) for a in alignments) < PAGE_BYTES_MAX[machine]:
        complaints.append(f"{name}: does not load with the largest pages: {alignments}")
    return complaints


def _check_needs(text: str, name: str) -> list[str]:
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
