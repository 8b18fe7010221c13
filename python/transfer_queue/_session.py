"""Where the queue is: finding it, attaching to it, or starting it.

Three kinds of places, tried in this order:

    a given address    controller.address or TQ_CONTROLLER_ADDRESS   attach only
    a Ray cluster      the actor TransferQueueController              _ray.py
    this user's node   a session folder of mode 0700                  _local.py

The one who starts a queue is its owner and the only one whose close() ends it. What an
attaching process needs to know, the owner leaves at the controller: see `publish`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from omegaconf import DictConfig

from transfer_queue import _config
from transfer_queue._deadline import Deadline
from transfer_queue._queue import QueueClient

_log = logging.getLogger("transfer_queue.session")

_CALL_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Session:
    """A queue that this process uses.

    `end` is there for the owner only and stops everything the owner started; it does
    not raise. `worker_addresses` are those of the nodes; empty: the user's own worker.
    `secret` is what the controller's key is made of; None: what the environment's
    DATASYSTEM_AUTH_KEY_FILE names, if it does. `name` is the queue's, where it is known
    before its controller was reached.
    """

    address: str
    config: DictConfig
    worker_addresses: tuple[str, ...]
    place: str
    end: Callable[[], None] | None = None
    secret: bytes | None = field(default=None, repr=False)
    name: str | None = None


class Place(Protocol):
    """Somewhere a queue can be."""

    @property
    def description(self) -> str: ...

    def attach(self, wait_s: float) -> Session | None:
        """The queue that is there; None when there is none, also after a wait for one
        whose start is under way."""

    def attach_or_start(self, conf: DictConfig) -> Session:
        """The queue that is there, or a new one owned by this process."""


class GivenAddress:
    """A controller that somebody else runs and names."""

    def __init__(self, address: str) -> None:
        self._address = address

    @property
    def description(self) -> str:
        return f"the controller at {self._address}"

    def attach(self, wait_s: float) -> Session:
        session = attach_at(self._address, wait_s, self.description)
        if session is None:
            raise RuntimeError(
                f"The TransferQueue controller at {self._address} has no configuration "
                f"yet, also after {wait_s:.0f} s: its owner's init() has not ended."
            )
        return session

    def attach_or_start(self, conf: DictConfig) -> Session:
        return self.attach(float(conf.controller.init_timeout_s))


def find_place(conf: DictConfig | None) -> Place:
    """The place to use, by configuration and surroundings."""
    from transfer_queue._local import LocalPlace
    from transfer_queue._ray import RayPlace, find_cluster

    address = None if conf is None else conf.controller.get("address")
    address = address or os.environ.get("TQ_CONTROLLER_ADDRESS")
    if address:
        return GivenAddress(str(address))
    cluster = find_cluster()
    if cluster is not None:
        return RayPlace(cluster)
    return LocalPlace()


def attach_at(address: str, wait_s: float, place: str) -> Session | None:
    """The queue of the controller at `address`; None if nothing was published there."""
    queue = QueueClient(address)
    try:
        deadline = Deadline.after(wait_s + _CALL_TIMEOUT_S)
        published = queue.config_get(wait_s, deadline)
    finally:
        queue.close()
    if published is None:
        return None
    content: dict[str, Any] = msgspec.msgpack.decode(published)
    return Session(
        address=address,
        config=_config.from_plain(content["config"]),
        worker_addresses=tuple(content["workers"]),
        place=place,
    )


def publish(session: Session) -> None:
    """Leave at the controller what others need in order to attach."""
    content = {
        "config": _config.to_plain(session.config),
        "workers": list(session.worker_addresses),
    }
    queue = QueueClient(session.address)
    try:
        encoded = msgspec.msgpack.encode(content)
        queue.config_set(encoded, Deadline.after(_CALL_TIMEOUT_S))
    finally:
        queue.close()
