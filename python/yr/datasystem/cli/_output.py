"""How dscli speaks: information to stdout, warnings and errors to stderr."""

from __future__ import annotations

import sys

OK = "[  OK  ]"
FAILED = "[  FAILED  ]"


class CommandError(Exception):
    """A command failed; the text is for the user and dscli ends with code 1."""


def say(text: str) -> None:
    print(f"[INFO] {text}", flush=True)


def warn(text: str) -> None:
    print(f"[WARNING] {text}", file=sys.stderr, flush=True)


def complain(text: str) -> None:
    print(f"[ERROR] {text}", file=sys.stderr, flush=True)
