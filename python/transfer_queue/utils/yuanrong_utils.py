"""Finding the datasystem worker of this node."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any


def worker_port_of(config: Mapping[str, Any]) -> int:
    """`worker_port` of a Yuanrong section, checked."""
    port = config.get("worker_port")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError("Missing or invalid 'worker_port' in config")
    return port


def get_local_ip_addresses() -> list[str]:
    """This host's addresses: loopback first, then the host's own, then interfaces."""
    import psutil  # type: ignore[import-untyped,unused-ignore]

    addresses = ["127.0.0.1"]
    with contextlib.suppress(OSError):
        addresses.append(socket.gethostbyname(socket.gethostname()))
    for entries in psutil.net_if_addrs().values():
        addresses += [
            entry.address.split("%", 1)[0]
            for entry in entries
            if entry.family in (socket.AF_INET, socket.AF_INET6)
        ]
    return list(dict.fromkeys(addresses))


def check_port_connectivity(host: str, port: int, timeout: float = 2.0) -> bool:
    """True when something accepts connections there."""
    with contextlib.suppress(OSError):
        socket.create_connection((host, port), timeout=timeout).close()
        return True
    return False


def find_reachable_host(port: int, timeout: float = 1.0) -> str | None:
    """The first address of this host where something listens on `port`."""
    for host in get_local_ip_addresses():
        if check_port_connectivity(host, port, timeout):
            return host
    return None


def require_worker_host(port: int) -> str:
    host = find_reachable_host(port)
    if host is None:
        raise ValueError(
            f"Could not find any reachable host for Yuanrong port {port}. No "
            "datasystem worker listens there on this node: start one with `dscli start "
            f"-w --worker_address <IP>:{port} ...`, or set auto_init: True."
        )
    return host


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port``."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"'{address}' is not an address of the form host:port")
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
