"""A program on one host of a cluster: makes blocks, and reads them.

    block_program.py HOST PORT [QUEUE]

One request a line, a JSON array; one answer a line, JSON. A part is known by its size
and a seed, by which any host can tell whether its bytes are right.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from line_program import serve

from yr.datasystem import BlockClient, DatasystemError

NOT_FOUND = 2


def bytes_of(seed: int, size: int) -> bytes:
    """Different at every place, and for every seed."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


class Program:
    def __init__(self, host: str, port: int, queue: str | None) -> None:
        self.client = BlockClient(host, port, 9000, 30_000, queue=queue)
        self.held: list[Any] = []

    def put(self, seed: int, *sizes: int) -> str:
        parts = self.client.block_create(sizes)
        for i, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            memoryview(part)[:] = bytes_of(seed + i, size)
        return self.client.block_seal(parts).hex()

    def check(self, id_: str, seed: int, *sizes: int) -> str:
        """ "right", "gone", or what is wrong."""
        try:
            parts = self.client.block_get(
                [bytes.fromhex(id_)] * len(sizes), list(range(len(sizes)))
            )
        except DatasystemError as error:
            return "gone" if error.status == NOT_FOUND else str(error)
        for i, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            if part is None:
                return "gone"
            if memoryview(part) != bytes_of(seed + i, size):
                return f"part {i} is wrong"
        self.held = parts
        return "right"

    def let_go(self) -> None:
        self.held = []

    def delete(self, id_: str) -> None:
        self.client.block_delete([bytes.fromhex(id_)])

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(self.client.stats())
        return stats


def main(host: str, port: str, queue: str | None = None) -> None:
    serve(Program(host, int(port), queue))


if __name__ == "__main__":
    main(*sys.argv[1:])
