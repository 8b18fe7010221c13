#!/usr/bin/env python3
"""No file may hold a path of the machine on which it was written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from _repository import ROOT, files, read, report


def main() -> int:
    places = [str(ROOT)]
    if len(Path.home().parts) > 2:  # Not /root, which may stand in a text.
        places.append(str(Path.home()))
    here = re.compile(rf"(?:{'|'.join(map(re.escape, places))})\b")
    complaints = []
    for name in files():
        try:
            text = read(name)
        except UnicodeDecodeError:
            continue  # Binary.
        for number, line in enumerate(text.splitlines(), 1):
            if here.search(line):
                complaints.append(f"{name}:{number}: a path of one machine")
    return report(complaints)


if __name__ == "__main__":
    sys.exit(main())
