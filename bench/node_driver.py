"""TransferQueue, and KVClient, on one node of a Ray cluster: run by
bench/across_nodes.py.

    python node_driver.py BACKEND ADDRESS

The same program drives ours and the peer's transfer_queue. Requests and answers are
JSON lines. What a batch holds follows from its case and serial, so that either node
knows what the other has put:
    {"step": "put|get|clear", "case": "1024x10x128", "serial": n, "fields": n or null,
     "check": bool} -> {"ns": ...}
    the same with "case": "keys 1000x1000": so many users' keys of so many bytes;
    "keys 20x1000 each": got one after the other, p50 of one is the answer

A get reads all its bytes after the clock was stopped, to check them where it shall.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from typing import Any

import ray
import torch
from tensordict import TensorDict

import transfer_queue as tq
from kv_driver import batch, check, configuration
from store_driver import KVClientStore


def made_of(case: str, serial: int) -> TensorDict:
    torch.manual_seed(serial)
    return batch(case)


class Keys:
    """Users' keys at the worker of this node. Owner: main()."""

    def __init__(self) -> None:
        self._store: KVClientStore | None = None

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._store is None:
            self._store = KVClientStore()
        serial, step = request["serial"], request["step"]
        is_each = request["case"].endswith(" each")
        count, size = map(int, request["case"].split()[1].split("x"))
        keys = [f"bench_{serial}_{i}" for i in range(count)]
        value = b""
        if step == "put" or request.get("check"):
            value = random.Random(serial).randbytes(size)
        found: list[Any] = []
        begin = time.perf_counter_ns()
        if step == "put":
            self._store.put(keys, [memoryview(value)] * count)
        elif step == "get" and not is_each:
            found = self._store.get(keys)
        elif step == "clear":
            self._store.delete(keys)
        elapsed = time.perf_counter_ns() - begin
        if step == "get" and is_each:
            found, elapsed = self._get_each(keys)
        if request.get("check") and any(buffer != value for buffer in found):
            raise AssertionError("a value is not what was put")
        return {"ns": elapsed}

    def _get_each(self, keys: list[str]) -> tuple[list[Any], int]:
        """Values, and the median of the nanoseconds of each."""
        assert self._store is not None
        found, times = [], []
        for key in keys:
            begin = time.perf_counter_ns()
            found += self._store.get([key])
            times.append(time.perf_counter_ns() - begin)
        return found, int(statistics.median(times))


def run(request: dict[str, Any]) -> dict[str, Any]:
    case, serial, step = request["case"], request["serial"], request["step"]
    keys = [f"{serial}_{i}" for i in range(int(case.split("x")[0]))]
    count = request.get("fields")
    fields = [f"field_{i}" for i in range(count)] if count else None
    data = made_of(case, serial) if step == "put" or request.get("check") else None
    result = None
    begin = time.perf_counter_ns()
    if step == "put":
        tq.kv_batch_put(keys=keys, partition_id="bench", fields=data)
    elif step == "get":
        result = tq.kv_batch_get(keys=keys, partition_id="bench", select_fields=fields)
    else:
        tq.kv_clear(keys=keys, partition_id="bench")
    elapsed = time.perf_counter_ns() - begin
    if result is not None and data is not None:
        check(result, data.select(*fields) if fields else data)
    return {"ns": elapsed}


def main() -> None:
    backend, address = sys.argv[1:]
    ray.init("auto", _node_ip_address=address, log_to_driver=False)
    tq.init(configuration(backend))
    os.environ["BENCH_WORKER"] = f"{address}:{os.environ['BENCH_WORKER_PORT']}"
    keys = Keys()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "quit" in request:
            break
        is_of_keys = request["case"].startswith("keys")
        print(json.dumps((keys.run if is_of_keys else run)(request)), flush=True)
    tq.close()


if __name__ == "__main__":
    main()
