"""Asking a worker for its counters over its port."""

from __future__ import annotations

import json
from typing import Any

from yr.datasystem.cli._config import split_address
from yr.datasystem.cli._output import CommandError

TIMEOUT_MS = 2000


def ask_worker(address: str, timeout_ms: int = TIMEOUT_MS) -> dict[str, Any]:
    """The worker's statistics; CommandError says why there are none."""
    from yr.datasystem._core import Client, DatasystemError

    host, port = split_address(address)
    try:
        client = Client(host, port, timeout_ms, timeout_ms, True)
        try:
            answer = json.loads(client.stats())
        finally:
            client.close()
    except DatasystemError as error:
        raise CommandError(f"no answer from a worker at {address}: {error}") from error
    if not isinstance(answer, dict):
        raise CommandError(f"what answers at {address} is no datasystem worker")
    return answer
