"""TransferQueue behind a pipe: run as a subprocess by bench/run.py.

    python kv_driver.py BACKEND

The same program drives ours and the peer's transfer_queue: the API is the same.
Requests and answers are JSON lines:
    {"case": "1024x10x128", "operation": "put|get|get_all|clear", "rounds": n}
        -> {"ns": [...], "cpu_us": float}
    {"lifecycle": true} -> {"init_ns": ..., "close_ns": ...}

get reads the first and last row of every column inside the timed region; get_all reads
all bytes there. All bytes are checked outside it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

import torch
from omegaconf import OmegaConf
from tensordict import TensorDict

import transfer_queue as tq


def configuration(backend: str) -> Any:
    """Both sides get the same arena, and ports of their own."""
    yuanrong = {
        "worker_args": "--shared_memory_size_mb "
        + os.environ.get("BENCH_ARENA_MB", "4096"),
        "worker_port": int(os.environ["BENCH_WORKER_PORT"]),
        "metastore_port": int(os.environ["BENCH_METASTORE_PORT"]),
    }
    backends = {"storage_backend": backend, "Yuanrong": yuanrong}
    return OmegaConf.create({"backend": backends})


def batch(case: str) -> TensorDict:
    """ "rows x fields x length" of float32; "r" before the length makes it ragged."""
    rows_text, fields_text, length_text = case.split("x")
    rows, fields = int(rows_text), int(fields_text)
    columns: dict[str, torch.Tensor] = {}
    for i in range(fields):
        if length_text.startswith("r"):
            mean = int(length_text[1:])
            lengths = torch.randint(mean // 2, mean + mean // 2, (rows,))
            columns[f"field_{i}"] = torch.nested.as_nested_tensor(
                [torch.randn(int(n)) for n in lengths], layout=torch.jagged
            )
        else:
            columns[f"field_{i}"] = torch.randn(rows, int(length_text))
    return TensorDict(columns, batch_size=[rows])


def first_and_last(result: TensorDict) -> float:
    """Touches the first and the last row of every column."""
    total = 0.0
    for name in result.keys():
        column = result[name]
        values = column.values() if column.is_nested else column.reshape(-1)
        total += float(values[0]) + float(values[-1])
    return total


def read_all(result: TensorDict) -> float:
    """Reads every byte."""
    total = 0.0
    for name in result.keys():
        column = result[name]
        total += float((column.values() if column.is_nested else column).sum())
    return total


def check(result: TensorDict, sent: TensorDict) -> None:
    """Every row equals what was sent."""
    for name in sent.keys():
        got, want = result[name], sent[name]
        got_rows = got.unbind() if got.is_nested else list(got)
        want_rows = want.unbind() if want.is_nested else list(want)
        if len(got_rows) != len(want_rows):
            raise AssertionError(f"{name}: {len(got_rows)} rows")
        for a, b in zip(got_rows, want_rows, strict=True):
            if not torch.equal(a, b):
                raise AssertionError(f"{name}: a row came back wrong")


def cpu_us() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e6


class Bench:
    def __init__(self) -> None:
        self._serial = 0

    def _keys(self, rows: int) -> list[str]:
        self._serial += 1
        return [f"{self._serial}_{i}" for i in range(rows)]

    def _timed(self, work: Any, times: list[int]) -> float:
        before = cpu_us()
        begin = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - begin)
        return cpu_us() - before

    def run(self, case: str, operation: str, rounds: int) -> dict[str, Any]:
        data = batch(case)
        times: list[int] = []
        cpu = 0.0
        for _ in range(rounds):
            keys = self._keys(data.batch_size[0])

            def put(keys: list[str] = keys) -> None:
                tq.kv_batch_put(keys=keys, partition_id="bench", fields=data)

            def get(keys: list[str] = keys) -> None:
                result = tq.kv_batch_get(keys=keys, partition_id="bench")
                if operation != "get_only":
                    (read_all if operation == "get_all" else first_and_last)(result)

            def clear(keys: list[str] = keys) -> None:
                tq.kv_clear(keys=keys, partition_id="bench")

            for name, step in (("put", put), ("get", get), ("clear", clear)):
                if name == operation.partition("_")[0]:
                    cpu += self._timed(step, times)
                elif name != "get":
                    step()
                if name == "get" and not times[1:]:
                    check(tq.kv_batch_get(keys=keys, partition_id="bench"), data)
        return {"ns": times, "cpu_us": cpu / rounds}


def main() -> None:
    conf = configuration(sys.argv[1])
    begin = time.perf_counter_ns()
    tq.init(conf)
    init_ns = time.perf_counter_ns() - begin
    bench = Bench()
    print(json.dumps({"ready": True, "init_ns": init_ns}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "quit" in request:
            break
        answer = bench.run(request["case"], request["operation"], request["rounds"])
        print(json.dumps(answer), flush=True)
    begin = time.perf_counter_ns()
    tq.close()
    print(json.dumps({"close_ns": time.perf_counter_ns() - begin}), flush=True)


if __name__ == "__main__":
    main()
