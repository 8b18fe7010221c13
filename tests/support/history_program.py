"""A program on one host of a cluster: several clients set, get and delete a few keys.

    history_program.py HOST PORT NUMBER

Answers "ready"; a line on its standard input ends it. Then it prints what its clients
did, a JSON list of [key, kind, value, begin, end]: `end` is null where nobody knows
what became of it. A value is a number, as the first bytes of what is stored.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any

from yr.datasystem import KVClient

KEYS = 8
THREADS = 3
LOST = "is no member of the cluster any more"
NOT_FOUND = "Cannot get objects"
SIZES = (8, 8, 500, 5000, 200_000)


class Client:
    """Owner of its events: its thread, until it has ended."""

    def __init__(self, host: str, port: int, number: int) -> None:
        self.client = KVClient(
            host, port, connect_timeout_ms=9000, req_timeout_ms=12_000
        )
        self.client.init()
        self.chance = random.Random(number)
        self.number = number
        self.count = 0
        self.events: list[list[Any]] = []

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            key = f"key{self.chance.randrange(KEYS)}"
            kind = self.chance.choice(["set", "get", "get", "get", "delete"])
            begin = time.monotonic()
            value, is_known = getattr(self, f"_{kind}")(key)
            end = time.monotonic() if is_known else None
            if is_known or kind != "get":
                self.events.append([key, kind, value, begin, end])
            time.sleep(self.chance.random() * 0.004)

    def _set(self, key: str) -> tuple[int, bool]:
        self.count += 1
        value = self.number * 1_000_000 + self.count
        size = self.chance.choice(SIZES)
        return value, self._attempt(
            lambda: self.client.set(key, value.to_bytes(8, "little").ljust(size, b"."))
        )

    def _delete(self, key: str) -> tuple[None, bool]:
        return None, self._attempt(lambda: self.client.delete([key]))

    def _get(self, key: str) -> tuple[int | None, bool]:
        try:
            [value] = self.client.get([key])
        except Exception as error:
            return None, NOT_FOUND in str(error)
        assert isinstance(value, bytes)
        return int.from_bytes(value[:8], "little"), True

    def _attempt(self, call: Any) -> bool:
        try:
            call()
        except Exception:
            return False
        return True


def main(host: str, port: str, number: str) -> None:
    first = int(number) * THREADS
    clients = [Client(host, int(port), first + i) for i in range(THREADS)]
    stop = threading.Event()
    threads = [threading.Thread(target=c.run, args=(stop,)) for c in clients]
    for thread in threads:
        thread.start()
    print(json.dumps("ready"), flush=True)
    sys.stdin.readline()
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps([event for client in clients for event in client.events]))
    for client in clients:
        client.client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
