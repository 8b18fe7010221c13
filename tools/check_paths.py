#!/usr/bin/env python3
"""No file may hold a path of the machine on which it was written."""

from __future__ import annotations

import re
import sys

from _repository import ROOT, files, read, report

HOME = re.compile(r"(?<!\w)/(?:home|Users)/[a-z][\w.-]*/")


def main() -> int:
    here = re.compile(re.escape(str(ROOT)) + r"\b")
    complaints = []
    for name in files():
        try:
            text = read(name)
        except UnicodeDecodeError:
            continue  # Binary.
        for number, line in enumerate(text.splitlines(), 1):
            if here.search(line) or HOME.search(line):
                complaints.append(f"{name}:{number}: a path of one machine")
    return report(complaints)


if __name__ == "__main__":
    sys.exit(main())
