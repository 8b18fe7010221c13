"""A queue in a Ray cluster: found by the name of its actor, started on every node.

    actor TransferQueueController / transfer_queue    on the owner's node
    actors YuanrongWorkerActor                        on every node: _ray_workers.py

Nothing here is detached: all actors end with the owner. One that crashes is started
again by Ray and finds what it looks after where it was (`_actor_home`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import stat
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer_queue import _config, _session, _worker
from transfer_queue._actor_home import ActorHome
from transfer_queue._controller_process import Journal, Listen
from transfer_queue._ray_workers import (
    COMES_BACK,
    POLL_S,
    RayWorkers,
    alive_hosts,
    ask,
    own_node_id,
    quietly,
    with_own_worker,
)
from transfer_queue.controller import (
    ACTOR_NAME,
    ACTOR_NAMESPACE,
    Entry,
    TransferQueueController,
    end_controller_of,
)
from transfer_queue.utils.yuanrong_utils import (
    check_port_connectivity,
    split_address,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger("transfer_queue.session")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster to use. It is connected to by "auto", as a user would, for which
    Ray looks at RAY_ADDRESS and its own file."""

    description: str


def _bring_token() -> None:
    """Lets Ray show the user's token if there is one and RAY_AUTH_MODE is not set.

    `ray start` asks every client for a token once ~/.ray/auth_token exists, but a
    client that finds the cluster by RAY_ADDRESS does not bring it by itself; a cluster
    that asks for none takes no notice of it. This sets RAY_AUTH_MODE, as Ray does.
    """
    from ray import _raylet

    raylet: Any = _raylet
    if "RAY_AUTH_MODE" in os.environ:
        return
    if not hasattr(raylet, "AuthenticationTokenLoader"):  # A Ray without tokens.
        return
    loader = raylet.AuthenticationTokenLoader.instance()
    if loader.has_token(ignore_auth_mode=True):
        os.environ["RAY_AUTH_MODE"] = "token"
        raylet.Config.initialize("")  # Read before, when ray was imported.


class RayPlace:
    """The queue of one Ray cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def description(self) -> str:
        return f"Ray cluster ({self._cluster.description})"

    def attach(self, wait_s: float) -> _session.Session | None:
        self._connect()
        actor = _find_actor()
        return None if actor is None else self._attach_to(actor, wait_s)

    def attach_or_start(self, conf: DictConfig) -> _session.Session:
        import ray

        self._connect()
        wait_s = float(conf.controller.init_timeout_s)
        actor = _find_actor()
        if actor is not None:
            return self._attach_to(actor, wait_s)
        home = ActorHome()
        try:
            actor = _create_controller(conf, home)
        except ValueError:  # Another process was faster and has the name now.
            return self._attach_to(ray.get_actor(ACTOR_NAME, ACTOR_NAMESPACE), wait_s)
        return self._start(_Started(actor, RayWorkers(home, conf)), conf)

    def _connect(self) -> None:
        import ray

        if not ray.is_initialized():
            _bring_token()
            ray.init(address="auto", logging_level=logging.WARNING)

    def _attach_to(self, actor: Any, wait_s: float) -> _session.Session:
        end = time.monotonic() + wait_s
        own = own_node_id()
        entry: Entry | None = ask(actor.get_entry, own)
        while entry is None:
            if time.monotonic() >= end:
                pid, host = ask(actor.get_process)
                raise RuntimeError(
                    f"Waited {wait_s:.0f} s for {self.description}: another process's "
                    f"init() has not ended (its actor {ACTOR_NAME} is PID {pid} on "
                    f"{host}). controller.init_timeout_s sets this wait."
                )
            time.sleep(POLL_S)
            entry = ask(actor.get_entry, own)
        if entry.address is None:
            raise RuntimeError(
                "The TransferQueue controller serves its own node only, whose address "
                "in Ray is a loopback one. Start Ray there with --node-ip-address, or "
                "give the queue's owner controller.host, an address of its node."
            )
        return _session.Session(
            address=entry.address,
            config=entry.config,
            worker_addresses=with_own_worker(actor, entry.workers),
            place=self.description,
            secret=entry.secret,
            name=entry.name,
        )

    def _start(self, started: _Started, conf: DictConfig) -> _session.Session:
        actor = started.controller
        try:
            journal, listen = Journal.of(conf), _listen(conf)
            workers: list[tuple[str, str | None]] = []
            section = _config.backend_section(conf, "Yuanrong")
            worker_socket = None
            if conf.backend.storage_backend == "Yuanrong":
                if section.get("auto_init"):
                    workers = started.workers.start()
                    worker_socket = workers[0][1]
                else:
                    worker_socket = _worker.find_socket(section)
            address = ask(actor.start, worker_socket, journal, listen)
            session = _session.Session(
                address=address,
                config=conf,
                worker_addresses=tuple(worker for worker, _ in workers),
                place=self.description,
                end=started.end,
                secret=started.workers.home.secret,
            )
            _session.publish(session)
            ask(actor.store_config, conf, session.worker_addresses)
        except BaseException:
            started.end()
            raise
        return session


def find_cluster() -> Cluster | None:
    """An initialised Ray, RAY_ADDRESS, or a local cluster that this user started."""
    ray = sys.modules.get("ray")
    if ray is not None and getattr(ray, "is_initialized", lambda: False)():
        return Cluster("this process is connected to it")
    address = os.environ.get("RAY_ADDRESS", "")
    if address and address != "local":
        return Cluster(f"RAY_ADDRESS={address}")
    file = ray_address_file()
    found = _read_own_file(file)
    if found is None or not _answers(found):
        return None
    return Cluster(f"{found} by {file}")


def ray_address_file() -> Path:
    """Where `ray start` leaves the address of this machine's cluster."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    return Path(folder) / "ray" / "ray_current_cluster"


def _read_own_file(path: Path) -> str | None:
    """Its text, unless it is another user's: their cluster is not ours to join."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        entry = os.fstat(descriptor)
        if not stat.S_ISREG(entry.st_mode) or entry.st_uid != os.getuid():
            return None
        return file.read(256).strip() or None


def _answers(address: str) -> bool:
    try:
        host, port = split_address(address)
    except ValueError:
        return False
    return check_port_connectivity(host, port, timeout=1.0)


@dataclass(slots=True)
class _Started:
    """What the owner has started so far."""

    controller: Any
    workers: RayWorkers
    ended: bool = False

    def end(self) -> None:
        """Stop all of it, the last first. Logs instead of raising; idempotent."""
        import ray

        if self.ended:
            return
        self.ended = True
        if ray.is_initialized():
            self.workers.stop_late(self.controller)
            quietly("stop the controller", lambda: ask(self.controller.stop))
            self.workers.stop()
            quietly("end the controller's actor", partial(ray.kill, self.controller))
        else:
            _log.warning("Ray was shut down before close(): it ends the actors itself")
        # They do nothing where the actors did it; one that was killed did not.
        end_controller_of(self.workers.home)
        self.workers.stop_own()


def _find_actor() -> Any:
    import ray

    with contextlib.suppress(ValueError):
        return ray.get_actor(ACTOR_NAME, ACTOR_NAMESPACE)
    return None


def _create_controller(conf: DictConfig, home: ActorHome) -> Any:
    """On this process's node, where its socket is of use. ValueError: name taken."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node_id = own_node_id()
    return (
        ray.remote(TransferQueueController)
        .options(
            name=ACTOR_NAME,
            namespace=ACTOR_NAMESPACE,
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            **COMES_BACK,
        )
        .remote(
            conf.controller.get("sampler"), bool(conf.controller.polling_mode), home
        )
    )


def _listen(conf: DictConfig) -> Listen:
    """For other nodes, also later ones, unless Ray's address is a loopback one."""
    listen, host = Listen.of(conf), alive_hosts()[0]
    with contextlib.suppress(ValueError):  # A name: controller.host may say more.
        if listen.host is None and not ipaddress.ip_address(host).is_loopback:
            listen = replace(listen, host=host)
    return listen
