"""The Ray actor TransferQueueController, a thin face of the controller program.

Metadata lives in `transfer_queue_controller`, a C process; this actor starts it on its
node, keeps the configuration for those who attach, and is the name by which they find
it. The actor is not detached: it ends with the job that created it, and the program
with it.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from transfer_queue._controller_process import (
    ControllerOptions,
    start_controller,
    stop_controller,
)
from transfer_queue._process import OwnerText, ProcessId

_log = logging.getLogger("transfer_queue.controller")

ACTOR_NAME = "TransferQueueController"
ACTOR_NAMESPACE = "transfer_queue"


class TransferQueueController:
    """The class of the actor; `_ray` makes an actor of it.

    Owner: the job that created it. Methods run one at a time in the actor's main
    thread.
    """

    def __init__(self, sampler: Any = None, polling_mode: bool = False) -> None:
        self.sampler = sampler
        self.polling_mode = polling_mode
        self._config: Any = None
        self._workers: tuple[str, ...] = ()
        self._folder: Path | None = None
        self._process: ProcessId | None = None
        self._address: str | None = None

    def start(self, worker_socket: str | None, journal_fsync: bool = False) -> str:
        """Start the program and return its address."""
        owner = ProcessId.own()
        self._folder = make_actor_folder(owner)
        options = ControllerOptions(
            socket=self._folder / "controller.sock",
            log=self._folder / "controller.log",
            owner=str(OwnerText(owner, "ray")),
            worker_socket=worker_socket,
            ends_with_parent=True,
            journal_fsync=journal_fsync,
        )
        self._address = options.address
        self._process = start_controller(options)
        return self._address

    def stop(self) -> None:
        """End the program and remove its files. Idempotent."""
        if self._address is not None:
            stop_controller(self._address, self._process)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._address = self._process = self._folder = None

    def store_config(self, conf: Any, workers: tuple[str, ...] = ()) -> None:
        """From now on others can attach."""
        self._config = conf
        self._workers = tuple(workers)

    def get_config(self) -> Any:
        """None until the owner's init() has stored it."""
        return self._config

    def get_address(self) -> str | None:
        """Of the program's socket, on the actor's node."""
        return self._address

    def get_workers(self) -> tuple[str, ...]:
        """Addresses of the datasystem workers that the owner started."""
        return self._workers

    def get_process(self) -> tuple[int, str]:
        """The actor's pid, and where it runs."""
        return os.getpid(), os.uname().nodename

    def get_python(self) -> str:
        """The interpreter, for reports of mixed environments."""
        return sys.executable


def make_actor_folder(owner: ProcessId) -> Path:
    """A folder of mode 0700 for the files of one actor."""
    _remove_folders_of_the_dead()
    prefix = f"transfer_queue-{os.getuid()}-ray-{owner.pid}-{owner.start}-"
    return Path(tempfile.mkdtemp(prefix=prefix))


def _remove_folders_of_the_dead() -> None:
    """What actors left that were killed with their job."""
    pattern = f"transfer_queue-{os.getuid()}-ray-*"
    for folder in Path(tempfile.gettempdir()).glob(pattern):
        words = folder.name.split("-")
        if len(words) < 6 or not (words[3].isdigit() and words[4].isdigit()):
            continue
        if not ProcessId(int(words[3]), int(words[4])).alive:
            shutil.rmtree(folder, ignore_errors=True)
