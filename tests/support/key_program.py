"""A program on one host of a cluster: puts users' keys, and reads them.

    key_program.py HOST PORT

One request a line, a JSON array; one answer a line, JSON. A value is known by its size
and a seed, by which any host can tell whether its bytes are right.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from line_program import serve

from yr.datasystem import BlockClient, ExistenceOpt, KVClient


def value_of(seed: int, size: int) -> bytes:
    """Different at every place, and for every seed."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


class Program:
    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.client = KVClient(
            host, port, connect_timeout_ms=9000, req_timeout_ms=30_000
        )
        self.client.init()

    def put(self, key: str, seed: int, size: int, ttl_s: int = 0) -> str:
        """ "done", or what is wrong."""
        value = value_of(seed, size)
        return self._attempt(lambda: self.client.set(key, value, ttl_second=ttl_s))

    def put_if_absent(self, key: str, seed: int, size: int) -> str:
        values = [value_of(seed, size)]
        return self._attempt(
            lambda: self.client.mset([key], values, existence_opt=ExistenceOpt.NX)
        )

    def put_many(self, prefix: str, count: int, size: int) -> str:
        keys = [f"{prefix}{i}" for i in range(count)]
        values = [value_of(i, size) for i in range(count)]
        return self._attempt(lambda: self.client.mset(keys, values))

    def check(self, key: str, seed: int, size: int, wait_ms: int = 0) -> str:
        """ "right", or what is wrong."""
        return self.check_all([[key, seed, size]], wait_ms)

    def check_many(self, prefix: str, count: int, size: int, wait_ms: int = 0) -> str:
        wanted = [[f"{prefix}{i}", i, size] for i in range(count)]
        return self.check_all(wanted, wait_ms)

    def check_all(self, wanted: list[Any], wait_ms: int = 0) -> str:
        def compare() -> str | None:
            buffers = self.client.get_buffers([key for key, _, _ in wanted], wait_ms)
            for (key, seed, size), buffer in zip(wanted, buffers, strict=True):
                if buffer is None:
                    return f"{key} is nowhere"
                if memoryview(buffer) != value_of(seed, size):
                    return f"{key} is wrong"
            return "right"

        return self._attempt(compare)

    def exists(self, *keys: str) -> list[bool]:
        return [bool(found) for found in self.client.exist(list(keys))]

    def delete(self, *keys: str) -> str:
        return self._attempt(lambda: self.client.delete(list(keys)))

    def expire(self, key: str, seconds: int) -> str:
        return self._attempt(lambda: self.client.expire([key], seconds))

    def fingerprint(self, key: str) -> str:
        """Of its value; what is wrong, if there is none."""

        def read() -> str:
            [value] = self.client.get([key])
            assert isinstance(value, bytes)
            return hashlib.sha256(value).hexdigest()

        return self._attempt(read)

    def own_count(self) -> int:
        """Objects that this node has, without copies of others'."""
        client = BlockClient(*self.address, 9000, 30_000)
        stats = json.loads(client.stats())
        client.close()
        return int(stats["objects"]) - int(stats["objects_copied"])

    def _attempt(self, call: Any) -> str:
        try:
            answer = call()
        except Exception as error:  # The test says which one it wants.
            return f"{type(error).__name__}: {error}"
        return "done" if answer is None else str(answer)


def main(host: str, port: str) -> None:
    serve(Program(host, int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
