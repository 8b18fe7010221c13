"""A program on one host of a cluster: several clients set, get and delete a few keys.

    history_program.py HOST PORT NUMBER

Answers "ready"; a line on its standard input ends it. Then it prints what its clients
did, a JSON list of [key, kind, value, begin, end]: `end` is null where nobody knows
what became of it. A value is a number, as the first bytes of what is stored.
"""

from __future__ import annotations

import sys

from history_clients import HistoryClient, run_clients

from yr.datasystem import KVClient

THREADS = 3
NOT_FOUND = "Cannot get objects"
SIZES = (8, 8, 500, 5000, 200_000)


class Client(HistoryClient):
    KEYS = 8
    KINDS = ("set", "get", "get", "get", "delete")
    REST_S = 0.004
    ERRORS = Exception

    def __init__(self, host: str, port: int, number: int) -> None:
        super().__init__(number)
        self.client = KVClient(
            host, port, connect_timeout_ms=9000, req_timeout_ms=12_000
        )
        self.client.init()

    def _set(self, key: str) -> tuple[int, bool]:
        value = self.next_value()
        size = self.chance.choice(SIZES)
        return value, self.attempt(
            lambda: self.client.set(key, value.to_bytes(8, "little").ljust(size, b"."))
        )

    def _delete(self, key: str) -> tuple[None, bool]:
        return None, self.attempt(lambda: self.client.delete([key]))

    def _get(self, key: str) -> tuple[int | None, bool]:
        try:
            [value] = self.client.get([key])
        except Exception as error:
            return None, NOT_FOUND in str(error)
        assert isinstance(value, bytes)
        return int.from_bytes(value[:8], "little"), True


def main(host: str, port: str, number: str) -> None:
    first = int(number) * THREADS
    clients = [Client(host, int(port), first + i) for i in range(THREADS)]
    run_clients(clients)
    for client in clients:
        client.client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
