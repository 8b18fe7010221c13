"""A program: a worker by dscli, a large value through it and back, and its end.

    one_worker.py HOST PORT [what dscli start shall get besides]

Prints "works", or fails with what was said. Tests run it in surroundings
that they have spoilt.
"""

from __future__ import annotations

import subprocess
import sys

from worker_process import free_port

from yr.datasystem import KVClient

MB = 1 << 20
ARENA_MB = 256
VALUE_MB = 100  # More than the small /dev/shm of the tests.


def dscli(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "yr.datasystem.cli", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"dscli {words[0]}: {done.stdout}{done.stderr}")


def store_and_read(host: str, port: int) -> None:
    value = bytes(range(256)) * (VALUE_MB * MB // 256)
    with KVClient(host, port) as client:
        client.set("large", value)
        (buffer,) = client.get_buffers(["large"])
        assert buffer is not None
        assert memoryview(buffer) == value
        del buffer
        client.delete(["large"])


def main(host: str, port: str, *flags: str) -> None:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    dscli(
        *("start", "-t", "20", *flags, "-w", "--worker_address", address),
        *("--metastore_address", f"127.0.0.1:{free_port()}"),
        *("--start_metastore_service", "true"),
        *("--shared_memory_size_mb", str(ARENA_MB)),
    )
    try:
        store_and_read(host, int(port))
    finally:
        dscli("stop", "--worker_address", address)
    print("works")


if __name__ == "__main__":
    main(*sys.argv[1:])
