"""Somebody on the path of one host, who reads all that passes there.

    sniffer.py INTERFACE

One request a line, a JSON array; one answer a line, JSON.
"""

from __future__ import annotations

import socket
import sys
import threading

from line_program import serve

_ALL_PROTOCOLS = 3
_PACKET_BYTES_MAX = 1 << 17
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 128 << 20


class Program:
    def __init__(self, interface: str) -> None:
        self._packets: list[bytes] = []
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS)
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((interface, 0))
        threading.Thread(target=self._read, daemon=True).start()

    def seen(self, text: str) -> bool:
        """Whether it passed in one piece."""
        wanted = bytes.fromhex(text)
        return any(wanted in packet for packet in list(self._packets))

    def bytes_seen(self) -> int:
        return sum(map(len, list(self._packets)))

    def _read(self) -> None:
        while True:
            self._packets.append(self._socket.recv(_PACKET_BYTES_MAX))


if __name__ == "__main__":
    serve(Program(*sys.argv[1:]))
