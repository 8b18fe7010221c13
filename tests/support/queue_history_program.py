"""A program on one host of a cluster: several threads put, list and clear a few rows of
one queue.

    queue_history_program.py owner HOST PORT | attached CONTROLLER, then NUMBER

Answers "ready"; a line on its standard input ends it. Then it prints what its threads
did, a JSON list of [key, kind, value, begin, end]: `end` is null where nobody knows
what became of it. A row's value is a tag, which no lost node takes with it. A second
line lets it close the queue.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from history_clients import HistoryClient, run_clients

import transfer_queue as tq

THREADS = 3
PARTITION = "train"


class Client(HistoryClient):
    KEYS = 6
    KINDS = ("set", "set", "get", "get", "get", "delete")
    REST_S = 0.02
    ERRORS = RuntimeError

    def _set(self, key: str) -> tuple[int, bool]:
        value = self.next_value()
        return value, self.attempt(lambda: tq.kv_put(key, PARTITION, tag={"v": value}))

    def _delete(self, key: str) -> tuple[None, bool]:
        return None, self.attempt(lambda: tq.kv_clear([key], PARTITION))

    def _get(self, key: str) -> tuple[int | None, bool]:
        try:
            rows = tq.kv_list(PARTITION).get(PARTITION, {})
        except RuntimeError:
            return None, False
        return rows[key]["v"] if key in rows else None, True


def main(role: str, *words: str) -> None:
    section = {"auto_init": False, "worker_port": int(os.environ["TQ_WORKER_PORT"])}
    controller: dict[str, Any] = {"timeout_s": float(os.environ["TQ_TIMEOUT_S"])}
    if role == "owner":
        controller |= {"host": words[0], "port": int(words[1])}
    else:
        controller |= {"address": words[0]}
    tq.init({"controller": controller, "backend": {"Yuanrong": section}})
    first = int(words[-1]) * THREADS
    run_clients([Client(first + i) for i in range(THREADS)])
    sys.stdin.readline()
    tq.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
