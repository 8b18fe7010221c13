"""The Ray actor TransferQueueController, a thin face of the controller program.

Metadata lives in `transfer_queue_controller`, a C process; this actor starts it on its
node, keeps the configuration for those who attach, and is the name by which they find
it. The actor is not detached: it ends with the process that created it, and so does
the program. An actor that crashes or is killed is started again by Ray and finds its
program where it was: whoever uses the queue does not notice.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer_queue._actor_home import ActorHome
from transfer_queue._controller_process import (
    ControllerOptions,
    Journal,
    Listen,
    find_running,
    start_controller,
    stop_controller,
)
from transfer_queue._deadline import Deadline
from transfer_queue._queue import QueueClient
from transfer_queue.utils.yuanrong_utils import split_address

_CALL_TIMEOUT_S = 10.0

ACTOR_NAME = "TransferQueueController"
ACTOR_NAMESPACE = "transfer_queue"


@dataclass(frozen=True, slots=True)
class Entry:
    """How to use the queue from one node. `address` None: that node cannot reach the
    controller. Who knows the queue's name finds it also where another has gone on."""

    config: Any
    address: str | None
    name: str
    workers: tuple[str, ...]
    secret: bytes = field(repr=False)


class TransferQueueController:
    """The class of the actor; `_ray` makes an actor of it.

    Owner: the process that created it. Methods run one at a time in the actor's main
    thread, and may run twice: Ray repeats a call whose answer died with the actor.
    """

    def __init__(
        self,
        sampler: Any = None,
        polling_mode: bool = False,
        home: ActorHome | None = None,
    ) -> None:
        self.sampler = sampler
        self.polling_mode = polling_mode
        self._home = home or ActorHome()
        self._config, self._workers, self._tcp_address = _read_stored(self._stored)
        self._late: dict[str, Any] = {}  # By host; the actors end with this one.

    def start(
        self,
        worker_socket: str | None,
        journal: Journal | None = None,
        listen: Listen | None = None,
    ) -> str:
        """Start the program, unless it runs already, and return its address."""
        if find_running(self._socket) is not None:
            return f"unix:{self._socket}"
        folder = self._home.make_folder("controller")
        with self._home.key_file(folder) as key:
            options = self._options(folder, worker_socket, journal, listen, key)
            start_controller(options)
        return options.address

    def _options(
        self,
        folder: Path,
        worker_socket: str | None,
        journal: Journal | None,
        listen: Listen | None,
        key: Path,
    ) -> ControllerOptions:
        return ControllerOptions(
            socket=self._socket,
            log=folder / "controller.log",
            owner=str(self._home.owner_text),
            session=self._home.token,
            worker_socket=worker_socket,
            ends_with=self._home.ends_with,
            journal=journal or Journal(),
            listen=listen or Listen(),
            auth_key_file=key,
        )

    def stop(self) -> None:
        """End the program and remove its files."""
        end_controller_of(self._home)
        self._config, self._workers, self._tcp_address = None, (), None

    def store_config(self, conf: Any, workers: tuple[str, ...] = ()) -> None:
        """From now on others can attach."""
        self._config, self._workers = conf, tuple(workers)
        content = (self._config, self._workers, self.get_tcp_address())
        draft = self._stored.with_suffix(".new")
        draft.write_bytes(_pickler().dumps(content))
        draft.replace(self._stored)

    def get_config(self) -> Any:
        """None until the owner's init() has stored it."""
        return self._config

    def get_address(self) -> str | None:
        """Of the program's socket, on the actor's node."""
        return f"unix:{self._socket}" if self._socket.is_socket() else None

    def get_tcp_address(self) -> str | None:
        """Of the program, for processes on other nodes; None: there is none. Where it
        was, if it is gone: another may have gone on with its queue."""
        if self._tcp_address is None and self._socket.is_socket():
            queue = QueueClient(f"unix:{self._socket}")
            try:
                self._tcp_address = queue.place(Deadline.after(_CALL_TIMEOUT_S))[1]
            finally:
                queue.close()
        return self._tcp_address

    def get_node_id(self) -> str:
        """Ray's id of the node that the actor and the program are on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def get_entry(self, node_id: str) -> Entry | None:
        """What a process on the node that Ray calls `node_id` needs in order to use the
        queue; None until the owner's init() has stored the configuration."""
        if self._config is None:
            return None
        is_here = node_id == self.get_node_id()
        address = self.get_address() if is_here else None
        return Entry(
            config=self._config,
            address=address or self.get_tcp_address(),
            name=self._home.token,
            workers=self._workers,
            secret=self._home.secret,
        )

    def get_workers(self) -> tuple[str, ...]:
        """Addresses of the datasystem workers that the owner started."""
        return self._workers

    def add_worker(self, node_id: str, host: str) -> list[Any]:
        """Start a worker on a node that came later. The one element of what is returned
        is Ray's reference of its start, to be waited for and told to `note_worker`."""
        from transfer_queue._ray_workers import start_late_worker

        if host not in self._late:
            head = split_address(self._workers[0])[0]
            self._late[host] = start_late_worker(
                node_id, [head, host], self._home, self._config
            )
        return [self._late[host][1]]

    def note_worker(self, host: str, address: str | None) -> None:
        """The worker of that node runs; None: it could not be started."""
        if address is None:
            self._late.pop(host, None)
        elif address not in self._workers:
            self.store_config(self._config, (*self._workers, address))

    def get_process(self) -> tuple[int, str]:
        """The actor's pid, and where it runs."""
        return os.getpid(), os.uname().nodename

    def get_python(self) -> str:
        """The interpreter, for reports of mixed environments."""
        return sys.executable

    @property
    def _socket(self) -> Path:
        return self._home.folder("controller") / "controller.sock"

    @property
    def _stored(self) -> Path:
        return self._home.folder("controller") / "config.pickle"


def end_controller_of(home: ActorHome) -> None:
    """What the actor's stop() does, for an owner on the same node whose actor is gone.

    Idempotent; it does not raise.
    """
    folder = home.folder("controller")
    socket = folder / "controller.sock"
    running = find_running(socket)
    if running is not None:
        stop_controller(f"unix:{socket}", running)
    shutil.rmtree(folder, ignore_errors=True)


def _read_stored(path: Path) -> tuple[Any, tuple[str, ...], str | None]:
    """What an earlier life of the actor was given, and its program's address."""
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        return None, (), None
    conf, workers, tcp_address = _pickler().loads(stored)
    return conf, workers, tcp_address


def _pickler() -> Any:
    """Ray's, which also takes what a user's own program defines."""
    from ray import cloudpickle

    return cloudpickle
