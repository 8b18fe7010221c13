"""One store behind a pipe: run as a subprocess by bench/run.py.

    python store_driver.py {ours|yuanrong|mooncake|redis|ray}

Reads one JSON request per line and answers with one JSON line:
    {"case": [count, bytes], "operation": "put|set|get|delete", "rounds": n}
        -> {"ns": [...], "cpu_us": float}
    {"first_touch": [count, bytes]} -> {"ns": [...]}
    {"quit": true}

Every value read has its first and last byte checked inside the timed region.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any, Protocol


class Store(Protocol):
    """What every peer can do; values are bytes-like."""

    def put(self, keys: list[str], values: list[memoryview]) -> None: ...
    def get(self, keys: list[str]) -> list[Any]: ...
    def delete(self, keys: list[str]) -> None: ...


def fill(buffer: Any, value: memoryview) -> None:
    """The fastest way that the buffer offers."""
    if hasattr(buffer, "memory_copy"):
        buffer.memory_copy(value)
    else:
        buffer.MutableData()[:] = value


class KVClientStore:
    """Ours and openYuanrong-datasystem: the same API."""

    def __init__(self) -> None:
        from yr.datasystem import KVClient

        host, port = os.environ["BENCH_WORKER"].rsplit(":", 1)
        self._client = KVClient(host, int(port))
        self._client.init()

    def put(self, keys: list[str], values: list[memoryview]) -> None:
        buffers = self._client.mcreate(keys, [len(value) for value in values])
        for buffer, value in zip(buffers, values, strict=True):
            fill(buffer, value)
        self._client.mset_buffer(buffers)

    def set(self, keys: list[str], values: list[memoryview]) -> None:
        for key, value in zip(keys, values, strict=True):
            self._client.set(key, value)

    def get(self, keys: list[str]) -> list[Any]:
        buffers: list[Any] = self._client.get_buffers(keys)
        return [memoryview(buffer) for buffer in buffers]

    def delete(self, keys: list[str]) -> None:
        self._client.delete(keys)


class RedisStore:
    """Redis over its Unix socket."""

    def __init__(self) -> None:
        import redis

        self._client = redis.Redis(unix_socket_path=os.environ["BENCH_REDIS"])

    def put(self, keys: list[str], values: list[memoryview]) -> None:
        self._client.mset(dict(zip(keys, values, strict=True)))

    def get(self, keys: list[str]) -> list[Any]:
        return list(self._client.mget(keys))

    def delete(self, keys: list[str]) -> None:
        self._client.delete(*keys)


class MooncakeStore:
    """Mooncake store over TCP on this host."""

    def __init__(self) -> None:
        from mooncake.store import MooncakeDistributedStore

        self._store = MooncakeDistributedStore()
        code = self._store.setup(
            "127.0.0.1",
            "P2PHANDSHAKE",
            2 << 30,
            1 << 30,
            "tcp",
            "",
            os.environ["BENCH_MOONCAKE"],
        )
        if code != 0:
            raise RuntimeError(f"mooncake setup answered {code}")

    def put(self, keys: list[str], values: list[memoryview]) -> None:
        plain = [bytes(value) for value in values]
        if len(keys) == 1:
            code = self._store.put(keys[0], plain[0])
        else:
            code = self._store.put_batch(keys, plain)
        if code != 0:
            raise RuntimeError(f"mooncake put answered {code}")

    def get(self, keys: list[str]) -> list[Any]:
        if len(keys) == 1:
            return [self._store.get(keys[0])]
        return list(self._store.get_batch(keys))

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            deadline = time.monotonic() + 5
            while (code := self._store.remove(key)) != 0:  # Leased by the last read.
                if time.monotonic() > deadline:
                    raise RuntimeError(f"mooncake remove answered {code}")
                time.sleep(0.01)


class RayStore:
    """ray.put and ray.get; the key is the reference."""

    def __init__(self) -> None:
        import ray

        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=2 << 30,
            include_dashboard=False,
            logging_level=40,
            _temp_dir=os.environ["BENCH_RAY_TEMP"],
        )
        self._ray = ray
        self._refs: dict[str, Any] = {}

    def put(self, keys: list[str], values: list[memoryview]) -> None:
        import numpy as np

        for key, value in zip(keys, values, strict=True):
            self._refs[key] = self._ray.put(np.frombuffer(value, np.uint8))

    def get(self, keys: list[str]) -> list[Any]:
        return list(self._ray.get([self._refs[key] for key in keys]))

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            del self._refs[key]  # Ray has no other way; the store frees it later.


STORES = {
    "ours": KVClientStore,
    "yuanrong": KVClientStore,
    "redis": RedisStore,
    "mooncake": MooncakeStore,
    "ray": RayStore,
}


def cpu_us() -> float:
    """CPU time of this process in microseconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e6


def check(values: list[Any], expected: list[memoryview]) -> None:
    """First and last byte of every value."""
    for value, want in zip(values, expected, strict=True):
        if value[0] != want[0] or value[-1] != want[-1]:
            raise AssertionError("a value came back wrong")


class Bench:
    """Times the operations of one store."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._serial = 0

    def _keys(self, count: int) -> list[str]:
        self._serial += 1
        return [f"bench_{os.getpid()}_{self._serial}_{i}" for i in range(count)]

    def run(self, count: int, size: int, operation: str, rounds: int) -> dict[str, Any]:
        """Times `operation` `rounds` times; everything else happens outside."""
        data = memoryview(bytearray(os.urandom(1 << 16) * (size // (1 << 16) + 1)))
        values = [data[i % 13 : i % 13 + size] for i in range(count)]
        times = []
        cpu = 0.0
        for _ in range(rounds):
            keys = self._keys(count)
            cpu_before = 0.0
            if operation in ("put", "set"):
                write = getattr(self._store, operation)
                cpu_before = cpu_us()
                begin = time.perf_counter_ns()
                write(keys, values)
                times.append(time.perf_counter_ns() - begin)
                cpu += cpu_us() - cpu_before
                check(self._store.get(keys), values)
                self._store.delete(keys)
            else:
                self._store.put(keys, values)
                cpu_before = cpu_us()
                begin = time.perf_counter_ns()
                if operation == "get":
                    got = self._store.get(keys)
                    check(got, values)
                    times.append(time.perf_counter_ns() - begin)
                    cpu += cpu_us() - cpu_before
                    del got
                    self._store.delete(keys)
                else:
                    self._store.delete(keys)
                    times.append(time.perf_counter_ns() - begin)
                    cpu += cpu_us() - cpu_before
        return {"ns": times, "cpu_us": cpu / rounds}


def main() -> None:
    bench = Bench(STORES[sys.argv[1]]())
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "quit" in request:
            break
        count, size = request["case"]
        answer = bench.run(count, size, request["operation"], request["rounds"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
