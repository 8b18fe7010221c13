"""What a put costs beside the copy that it contains: run by bench/run.py.

    python copy_driver.py HOST PORT ROUNDS

Prints {"put": [ns...], "memcpy": [ns...], "streamed": [ns...]}, of 64 MiB each, by
turns: a put (with its checksum) of bytes that are there, memcpy() and the library's own
copy into memory of this process that was touched before.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np

from yr.datasystem import KVClient
from yr.datasystem._core import copy_bytes

BYTES = 64 << 20


def main(host: str, port: int, rounds: int) -> None:
    client = KVClient(host, port)
    client.init()
    source = np.random.default_rng(1).bytes(BYTES)
    target = bytearray(b"x" * BYTES)
    from_view, to_view = (
        np.frombuffer(source, np.uint8),
        np.frombuffer(target, np.uint8),
    )

    def put() -> None:
        (buffer,) = client.mcreate(["k"], [BYTES])
        buffer.memory_copy(source)
        client.mset_buffer([buffer])

    ways: dict[str, Callable[[], object]] = {
        "put": put,
        "memcpy": lambda: np.copyto(to_view, from_view),
        "streamed": lambda: copy_bytes(target, source),
    }
    times: dict[str, list[int]] = {name: [] for name in ways}
    for turn in range(rounds + 3):
        for name, way in ways.items():
            begin = time.perf_counter_ns()
            way()
            if turn >= 3:  # Before that memory is touched.
                times[name].append(time.perf_counter_ns() - begin)
        client.delete(["k"])
    client.close()
    print(json.dumps(times))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
