"""Asking a worker for its counters over its port."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from yr.datasystem.cli._config import split_address
from yr.datasystem.cli._output import CommandError

if TYPE_CHECKING:
    from yr.datasystem._core import Client

TIMEOUT_MS = 2000


def ask_worker(address: str, timeout_ms: int = TIMEOUT_MS) -> dict[str, Any]:
    """The worker's statistics; CommandError says why there are none."""
    answer = _ask(address, timeout_ms, lambda client: client.stats())
    if not isinstance(answer, dict):
        raise CommandError(f"what answers at {address} is no datasystem worker")
    return answer


def ask_holders(address: str, timeout_ms: int = TIMEOUT_MS) -> list[dict[str, Any]]:
    """Who keeps room from being free, most first; CommandError as above."""
    holders: list[dict[str, Any]] = _ask(
        address, timeout_ms, lambda client: client.holders()
    )
    return holders


def ask_members(address: str, timeout_ms: int = TIMEOUT_MS) -> dict[str, Any]:
    """Who belongs to the cluster of the metastore there; CommandError as above."""
    members: dict[str, Any] = _ask(address, timeout_ms, lambda client: client.members())
    return members


def ask_to_leave(address: str, action: int, timeout_ms: int) -> dict[str, Any]:
    """How far the worker is with leaving its cluster; CommandError as above."""
    progress: dict[str, Any] = _ask(
        address, timeout_ms, lambda client: client.leave(action)
    )
    return progress


def _ask(address: str, timeout_ms: int, question: Callable[[Client], str]) -> Any:
    from yr.datasystem._core import Client, DatasystemError

    host, port = split_address(address)
    try:
        client = Client(host, port, timeout_ms, timeout_ms, True)
        try:
            return json.loads(question(client))
        finally:
            client.close()
    except DatasystemError as error:
        raise CommandError(f"no answer from a worker at {address}: {error}") from error
