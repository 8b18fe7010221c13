"""Says to a port what a process without a key would say first.

    stranger.py HOST PORT

Prints a JSON array: for DISCOVER and for HELLO, each on a connection of its own, the
status and the text of the answer.
"""

from __future__ import annotations

import json
import socket
import sys

from raw_peer import DISCOVER, HEADER, HELLO, frame, hello_body


def say(address: tuple[str, int], kind: int, body: bytes) -> tuple[int, str]:
    with socket.create_connection(address, 10) as sock:
        sock.sendall(frame(kind, body))
        header = HEADER.unpack(sock.recv(HEADER.size, socket.MSG_WAITALL))
        text = sock.recv(header[4], socket.MSG_WAITALL)
    return header[2], text.decode("latin-1")


def main(host: str, port: str) -> None:
    first = ((DISCOVER, b""), (HELLO, hello_body()))
    print(json.dumps([say((host, int(port)), *words) for words in first]))


if __name__ == "__main__":
    main(*sys.argv[1:])
