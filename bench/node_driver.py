"""TransferQueue on one node of a Ray cluster: run by bench/across_nodes.py.

    python node_driver.py BACKEND ADDRESS

The same program drives ours and the peer's transfer_queue. Requests and answers are
JSON lines. What a batch holds follows from its case and serial, so that either node
knows what the other has put:
    {"step": "put|get|clear", "case": "1024x10x128", "serial": n, "fields": n or null,
     "check": bool} -> {"ns": ...}

A get reads all its bytes after the clock was stopped, to check them where it shall.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import ray
import torch
from tensordict import TensorDict

import transfer_queue as tq
from kv_driver import batch, check, configuration


def made_of(case: str, serial: int) -> TensorDict:
    torch.manual_seed(serial)
    return batch(case)


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
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "quit" in request:
            break
        print(json.dumps(run(request)), flush=True)
    tq.close()


if __name__ == "__main__":
    main()
