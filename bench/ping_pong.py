"""The round trip of one byte over TCP: run twice by bench/across_nodes.py.

ping_pong.py HOST        answers one connection; prints its port
ping_pong.py HOST PORT   for each line "COUNT" asks so often, and prints the median in
                         nanoseconds
"""

from __future__ import annotations

import socket
import statistics
import sys
import time


def answer(host: str) -> None:
    with socket.create_server((host, 0)) as server:
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while byte := connection.recv(1):
                connection.sendall(byte)


def ask(host: str, port: int) -> None:
    with socket.create_connection((host, port), 30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for line in sys.stdin:
            times = [round_trip_ns(connection) for _ in range(int(line))]
            print(statistics.median_low(times), flush=True)


def round_trip_ns(connection: socket.socket) -> int:
    begin = time.perf_counter_ns()
    connection.sendall(b"x")
    connection.recv(1)
    return time.perf_counter_ns() - begin


if __name__ == "__main__":
    if len(sys.argv) == 2:
        answer(sys.argv[1])
    else:
        ask(sys.argv[1], int(sys.argv[2]))
