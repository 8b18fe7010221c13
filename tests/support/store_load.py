"""A client that writes, reads and deletes at random and knows what it should find.

    python store_load.py HOST PORT SECONDS SEED

Ends with a JSON line {"operations": n, "slowest_s": x}; any lost object, wrong byte or
object that should be gone ends it with a traceback and exit code 1. Keys are its own.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time

from yr.datasystem import KVClient

SIZES = (10, 1000, 20_000, 300_000, 2_000_000)


def value_of(key: str, size: int) -> bytes:
    """Bytes that only this key and size have."""
    block = hashlib.sha256(f"{key} {size}".encode()).digest()
    return (block * (size // len(block) + 1))[:size]


class Load:
    """One client's random operations, and the sizes of what it must find."""

    def __init__(self, client: KVClient, seed: int) -> None:
        self._client = client
        self._random = random.Random(seed)
        self._prefix = f"load_{seed}"
        self._sizes: dict[str, int] = {}

    def step(self) -> None:
        """One random operation."""
        operations = (
            self._set,
            self._set_batch,
            self._delete,
            self._check,
            self._check,
        )
        self._random.choice(operations)()

    def check_all(self) -> None:
        """Everything is there, byte for byte."""
        for key in self._sizes:
            self._check_key(key)

    def _key(self) -> str:
        return f"{self._prefix}_{self._random.randrange(300)}"

    def _set(self) -> None:
        key, size = self._key(), self._random.choice(SIZES)
        self._client.set(key, value_of(key, size))
        self._sizes[key] = size

    def _set_batch(self) -> None:
        keys = list({self._key() for _ in range(5)})
        size = self._random.choice(SIZES[:3])
        buffers = self._client.mcreate(keys, [size] * len(keys))
        for key, buffer in zip(keys, buffers, strict=True):
            buffer.MutableData()[:] = value_of(key, size)
        self._client.mset_buffer(buffers)
        self._sizes.update(dict.fromkeys(keys, size))

    def _delete(self) -> None:
        key = self._key()
        self._client.delete([key])
        self._sizes.pop(key, None)

    def _check(self) -> None:
        self._check_key(self._key())

    def _check_key(self, key: str) -> None:
        try:
            buffer = self._client.get_buffers([key])[0]
        except RuntimeError as error:
            if "Key not found" not in str(error):
                raise
            buffer = None
        size = self._sizes.get(key)
        if size is None:
            assert buffer is None, f"{key} was deleted and is back"
            return
        assert buffer is not None, f"{key} is lost"
        assert bytes(buffer) == value_of(key, size), f"{key} has wrong bytes"


def main() -> None:
    host, port, seconds, seed = sys.argv[1:5]
    slowest, operations = 0.0, 0
    deadline = time.monotonic() + float(seconds)
    with KVClient(host, int(port)) as client:
        load = Load(client, int(seed))
        while time.monotonic() < deadline:
            begin = time.monotonic()
            load.step()
            slowest = max(slowest, time.monotonic() - begin)
            operations += 1
        load.check_all()
    print(json.dumps({"operations": operations, "slowest_s": slowest}))


if __name__ == "__main__":
    main()
