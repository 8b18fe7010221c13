"""What the checkers share: the files of the repository, and how they complain."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def files(*patterns: str) -> list[str]:
    """Names, from the root, of files that are tracked or could be; all by default."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--"]
    done = subprocess.run(
        [*command, *patterns], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def report(complaints: Sequence[str]) -> int:
    """Print them; returns the exit code."""
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0
