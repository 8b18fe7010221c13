"""Every allocation of Python fails once, in every function of the extension.

    no_memory.py HOST PORT

In a process of its own: what happens then may be anything. Prints how often a call
failed, a line for each operation; anything but a MemoryError is a traceback.
"""

from __future__ import annotations

import _testcapi
import sys
from collections.abc import Callable

from yr.datasystem import BlockClient, KVClient
from yr.datasystem._core import copy_bytes

CALLS_MAX = 300  # More than any of these allocates.
VALUE = b"x" * 1000


def fail_each(operation: Callable[[], object]) -> int:
    """How many of its allocations let it fail. It must have succeeded before."""
    operation()
    failed = 0
    for nth in range(CALLS_MAX):
        _testcapi.set_nomemory(nth, nth + 1)
        try:
            operation()
        except MemoryError:
            failed += 1
        finally:
            _testcapi.remove_mem_hooks()
    operation()
    return failed


class Operations:
    """Everything that a client does. Owner: the program."""

    def __init__(self, host: str, port: int) -> None:
        self.client = KVClient(host, port)
        self.client.init()
        self.blocks = BlockClient(host, port, 5000, 5000)
        self.client.set("key", VALUE)

    def put(self) -> None:
        self.client.set("other", VALUE)

    def get(self) -> None:
        assert self.client.get(["key", "none"]) == [VALUE, None]

    def buffers(self) -> None:
        (buffer,) = self.client.get_buffers(["key"])
        assert buffer is not None
        assert bytes(memoryview(buffer)) == VALUE

    def reserve(self) -> None:
        buffers = self.client.mcreate(["a", "b"], [100, 200])
        for buffer in buffers:
            copy_bytes(buffer, bytes(len(memoryview(buffer))))
        self.client.mset_buffer(buffers)

    def look(self) -> None:
        assert self.client.exist(["key", "none"]) == [True, False]

    def delete(self) -> None:
        self.client.delete(["other", "none"])

    def view(self) -> None:
        (buffer,) = self.client.get_buffers(["key"])
        assert buffer is not None
        assert bytes(memoryview(buffer.view())) == VALUE

    def block(self) -> None:
        parts = self.blocks.block_create([100, 5000])
        block_id = self.blocks.block_seal(parts)
        (part,) = self.blocks.block_get([block_id], [1])
        assert len(memoryview(part)) == 5000
        self.blocks.block_delete([block_id])

    def ask(self) -> None:
        self.blocks.stats()
        self.blocks.holders()

    def close(self) -> None:
        self.client.delete(["key", "other", "a", "b"])
        self.client.close()
        self.blocks.close()


def main(host: str, port: str) -> None:
    does = Operations(host, int(port))
    for operation in (
        *(does.put, does.get, does.buffers, does.reserve, does.look),
        *(does.delete, does.view, does.block, does.ask),
    ):
        print(operation.__name__, fail_each(operation))
    does.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
