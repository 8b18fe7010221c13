"""What the programs of the histories share: clients that do this and that with a few
keys, each in a thread, and write down what they did."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any


class HistoryClient:
    """Kinds of operations are methods of its class: `_set`, `_get` and `_delete`, each
    returns the value and whether it is known what became of it.

    Owner of its events: its thread, until it has ended.
    """

    KEYS: int
    KINDS: Sequence[str]
    REST_S: float  # At most, between two operations.
    ERRORS: type[Exception]  # After which nobody knows what became of a change.

    def __init__(self, number: int) -> None:
        self.chance = random.Random(number)
        self.number = number
        self.count = 0
        self.events: list[list[Any]] = []

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            key = f"key{self.chance.randrange(self.KEYS)}"
            kind = self.chance.choice(self.KINDS)
            begin = time.monotonic()
            value, is_known = getattr(self, f"_{kind}")(key)
            end = time.monotonic() if is_known else None
            if is_known or kind != "get":
                self.events.append([key, kind, value, begin, end])
            time.sleep(self.chance.random() * self.REST_S)

    def next_value(self) -> int:
        """Nobody else's."""
        self.count += 1
        return self.number * 1_000_000 + self.count

    def attempt(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except self.ERRORS:
            return False
        return True


def run_clients(clients: Sequence[HistoryClient]) -> None:
    """Says "ready", goes on until a line is read, and prints all events."""
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
