"""Threads in which the async functions run their blocking twins.

The pool belongs to the process, not to an event loop, so any number of loops, also
short-lived ones, can use it. Its threads are daemons: a program that ends while a call
waits is not held up by it. A forked child starts with an empty pool of its own.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

_Result = TypeVar("_Result")
_Task = tuple["Future[Any]", Callable[[], Any]]

_THREADS_MAX = 64


class DaemonPool:
    """Grows by a thread when a call finds none idle, up to a limit; never shrinks.

    Shared: `_tasks` is thread-safe, the counts are guarded by `_lock`.
    """

    def __init__(self, threads_max: int = _THREADS_MAX) -> None:
        self._threads_max = threads_max
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0

    def submit(self, call: Callable[[], _Result]) -> Future[_Result]:
        from concurrent.futures import Future

        future: Future[_Result] = Future()
        with self._lock:
            self._unfinished += 1
            grow = self._unfinished > self._threads < self._threads_max
            if grow:
                self._threads += 1
                number = self._threads
        if grow:
            threading.Thread(
                target=self._work, name=f"transfer_queue-{number}", daemon=True
            ).start()
        self._tasks.put((future, call))
        return future

    def _work(self) -> None:
        while True:
            future, call = self._tasks.get()
            if future.set_running_or_notify_cancel():
                _resolve(future, call)
            with self._lock:
                self._unfinished -= 1
            del (
                future,
                call,
            )  # Results must not outlive their readers in an idle thread.


def _resolve(future: Future[Any], call: Callable[[], Any]) -> None:
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


_pool = DaemonPool()


def _start_anew_in_child() -> None:
    global _pool
    _pool = DaemonPool()


os.register_at_fork(after_in_child=_start_anew_in_child)


async def run_in_pool(call: Callable[[], _Result]) -> _Result:
    """Await `call()` without blocking the running loop."""
    import asyncio  # Whoever awaits has it; init() and the others do without.

    return await asyncio.wrap_future(_pool.submit(call))
