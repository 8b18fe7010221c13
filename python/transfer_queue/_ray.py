"""A queue in a Ray cluster: found by the name of its actor, started on every node.

    actor TransferQueueController / transfer_queue    on the owner's node
    placement group, STRICT_SPREAD                    one bundle per alive node
        actor YuanrongWorkerActor                     runs dscli on its node

Nothing here is detached: all actors end with the owner. One that crashes is started
again by Ray and finds what it looks after where it was (`_actor_home`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer_queue import _config, _session, _worker
from transfer_queue._actor_home import ActorHome
from transfer_queue._controller_process import Journal, Listen
from transfer_queue._deadline import Deadline
from transfer_queue.controller import (
    ACTOR_NAME,
    ACTOR_NAMESPACE,
    TransferQueueController,
    end_controller_of,
)
from transfer_queue.utils.yuanrong_utils import (
    check_port_connectivity,
    get_local_ip_addresses,
    join_address,
    split_address,
    worker_port_of,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger("transfer_queue.session")

_CALL_TIMEOUT_S = 30.0
_GROUP_TIMEOUT_S = 60.0
_WORKER_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 75.0
_POLL_S = 0.1
_CPU_PER_NODE = 0.1
_COMES_BACK = {"max_restarts": -1, "max_task_retries": -1}


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


class YuanrongWorkerActor:
    """Looks after the datasystem worker of one node.

    Its methods may run twice: Ray repeats a call whose answer died with the actor.
    """

    def __init__(
        self, node_ips: Sequence[str], section: dict[str, Any], home: ActorHome
    ) -> None:
        local = set(get_local_ip_addresses())
        own = [address for address in node_ips if address in local]
        if not own:
            raise RuntimeError(
                f"none of the Ray nodes' addresses {list(node_ips)} is one of this "
                f"host's ({sorted(local)})"
            )
        self._host = own[0]
        self._head = node_ips[0]
        self._section = section
        self._home = home

    def get_host(self) -> str:
        return self._host

    def start(self) -> tuple[str, str | None]:
        """Start the worker, unless it runs already; its address, and its Unix socket
        for a local controller."""
        owner = self._home.owner_text
        folder = self._home.make_folder(_worker_folder(self._host))
        plan = _worker.plan_for(self._section, self._host, self._head, owner, folder)
        if not _worker.is_worker_of(plan.address, owner):
            _worker.start_worker(plan)
        return plan.address, _worker.find_socket(self._section, self._host)

    def stop(self) -> None:
        _end_worker_of(self._home, self._section, self._host)


def _worker_folder(host: str) -> str:
    """Two of Ray's nodes may be on one machine."""
    return f"worker-{host.replace(':', '_')}"


def _end_worker_of(home: ActorHome, section: dict[str, Any], host: str) -> None:
    """What stop() does, also for an owner on the same node whose actor is gone."""
    address = join_address(host, worker_port_of(section))
    _worker.stop_worker_of(address, home.owner_text)
    shutil.rmtree(home.folder(_worker_folder(host)), ignore_errors=True)


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
        return self._start(_Started(home, actor, conf), conf)

    def _connect(self) -> None:
        import ray

        if not ray.is_initialized():
            _bring_token()
            ray.init(address="auto", logging_level=logging.WARNING)

    def _attach_to(self, actor: Any, wait_s: float) -> _session.Session:
        end = time.monotonic() + wait_s
        config = _ask(actor.get_config)
        while config is None:
            if time.monotonic() >= end:
                pid, host = _ask(actor.get_process)
                raise RuntimeError(
                    f"Waited {wait_s:.0f} s for {self.description}: another process's "
                    f"init() has not ended (its actor {ACTOR_NAME} is PID {pid} on "
                    f"{host}). controller.init_timeout_s sets this wait."
                )
            time.sleep(_POLL_S)
            config = _ask(actor.get_config)
        address = _ask(actor.get_address)
        workers = _with_own_worker(actor, config)
        if _ask(actor.get_node_id) != _own_node_id():
            address = _ask(actor.get_tcp_address)
        if address is None:
            raise RuntimeError(
                "The TransferQueue controller serves its own node only, whose address "
                "in Ray is a loopback one. Start Ray there with --node-ip-address, or "
                "give the queue's owner controller.host, an address of its node."
            )
        return _session.Session(address, config, tuple(workers), self.description)

    def _start(self, started: _Started, conf: DictConfig) -> _session.Session:
        actor = started.controller
        try:
            journal, listen = Journal.of(conf), _listen(conf)
            workers: list[tuple[str, str | None]] = []
            section = _config.backend_section(conf, "Yuanrong")
            worker_socket = None
            if conf.backend.storage_backend == "Yuanrong":
                if section.get("auto_init"):
                    workers = _start_workers(started, section)
                    worker_socket = workers[0][1]
                else:
                    worker_socket = _worker.find_socket(section)
            address = _ask(actor.start, worker_socket, journal, listen)
            session = _session.Session(
                address=address,
                config=conf,
                worker_addresses=tuple(worker for worker, _ in workers),
                place=self.description,
                end=started.end,
            )
            _session.publish(session)
            _ask(actor.store_config, conf, session.worker_addresses)
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
    """What the owner has started so far, in the order of starting."""

    home: ActorHome
    controller: Any
    conf: DictConfig
    section: dict[str, Any] = field(default_factory=dict)  # Of its workers.
    hosts: list[str] = field(default_factory=list)
    worker_actors: list[Any] = field(default_factory=list)
    group: Any = None
    ended: bool = False

    def end(self) -> None:
        """Stop all of it, the last first. Logs instead of raising; idempotent."""
        import ray

        if self.ended:
            return
        self.ended = True
        if ray.is_initialized():
            self._end_actors()
        else:
            _log.warning("Ray was shut down before close(): it ends the actors itself")
        # They do nothing where the actors did it; one that was killed did not.
        end_controller_of(self.home)
        for host in self.hosts[:1]:
            _end_worker_of(self.home, self.section, host)

    def _end_actors(self) -> None:
        import ray

        if self.hosts:
            late = partial(_stop_late_workers, self.controller, self)
            _quietly("stop the workers of nodes that came later", late)
        _quietly("stop the controller", lambda: _ask(self.controller.stop))
        head, others = self.worker_actors[:1], self.worker_actors[1:]
        for some in (others, head):  # The head's metastore serves the others.
            _quietly("stop the datasystem workers", partial(_stop_workers, some))
        for actor in (*self.worker_actors, self.controller):
            _quietly("end an actor", partial(ray.kill, actor))
        if self.group is not None:
            _quietly("remove the placement group", lambda: _remove_group(self.group))


def _quietly(what: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception as error:
        _log.warning("could not %s: %s", what, error)


def _ask(method: Any, *arguments: Any, timeout_s: float = _CALL_TIMEOUT_S) -> Any:
    import ray

    return ray.get(method.remote(*arguments), timeout=timeout_s)


def _find_actor() -> Any:
    import ray

    with contextlib.suppress(ValueError):
        return ray.get_actor(ACTOR_NAME, ACTOR_NAMESPACE)
    return None


def _create_controller(conf: DictConfig, home: ActorHome) -> Any:
    """On this process's node, where its socket is of use. ValueError: name taken."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node_id = _own_node_id()
    return (
        ray.remote(TransferQueueController)
        .options(
            name=ACTOR_NAME,
            namespace=ACTOR_NAMESPACE,
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            **_COMES_BACK,
        )
        .remote(
            conf.controller.get("sampler"), bool(conf.controller.polling_mode), home
        )
    )


def _start_workers(
    started: _Started, section: dict[str, Any]
) -> list[tuple[str, str | None]]:
    """One per alive node, this process's node first: it becomes the head."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    node_ips = _alive_nodes()
    started.section, started.hosts = section, node_ips
    started.group = group = _reserve_group(len(node_ips))
    actor_class = ray.remote(YuanrongWorkerActor)
    for index in range(len(node_ips)):
        strategy = PlacementGroupSchedulingStrategy(
            placement_group=group, placement_group_bundle_index=index
        )
        actor = actor_class.options(
            num_cpus=_CPU_PER_NODE, scheduling_strategy=strategy, **_COMES_BACK
        ).remote(node_ips, section, started.home)
        started.worker_actors.append(actor)
    hosts = ray.get(
        [actor.get_host.remote() for actor in started.worker_actors],
        timeout=_CALL_TIMEOUT_S,
    )
    by_host = dict(zip(hosts, started.worker_actors, strict=True))
    started.worker_actors = [by_host[address] for address in node_ips]
    head, *others = started.worker_actors
    return [*_start_all([head]), *_start_all(others)]


def _start_all(actors: Sequence[Any]) -> list[tuple[str, str | None]]:
    """Starts the workers of all nodes at once; what failed on any is said of each."""
    import ray

    deadline = Deadline.after(_WORKER_TIMEOUT_S)
    workers, failures = [], []
    for start in [actor.start.remote() for actor in actors]:
        try:
            workers.append(ray.get(start, timeout=deadline.remaining_s))
        except ray.exceptions.RayTaskError as error:
            failures.append(str(error.cause or error))
        except ray.exceptions.RayError as error:
            failures.append(f"Failed to start datasystem worker on a node: {error}")
    if failures:
        raise RuntimeError("\n\n".join(failures))
    return workers


def _worker_actor(
    node_id: str, hosts: Sequence[str], home: ActorHome, conf: Any
) -> Any:
    """On a node that has none of the placement group's, because it came later."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return (
        ray.remote(YuanrongWorkerActor)
        .options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            **_COMES_BACK,
        )
        .remote(hosts, _config.backend_section(conf, "Yuanrong"), home)
    )


def start_late_worker(
    node_id: str, hosts: Sequence[str], home: ActorHome, conf: DictConfig
) -> tuple[Any, Any]:
    """The actor, which the caller owns, and Ray's reference of its start."""
    actor = _worker_actor(node_id, hosts, home, conf)
    return actor, actor.start.remote()


def _with_own_worker(actor: Any, conf: DictConfig) -> list[str]:
    """The addresses of all workers; this node gets one now if it came later."""
    import ray

    workers: list[str] = list(_ask(actor.get_workers))
    if not workers:  # They are not ours: auto_init is false.
        return workers
    own = _own_node_id()
    host = next(host for host, node_id in _nodes() if node_id == own)
    if host in [split_address(worker)[0] for worker in workers]:
        return workers
    (start,) = _ask(actor.add_worker, own, host)
    try:
        address, _ = ray.get(start, timeout=_WORKER_TIMEOUT_S)
    except ray.exceptions.RayError as error:
        _ask(actor.note_worker, host, None)
        raise RuntimeError(str(getattr(error, "cause", None) or error)) from error
    _ask(actor.note_worker, host, address)
    return [*workers, address]


def _stop_late_workers(controller: Any, started: _Started) -> None:
    """Those of nodes that came after the start, wherever their actors are by now."""
    import ray

    there = [split_address(worker)[0] for worker in _ask(controller.get_workers)]
    late = [
        _worker_actor(node_id, [started.hosts[0], host], started.home, started.conf)
        for host, node_id in _nodes()
        if host in there and host not in started.hosts
    ]
    _stop_workers(late)
    for actor in late:
        ray.kill(actor)


def _own_node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _listen(conf: DictConfig) -> Listen:
    """For other nodes, also those that come later, unless Ray has none but this one."""
    listen, host = Listen.of(conf), _alive_nodes()[0]
    if listen.host is None and not ipaddress.ip_address(host).is_loopback:
        listen = replace(listen, host=host)
    return listen


def _nodes() -> list[tuple[str, str]]:
    """Address and id of those that are alive, this process's first."""
    import ray

    own = _own_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [
        (str(node["NodeManagerAddress"]), str(node["NodeID"]))
        for node in nodes
        if node["Alive"]
    ]
    alive.sort(key=lambda node: node[1] != own)
    if not alive or alive[0][1] != own:
        raise RuntimeError("this process's own node is not among Ray's alive nodes")
    return alive


def _alive_nodes() -> list[str]:
    return list(dict.fromkeys(host for host, _ in _nodes()))


def _reserve_group(nodes: int) -> Any:
    import ray
    from ray.util import placement_group, remove_placement_group

    group = placement_group([{"CPU": _CPU_PER_NODE}] * nodes, strategy="STRICT_SPREAD")
    try:
        ray.get(group.ready(), timeout=_GROUP_TIMEOUT_S)
    except ray.exceptions.GetTimeoutError as error:
        remove_placement_group(group)
        raise RuntimeError(
            f"Ray could not reserve {_CPU_PER_NODE} CPU on each of {nodes} nodes "
            f"within {_GROUP_TIMEOUT_S:.0f} s: all CPUs are taken. See `ray status`."
        ) from error
    return group


def _stop_workers(actors: Sequence[Any]) -> None:
    import ray

    ray.get([actor.stop.remote() for actor in actors], timeout=_STOP_TIMEOUT_S)


def _remove_group(group: Any) -> None:
    from ray.util import placement_group_table, remove_placement_group

    remove_placement_group(group)
    end = time.monotonic() + _CALL_TIMEOUT_S
    while placement_group_table(group).get("state") != "REMOVED":
        if time.monotonic() >= end:
            raise RuntimeError("Ray still lists it")
        time.sleep(_POLL_S)
