"""One client of the growth benchmark: run as a subprocess by bench/growth.py.

    python growth_driver.py HOST PORT

Reads one JSON request per line and answers with one JSON line:
    {"fill": count}                                     -> {"seconds": float}
    {"operation": "put|get|delete", "count": keys in one call, "bytes": size of a value,
     "rounds": n, "start_at": CLOCK_MONOTONIC seconds or 0}
        -> {"ns": [...], "began", "ended": CLOCK_MONOTONIC seconds}
    {"quit": true}

Objects of the filling are 64 bytes and stay. The first and last byte of every value
that is read are checked inside the timed region.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from yr.datasystem import KVClient

FILL_BATCH = 5000
FILL_BYTES = 64


class Client:
    """Times operations; the keys are its own."""

    def __init__(self, host: str, port: int) -> None:
        self._client = KVClient(host, port)
        self._client.init()
        self._filled = 0

    def fill(self, count: int) -> float:
        """Lets `count` objects be there."""
        begin = time.perf_counter()
        while self._filled < count:
            last = min(self._filled + FILL_BATCH, count)
            keys = [f"fill_{i:09d}" for i in range(self._filled, last)]
            self._client.mset(keys, [b"x" * FILL_BYTES] * len(keys))
            self._filled = last
        return time.perf_counter() - begin

    def run(
        self, operation: str, count: int, size: int, rounds: int, start_at: float
    ) -> dict[str, Any]:
        """The times of the calls, which begin at `start_at`."""
        value = memoryview(os.urandom(size))
        times = []
        keys = [f"own_{os.getpid()}_{i}" for i in range(count)]
        if operation == "get":
            self._put(keys, value)
        while time.monotonic() < start_at:
            time.sleep(0.001)
        began = time.monotonic()
        for _ in range(rounds):
            if operation == "delete":
                self._put(keys, value)
            begin = time.perf_counter_ns()
            if operation == "put":
                self._put(keys, value)
            elif operation == "get":
                self._get(keys, value)
            else:
                self._client.delete(keys)
            times.append(time.perf_counter_ns() - begin)
        ended = time.monotonic()
        self._client.delete(keys)
        return {"ns": times, "began": began, "ended": ended}

    def _put(self, keys: list[str], value: memoryview) -> None:
        if len(keys) == 1:
            self._client.set(keys[0], value)
        else:
            self._client.mset(keys, [value] * len(keys))

    def _get(self, keys: list[str], value: memoryview) -> None:
        for buffer in self._client.get_buffers(keys):
            assert buffer is not None
            got = memoryview(buffer)
            if got[0] != value[0] or got[-1] != value[-1]:
                raise AssertionError("a value came back wrong")

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what one line asks for."""
        if "fill" in request:
            return {"seconds": self.fill(request["fill"])}
        size = request.pop("bytes")
        return self.run(size=size, **request)


def main() -> None:
    client = Client(sys.argv[1], int(sys.argv[2]))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "quit" in request:
            break
        print(json.dumps(client.answer(request)), flush=True)


if __name__ == "__main__":
    main()
