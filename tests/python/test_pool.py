"""Threads for the async functions."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from transfer_queue import _pool
from transfer_queue._pool import DaemonPool, run_in_pool


def test_results_and_errors_arrive() -> None:
    async def use() -> None:
        assert await run_in_pool(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await run_in_pool(lambda: 1 // 0)

    asyncio.run(use())


def test_a_waiting_call_does_not_hold_up_another() -> None:
    pool = DaemonPool()
    release = threading.Event()
    waiting = [pool.submit(release.wait) for _ in range(10)]
    assert pool.submit(lambda: 1).result(timeout=5) == 1
    release.set()
    assert all(future.result(timeout=5) for future in waiting)


def test_idle_threads_are_used_again() -> None:
    pool = DaemonPool()
    names = set()
    for _ in range(5):
        names.add(pool.submit(lambda: threading.current_thread().name).result())
        time.sleep(0.01)
    assert len(names) == 1


def test_no_more_threads_than_the_limit() -> None:
    pool = DaemonPool(threads_max=2)
    release = threading.Event()
    futures = [pool.submit(release.wait) for _ in range(5)]
    assert pool._threads == 2
    release.set()
    assert all(future.result(timeout=5) for future in futures)


def test_a_forked_child_has_a_pool_of_its_own() -> None:
    asyncio.run(run_in_pool(lambda: None))
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            outcome = 0 if asyncio.run(run_in_pool(lambda: 7)) == 7 else 1
        finally:
            os._exit(outcome)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert _pool._pool._threads > 0
