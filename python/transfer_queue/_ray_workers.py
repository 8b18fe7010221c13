"""The datasystem workers of a queue in Ray: one on every node.

    those there at the start   in a placement group, STRICT_SPREAD; owned by the owner
    on nodes that come later   started by the first process that uses the queue there,
                               through the TransferQueueController, which owns them

The actors look after programs, which outlive them: an actor that crashes is started
again by Ray and finds its program running.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from transfer_queue import _config, _worker
from transfer_queue._actor_home import ActorHome
from transfer_queue._deadline import Deadline
from transfer_queue.utils.yuanrong_utils import (
    get_local_ip_addresses,
    join_address,
    split_address,
    worker_port_of,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger("transfer_queue.session")

CALL_TIMEOUT_S = 30.0
POLL_S = 0.1
COMES_BACK = {"max_restarts": -1, "max_task_retries": -1}
_GROUP_TIMEOUT_S = 60.0
_WORKER_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 75.0
_CPU_PER_NODE = 0.1


# ---- Ray's nodes and actors ----------------------------------------------------------


def own_node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def nodes() -> list[tuple[str, str]]:
    """Address and id of those that are alive, this process's first."""
    import ray

    own = own_node_id()
    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [
        (str(node["NodeManagerAddress"]), str(node["NodeID"]))
        for node in known
        if node["Alive"]
    ]
    alive.sort(key=lambda node: node[1] != own)
    if not alive or alive[0][1] != own:
        raise RuntimeError("this process's own node is not among Ray's alive nodes")
    return alive


def alive_hosts() -> list[str]:
    return list(dict.fromkeys(host for host, _ in nodes()))


def ask(method: Any, *arguments: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
    import ray

    return ray.get(method.remote(*arguments), timeout=timeout_s)


def quietly(what: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception as error:
        _log.warning("could not %s: %s", what, error)


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
        with self._home.key_file(folder) as key:
            plan = _worker.plan_for(
                self._section, self._host, self._head, owner, folder, key
            )
            if not _worker.is_worker_of(plan.address, owner):
                _worker.start_worker(plan)
        return plan.address, _worker.find_socket(self._section, self._host)

    def stop(self) -> None:
        end_worker_of(self._home, self._section, self._host)


def _worker_folder(host: str) -> str:
    """Two of Ray's nodes may be on one machine."""
    return f"worker-{host.replace(':', '_')}"


def end_worker_of(home: ActorHome, section: dict[str, Any], host: str) -> None:
    """What stop() does, also for an owner on the same node whose actor is gone."""
    address = join_address(host, worker_port_of(section))
    _worker.stop_worker_of(address, home.owner_text)
    shutil.rmtree(home.folder(_worker_folder(host)), ignore_errors=True)


# ---- The owner's ---------------------------------------------------------------------


@dataclass(slots=True)
class RayWorkers:
    """The workers of one queue, this process's node first, which is their head.

    Owner: the process that starts the queue.
    """

    home: ActorHome
    conf: DictConfig
    hosts: list[str] = field(default_factory=list)
    _actors: list[Any] = field(default_factory=list)  # By host.
    _group: Any = None

    def start(self) -> list[tuple[str, str | None]]:
        """One on each node that is alive: their addresses and Unix sockets."""
        import ray

        self.hosts = alive_hosts()
        self._group = _reserve_group(len(self.hosts))
        for index in range(len(self.hosts)):
            self._actors.append(self._actor_in_group(index))
        hosts = ray.get(
            [actor.get_host.remote() for actor in self._actors], timeout=CALL_TIMEOUT_S
        )
        by_host = dict(zip(hosts, self._actors, strict=True))
        self._actors = [by_host[host] for host in self.hosts]
        head, *others = self._actors
        return [*_start_all([head]), *_start_all(others)]

    def stop_late(self, controller: Any) -> None:
        """Those of nodes that came after start(), whoever started them."""
        if self.hosts:
            late = partial(_stop_late_workers, controller, self)
            quietly("stop the workers of nodes that came later", late)

    def stop(self) -> None:
        """Those of start(), and their actors; the head last: it has the metastore."""
        import ray

        head, others = self._actors[:1], self._actors[1:]
        for some in (others, head):
            quietly("stop the datasystem workers", partial(_stop_workers, some))
        for actor in self._actors:
            quietly("end an actor", partial(ray.kill, actor))
        if self._group is not None:
            quietly("remove the placement group", partial(_remove_group, self._group))

    def stop_own(self) -> None:
        """That of this node, where its actor did not; without Ray."""
        section = _config.backend_section(self.conf, "Yuanrong")
        for host in self.hosts[:1]:
            end_worker_of(self.home, section, host)

    def _actor_in_group(self, index: int) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(
            placement_group=self._group, placement_group_bundle_index=index
        )
        options = {"num_cpus": _CPU_PER_NODE, "scheduling_strategy": strategy}
        return _create_actor(options, self.hosts, self.home, self.conf)


def _create_actor(
    options: dict[str, Any], hosts: Sequence[str], home: ActorHome, conf: DictConfig
) -> Any:
    import ray

    section = _config.backend_section(conf, "Yuanrong")
    actor_class = ray.remote(YuanrongWorkerActor)
    return actor_class.options(**options, **COMES_BACK).remote(hosts, section, home)


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
    end = time.monotonic() + CALL_TIMEOUT_S
    while placement_group_table(group).get("state") != "REMOVED":
        if time.monotonic() >= end:
            raise RuntimeError("Ray still lists it")
        time.sleep(POLL_S)


# ---- Nodes that come later -----------------------------------------------------------


def _worker_actor(
    node_id: str, hosts: Sequence[str], home: ActorHome, conf: DictConfig
) -> Any:
    """On a node that has none of the placement group's, because it came later."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": strategy}
    return _create_actor(options, hosts, home, conf)


def start_late_worker(
    node_id: str, hosts: Sequence[str], home: ActorHome, conf: DictConfig
) -> tuple[Any, Any]:
    """The actor, which the caller owns, and Ray's reference of its start."""
    actor = _worker_actor(node_id, hosts, home, conf)
    return actor, actor.start.remote()


def with_own_worker(actor: Any, workers: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses of all workers; this node gets one now if it came later."""
    import ray

    if not workers:  # They are not ours: auto_init is false.
        return workers
    own = own_node_id()
    host = next(host for host, node_id in nodes() if node_id == own)
    if host in [split_address(worker)[0] for worker in workers]:
        return workers
    (start,) = ask(actor.add_worker, own, host)
    try:
        address, _ = ray.get(start, timeout=_WORKER_TIMEOUT_S)
    except ray.exceptions.RayError as error:
        ask(actor.note_worker, host, None)
        raise RuntimeError(str(getattr(error, "cause", None) or error)) from error
    ask(actor.note_worker, host, address)
    return (*workers, address)


def _stop_late_workers(controller: Any, workers: RayWorkers) -> None:
    """Wherever their actors are by now."""
    import ray

    there = [split_address(worker)[0] for worker in ask(controller.get_workers)]
    late = [
        _worker_actor(node_id, [workers.hosts[0], host], workers.home, workers.conf)
        for host, node_id in nodes()
        if host in there and host not in workers.hosts
    ]
    _stop_workers(late)
    for actor in late:
        ray.kill(actor)
