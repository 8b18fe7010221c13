"""`dscli query`: one JSON document about a cluster. Today a cluster has one node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from yr.datasystem.cli._ask import ask_worker
from yr.datasystem.cli._output import CommandError

SCHEMA_VERSION = "1.0"
TIMEOUT_MS = 5000
ERROR_BYTES_MAX = 1024
KEYS_MAX = 100_000
KEY_BYTES_MAX = 1 << 20
TOTAL_BYTES_MAX = 4 << 20
WHOLE_RING = "[0,4294967295]"


class QueryError(Exception):
    """Why there is no answer; `status` is the word for it in the document."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


def run(
    kind: str, backends: Sequence[str], cluster_name: str, keys: Sequence[str] | None
) -> int:
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "cluster_name": cluster_name,
    }
    try:
        answer = _ask(backends, cluster_name)
        document["status"] = "OK"
        document["topology_version"] = 1
        if kind == "cluster":
            document["nodes"] = [_node(answer)]
        else:
            document["routes"] = [_route(answer, keys or ())]
    except QueryError as error:
        document = {
            "schema_version": SCHEMA_VERSION,
            "cluster_name": cluster_name,
            "status": error.status,
            "error": str(error)[:ERROR_BYTES_MAX],
        }
    print(json.dumps(document))
    return 0 if document["status"] == "OK" else 1


def _ask(backends: Sequence[str], cluster_name: str) -> dict[str, Any]:
    given = [address for address in backends if address]
    if len(given) != 1:
        raise _refusal("exactly one coordination backend address is required")
    if backends[-1]:
        raise _refusal("there is no coordinator here; give --metastore_address")
    try:
        answer = ask_worker(given[0], TIMEOUT_MS)
    except CommandError as error:
        raise QueryError("RPC unavailable", str(error)) from error
    if cluster_name and answer.get("cluster_name") != cluster_name:
        raise QueryError(
            "Key not found",
            f"no cluster '{cluster_name}' at {given[0]}; it has "
            f"'{answer.get('cluster_name')}'",
        )
    return answer


def _refusal(text: str) -> QueryError:
    return QueryError("Invalid parameter", text)


def _node(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "worker_address": answer["worker_address"],
        "health": answer["state"],
        "state": "LEAVING" if answer["state"] == "DRAINING" else "ACTIVE",
        "hash_ranges": [WHOLE_RING],
    }


def _route(answer: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    sizes = [len(key.encode("utf-8", "surrogateescape")) for key in keys]
    if len(sizes) > KEYS_MAX:
        raise _refusal(f"{len(sizes)} keys; at most {KEYS_MAX} are allowed")
    if max(sizes, default=0) > KEY_BYTES_MAX or sum(sizes) > TOTAL_BYTES_MAX:
        raise _refusal("keys are at most 1 MiB each and 4 MiB together")
    return {
        "worker_address": answer["worker_address"],
        "keys": list(keys),
        "health": answer["state"],
    }
