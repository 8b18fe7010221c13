"""Somebody on the path to a port, who may change what passes.

    relay.py HOST PORT TO_HOST TO_PORT

One request a line, a JSON array; one answer a line, JSON.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading

from line_program import serve

_PIECE_BYTES = 1 << 16


class Program:
    def __init__(self, host: str, port: str, to_host: str, to_port: str) -> None:
        self._to = (to_host, int(to_port))
        self._change: tuple[str, int, int] | None = None
        self._listener = socket.create_server((host, int(port)))
        threading.Thread(target=self._accept, daemon=True).start()

    def change(self, way: str, offset: int, bits: int) -> None:
        """Of every connection from now on, in the byte that is so many behind the first
        of its way "there" or "back"."""
        self._change = (way, offset, bits)

    def leave_alone(self) -> None:
        self._change = None

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(self._to)
            for way, from_, to in (("there", client, server), ("back", server, client)):
                work = (way, from_, to, self._change)
                threading.Thread(target=self._pass_on, args=work, daemon=True).start()

    def _pass_on(
        self,
        way: str,
        from_: socket.socket,
        to: socket.socket,
        change: tuple[str, int, int] | None,
    ) -> None:
        done = 0
        with contextlib.suppress(OSError):
            while data := bytearray(from_.recv(_PIECE_BYTES)):
                if change is not None and change[0] == way:
                    at = change[1] - done
                    if 0 <= at < len(data):
                        data[at] ^= change[2]
                done += len(data)
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    serve(Program(*sys.argv[1:]))
