"""``python -m yr.datasystem.cli`` is dscli."""

from __future__ import annotations

import sys

from yr.datasystem.cli._main import main

if __name__ == "__main__":
    sys.exit(main())
