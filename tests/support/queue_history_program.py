"""A program on one host of a cluster: several threads put, list and clear a few rows of
one queue.

    queue_history_program.py owner HOST PORT | attached CONTROLLER, then NUMBER

Answers "ready"; a line on its standard input ends it. Then it prints what its threads
did, a JSON list of [key, kind, value, begin, end]: `end` is null where nobody knows
what became of it. A row's value is a tag, which no lost node takes with it. A second
line lets it close the queue.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from typing import Any

import transfer_queue as tq

KEYS = 6
THREADS = 3
PARTITION = "train"


class Client:
    """Owner of its events: its thread, until it has ended."""

    def __init__(self, number: int) -> None:
        self.chance = random.Random(number)
        self.number = number
        self.count = 0
        self.events: list[list[Any]] = []

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            key = f"key{self.chance.randrange(KEYS)}"
            kind = self.chance.choice(["set", "set", "get", "get", "get", "delete"])
            begin = time.monotonic()
            value, is_known = getattr(self, f"_{kind}")(key)
            end = time.monotonic() if is_known else None
            if is_known or kind != "get":
                self.events.append([key, kind, value, begin, end])
            time.sleep(self.chance.random() * 0.02)

    def _set(self, key: str) -> tuple[int, bool]:
        self.count += 1
        value = self.number * 1_000_000 + self.count
        return value, self._attempt(lambda: tq.kv_put(key, PARTITION, tag={"v": value}))

    def _delete(self, key: str) -> tuple[None, bool]:
        return None, self._attempt(lambda: tq.kv_clear([key], PARTITION))

    def _get(self, key: str) -> tuple[int | None, bool]:
        try:
            rows = tq.kv_list(PARTITION).get(PARTITION, {})
        except RuntimeError:
            return None, False
        return rows[key]["v"] if key in rows else None, True

    def _attempt(self, call: Any) -> bool:
        try:
            call()
        except RuntimeError:
            return False
        return True


def run(number: int) -> None:
    clients = [Client(number * THREADS + i) for i in range(THREADS)]
    stop = threading.Event()
    threads = [threading.Thread(target=c.run, args=(stop,)) for c in clients]
    for thread in threads:
        thread.start()
    print(json.dumps("ready"), flush=True)
    sys.stdin.readline()
    stop.set()
    for thread in threads:
        thread.join()
    events = [event for client in clients for event in client.events]
    print(json.dumps(events), flush=True)


def main(role: str, *words: str) -> None:
    section = {"auto_init": False, "worker_port": int(os.environ["TQ_WORKER_PORT"])}
    controller: dict[str, Any] = {"timeout_s": float(os.environ["TQ_TIMEOUT_S"])}
    if role == "owner":
        controller |= {"host": words[0], "port": int(words[1])}
    else:
        controller |= {"address": words[0]}
    tq.init({"controller": controller, "backend": {"Yuanrong": section}})
    run(int(words[-1]))
    sys.stdin.readline()
    tq.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
