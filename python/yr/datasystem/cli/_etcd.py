"""Which worker has the metastore, where an etcd decides it.

Asked by etcd's HTTP gateway, without a login and without TLS.
"""

from __future__ import annotations

import base64
import json
import urllib.request
from http.client import HTTPException

TIMEOUT_S = 3.0


class EtcdError(Exception):
    """No etcd answered; says which was asked last, and why not."""


def find_metastore(addresses: str, cluster_name: str) -> str | None:
    """Its "host:port"; None: nobody has it. `addresses` have commas between them."""
    name = f"{cluster_name}/" if cluster_name else ""
    body = json.dumps({"key": _base64(f"/datasystem/{name}metastore")}).encode()
    # No proxy: nodes talk to each other directly.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    failure = "none was given"
    for address in filter(None, addresses.split(",")):
        try:
            with opener.open(
                f"http://{address}/v3/kv/range", body, timeout=TIMEOUT_S
            ) as reply:
                values = json.load(reply).get("kvs", [])
            return _address(values[0]["value"]) if values else None
        except (
            *(OSError, HTTPException, ValueError),
            *(LookupError, AttributeError, TypeError),
        ) as error:
            failure = f"etcd at {address}: {error}"
    raise EtcdError(failure)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _address(value: str) -> str:
    """It is followed by the worker's node id."""
    return base64.b64decode(value).decode().split()[0]
