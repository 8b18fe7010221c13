"""What the drop-in test has the reference do, the unmodified TransferQueue.

Runs in an environment where `transfer_queue` is the reference, on a Ray cluster of the
test's own. Prints one JSON line per case: its name and null, or the traceback.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import ray
import torch
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict

import transfer_queue as tq
import yr.datasystem

WORKER_PORT = int(os.environ["TQ_TEST_WORKER_PORT"])
MEMORY_MB = 384  # Less than the large batch takes if it is put and not freed.


def start() -> None:
    section = {
        "worker_port": WORKER_PORT,
        "metastore_port": int(os.environ["TQ_TEST_METASTORE_PORT"]),
        "worker_args": f"--shared_memory_size_mb {MEMORY_MB}",
    }
    backend = {"storage_backend": "Yuanrong", "Yuanrong": section}
    tq.init(OmegaConf.create({"backend": backend}))


def rows_of(column: Any) -> list[Any]:
    if isinstance(column, torch.Tensor):
        return list(column.unbind(0))
    return list(column)


def equal(left: Any, right: Any) -> bool:
    if not isinstance(right, torch.Tensor):
        return type(left) is type(right) and bool(left == right)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return bool(left.view(torch.uint8).equal(right.view(torch.uint8)))


def put_and_compare(partition: str, fields: TensorDict) -> list[str]:
    keys = [f"{partition}_{row}" for row in range(fields.batch_size[0])]
    tq.kv_batch_put(keys=keys, partition_id=partition, fields=fields)
    got = tq.kv_batch_get(keys=keys, partition_id=partition)
    assert set(got.keys()) == set(fields.keys()), list(got.keys())
    for name in fields.keys():
        was, now = rows_of(fields[name]), rows_of(got[name])
        assert len(was) == len(now), name
        for row, (expected, found) in enumerate(zip(was, now, strict=True)):
            assert equal(found, expected), f"{name}[{row}]: {found!r}, {expected!r}"
    return keys


def random_fields(rows: int, fields: int, values: int) -> TensorDict:
    columns = {f"f{column}": torch.randn(rows, values) for column in range(fields)}
    return TensorDict(columns, batch_size=[rows])


def expect_not_found(keys: list[str], partition: str) -> None:
    try:
        tq.kv_batch_get(keys=keys, partition_id=partition)
    except ValueError as error:
        assert "keys or partition were not found" in str(error), error
    else:
        raise AssertionError(f"{keys} of {partition} were found")


# ---- Cases ---------------------------------------------------------------------------


def the_reference_runs_on_our_sdk() -> None:
    assert tq.__version__ == "0.1.11", tq.__version__
    assert "dev" in yr.datasystem.__version__, yr.datasystem.__version__


def demo() -> None:
    put_and_compare("train", TensorDict({"input": torch.randn(2, 10)}, batch_size=[2]))


def small_rows() -> None:
    put_and_compare("small", random_fields(1024, 10, 128))


def large_rows_are_freed_by_clear() -> None:
    for _ in range(4):
        keys = put_and_compare("large", random_fields(16, 2, 1 << 20))
        tq.kv_clear(keys=keys, partition_id="large")


def ragged() -> None:
    parts = [torch.arange(length) for length in range(1, 65)]
    column = torch.nested.as_nested_tensor(parts, layout=torch.jagged)
    put_and_compare("ragged", TensorDict({"tokens": column}, batch_size=[64]))


def objects() -> None:
    texts = NonTensorStack("", "text", "\N{SNOWMAN}" * 1000, "last")
    mixed = NonTensorStack({"a": [1, None]}, {"b": b"\0" * 70000}, {}, {"c": 2.5})
    fields = TensorDict({"text": texts, "object": mixed}, batch_size=[4])
    put_and_compare("objects", fields)


def dtypes() -> None:
    columns = {
        "bfloat16": torch.randn(8, 5).to(torch.bfloat16),
        "bool": torch.randn(8, 3) > 0,
        "int8": torch.arange(80, dtype=torch.int8).reshape(8, 10),
        "float64": torch.randn(8, 2, 3, dtype=torch.float64),
    }
    put_and_compare("dtypes", TensorDict(columns, batch_size=[8]))


def missing_key() -> None:
    expect_not_found(["nobody"], "train")
    expect_not_found(["train_0"], "nowhere")


def clear() -> None:
    keys = put_and_compare("cleared", random_fields(4, 1, 16))
    tq.kv_clear(keys=keys[:2], partition_id="cleared")
    expect_not_found(keys[:2], "cleared")
    left = tq.kv_batch_get(keys=keys[2:], partition_id="cleared")
    assert left.batch_size[0] == 2, left
    assert set(tq.kv_list(partition_id="cleared")["cleared"]) == set(keys[2:])


def other_process() -> None:
    fields = random_fields(8, 1, 1000)
    keys = put_and_compare("shared", fields)

    @ray.remote(num_cpus=1)
    def read() -> list[torch.Tensor]:
        tq.init()
        return rows_of(tq.kv_batch_get(keys=keys, partition_id="shared")["f0"])

    result: Any = ray.get(read.remote())
    for found, expected in zip(result, fields["f0"], strict=True):
        assert equal(found, expected)


def close() -> None:
    tq.close()
    client = yr.datasystem.KVClient("127.0.0.1", WORKER_PORT, connect_timeout_ms=500)
    try:
        client.init()
    except RuntimeError:
        pass
    else:
        raise AssertionError("the worker still serves after close")
    end = time.monotonic() + 10
    while states := placement_groups():
        assert time.monotonic() < end, f"placement groups were left: {states}"
        time.sleep(0.1)


def placement_groups() -> list[str]:
    table = ray.util.placement_group_table().values()
    return [group["state"] for group in table if group["state"] != "REMOVED"]


CASES: list[Callable[[], None]] = [
    the_reference_runs_on_our_sdk,
    demo,
    small_rows,
    large_rows_are_freed_by_clear,
    ragged,
    objects,
    dtypes,
    missing_key,
    clear,
    other_process,
    close,
]


def main() -> None:
    start()
    for case in CASES:
        failure = None
        try:
            case()
        except Exception:
            failure = traceback.format_exc()
        print("CASE " + json.dumps([case.__name__, failure]), flush=True)


if __name__ == "__main__":
    main()
