#!/usr/bin/env python3
"""Keeps includes going one way, and system calls out of the pure layers.

A file of a layer may include its own layer and those listed for it. The pure layers
get memory, time and randomness as arguments, so their files (not their tests) may only
include headers of the C library that make no system calls.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from _repository import files, read, report

BELOW = ("base", "os", "wire", "net", "store", "meta", "queue")
MAY_INCLUDE = {
    "base": {"base"},
    "os": {"base", "os"},
    "wire": {"base", "wire"},
    "net": {"base", "os", "wire", "net"},
    "store": {"base", "store"},
    "meta": {"base", "meta"},
    "queue": {"base", "wire", "queue"},
    "worker": {*BELOW, "worker"},
    "controller": {*BELOW, "controller"},
    "client": {*BELOW, "client"},
}
PURE = {"base", "wire", "store", "meta", "queue"}
PURE_HEADERS = {
    *("assert.h", "ctype.h", "errno.h", "inttypes.h", "limits.h", "math.h"),
    *("stdarg.h", "stdatomic.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h"),
    *("stdlib.h", "string.h", "strings.h", "xxhash.h", "jansson.h"),
    *("sodium/core.h", "sodium/crypto_aead_chacha20poly1305.h"),
    *("sodium/crypto_generichash.h", "sodium/utils.h"),
}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)
PRIVATE_IMPORT = re.compile(
    r"^\s*(?:from|import)\s+yr\.datasystem\.?_\w+", re.MULTILINE
)


def main() -> int:
    complaints = []
    for name in files("src/*.c", "src/*.h"):
        complaints += _check_layer_file(name)
    for name in files("python/ext/*.c", "python/ext/*.h"):
        complaints += _check_extension_file(name)
    for name in files("python/transfer_queue/*.py"):
        if PRIVATE_IMPORT.search(read(name)):
            complaints.append(f"{name}: uses what is private to yr.datasystem")
    return report(complaints)


def _check_layer_file(name: str) -> list[str]:
    layer = name.split("/")[1]
    is_test = Path(name).stem.endswith("_test")
    allowed = MAY_INCLUDE.get(layer)
    if allowed is None:
        return [f"{name}: '{layer}' is no layer; add it to tools/check_layers.py"]
    complaints = []
    for quote, header in INCLUDE.findall(read(name)):
        folder, _, rest = header.partition("/")
        if quote == '"' and rest and folder not in allowed:
            complaints.append(f"{name}: layer {layer} may not include {header}")
        if quote == "<" and layer in PURE and not is_test and not _is_pure(header):
            complaints.append(f"{name}: layer {layer} is pure; not with <{header}>")
    return complaints


def _check_extension_file(name: str) -> list[str]:
    """The extension sees the public headers and its own folder."""
    return [
        f"{name}: the extension sees include/ only, not {header}"
        for quote, header in INCLUDE.findall(read(name))
        if quote == '"' and "/" in header
    ]


def _is_pure(header: str) -> bool:
    return header in PURE_HEADERS or header.startswith("datasystem/")


if __name__ == "__main__":
    sys.exit(main())
