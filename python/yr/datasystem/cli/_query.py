"""`dscli query`: one JSON document about a cluster."""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Sequence
from typing import Any

from yr.datasystem.cli._ask import ask_members, ask_worker
from yr.datasystem.cli._etcd import EtcdError, find_metastore
from yr.datasystem.cli._output import CommandError

SCHEMA_VERSION = "1.0"
TIMEOUT_MS = 5000
ERROR_BYTES_MAX = 1024
KEYS_MAX = 100_000
KEY_BYTES_MAX = 1 << 20
TOTAL_BYTES_MAX = 4 << 20


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
        members = _ask(backends, cluster_name)
        nodes = [_node(member) for member in members["nodes"]]
        document["status"] = "OK"
        document["topology_version"] = members["epoch"]
        if kind == "cluster":
            document["nodes"] = nodes
        else:
            document["routes"] = _routes(nodes, keys or ())
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
    address = _find_in_etcd(given[0], cluster_name) if backends[1] else given[0]
    try:
        answer = ask_worker(address, TIMEOUT_MS)
        members = ask_members(address, TIMEOUT_MS)
    except CommandError as error:
        raise QueryError("RPC unavailable", str(error)) from error
    if cluster_name and answer.get("cluster_name") != cluster_name:
        raise QueryError(
            "Key not found",
            f"no cluster '{cluster_name}' at {address}; it has "
            f"'{answer.get('cluster_name')}'",
        )
    if members["epoch"] == 0:
        raise QueryError(
            "Not ready",
            f"the metastore at {address} was started again and waits for the workers "
            "that it knew, for as long as their lease lasts at most",
        )
    return members


def _find_in_etcd(addresses: str, cluster_name: str) -> str:
    try:
        address = find_metastore(addresses, cluster_name)
    except EtcdError as error:
        raise QueryError("RPC unavailable", str(error)) from error
    if address is None:
        raise QueryError(
            "Key not found",
            f"no worker of cluster '{cluster_name}' has the metastore, says etcd at "
            f"{addresses}; it was lost less than 5 s ago, or none was started",
        )
    return address


def _refusal(text: str) -> QueryError:
    return QueryError("Invalid parameter", text)


def _node(member: dict[str, Any]) -> dict[str, Any]:
    return {
        "worker_address": member["worker_address"],
        "health": "HEALTHY",  # Who is not heard of is no member any more.
        "state": "ACTIVE",
        "hash_ranges": member["hash_ranges"],
    }


def _routes(
    nodes: Sequence[dict[str, Any]], keys: Sequence[str]
) -> list[dict[str, Any]]:
    """Which worker each key belongs to: one entry a worker, keys in their order."""
    encoded = [key.encode("utf-8", "surrogateescape") for key in keys]
    sizes = [len(key) for key in encoded]
    if len(sizes) > KEYS_MAX:
        raise _refusal(f"{len(sizes)} keys; at most {KEYS_MAX} are allowed")
    if max(sizes, default=0) > KEY_BYTES_MAX or sum(sizes) > TOTAL_BYTES_MAX:
        raise _refusal("keys are at most 1 MiB each and 4 MiB together")
    owner_of = _ring(nodes)
    routes: dict[str, list[str]] = {}
    for key, name in zip(encoded, keys, strict=True):
        routes.setdefault(owner_of(key), []).append(name)
    return [
        {"worker_address": address, "keys": names, "health": "HEALTHY"}
        for address, names in routes.items()
    ]


def _ring(nodes: Sequence[dict[str, Any]]) -> Callable[[bytes], str]:
    """A key's worker, by the ranges of positions that the nodes own."""
    from yr.datasystem._core import key_position

    ends = sorted(
        (int(text.rpartition(",")[2].rstrip("]")), str(node["worker_address"]))
        for node in nodes
        for text in node["hash_ranges"]
    )

    def owner_of(key: bytes) -> str:
        at = bisect.bisect_left(ends, (key_position(key), ""))
        return ends[at % len(ends)][1]

    return owner_of
