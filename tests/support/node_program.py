"""A user of the queue on one host of a cluster, who is told what to do.

    node_program.py owner HOST PORT | attached CONTROLLER

One request a line, a JSON array; one answer a line, JSON: the result, or
{"error": text, "seconds": how long it took}. The value of a row follows from its key
and a version, so any host can tell whether what it reads is right.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

import transfer_queue as tq
from transfer_queue._deadline import Deadline

PARTITION = "train"


def row(key: str, version: int, items: int) -> np.ndarray[Any, Any]:
    """Different for every key and version."""
    seed = np.uint32(zlib.crc32(f"{key} {version}".encode()))
    return (np.arange(items, dtype=np.uint32) * np.uint32(2654435761) + seed).view("i4")


class Program:
    def __init__(self, conf: dict[str, Any]) -> None:
        tq.init(conf)

    def put(self, keys: list[str], version: int, items: int) -> None:
        """Rows of one field of `items` numbers, and one of the version alone."""
        values = np.stack([row(key, version, items) for key in keys])
        fields = {
            "value": torch.from_numpy(values),
            "version": torch.full((len(keys),), version),
        }
        tq.kv_batch_put(keys, PARTITION, TensorDict(fields, batch_size=[len(keys)]))

    def put_for(self, name: str, seconds: float, items: int) -> int:
        """One row after the other; the number of those that were put is their last
        version as well."""
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            self.put([f"{name}-{count}"], count, items)
            count += 1
        return count

    def versions(self, keys: list[str], items: int) -> list[int]:
        """Of all rows; each value is compared with what its version must have."""
        data = tq.kv_batch_get(keys, PARTITION)
        found = [int(version) for version in data["version"]]
        for key, version, value in zip(
            keys, found, data["value"].unbind(), strict=True
        ):
            assert np.array_equal(value.numpy(), row(key, version, items)), key
        return found

    def select(self, keys: list[str], field: str) -> int:
        return len(tq.kv_batch_get(keys, PARTITION, select_fields=[field])[field])

    def keys(self) -> list[str]:
        return sorted(tq.kv_list(PARTITION).get(PARTITION, {}))

    def clear(self, keys: list[str]) -> None:
        tq.kv_clear(keys, PARTITION)

    def queue_name(self) -> str:
        queue = tq.get_client()._queue
        return queue.place(Deadline.after(10))[0]

    def close(self) -> None:
        tq.close()


def main(role: str, *where: str) -> None:
    section = {"auto_init": False, "worker_port": int(os.environ["TQ_WORKER_PORT"])}
    if os.environ.get("TQ_ENCRYPT_CONNECTIONS"):
        section["encrypt_connections"] = True
    controller: dict[str, Any] = {"timeout_s": float(os.environ["TQ_TIMEOUT_S"])}
    if role == "owner":
        controller |= {"host": where[0], "port": int(where[1])}
    else:
        controller |= {"address": where[0]}
    conf = {"controller": controller, "backend": {"Yuanrong": section}}
    program = Program(conf)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        started = time.monotonic()
        answer: Any
        try:
            answer = getattr(program, name)(*arguments)
        except (RuntimeError, ValueError) as error:
            answer = {"error": str(error), "seconds": time.monotonic() - started}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
