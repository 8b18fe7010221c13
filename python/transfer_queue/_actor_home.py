"""What an actor of the queue must find again after Ray has restarted it.

An actor is a thin face of a program that outlives it. What leads its next life back to
that program is an argument of the actor, so Ray gives it to every life.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transfer_queue._process import OwnerText, ProcessId


def _make_secret() -> bytes:
    """Random, unless the user has one for all of the cluster."""
    named = os.environ.get("DATASYSTEM_AUTH_KEY_FILE")
    if named:
        return Path(named).read_bytes().rstrip(b" \t\r\n")
    return secrets.token_hex(32).encode()


@dataclass(frozen=True, slots=True)
class ActorHome:
    """Names the files of one actor, and whose queue it serves.

    `owner` is the process whose init() started the queue: Ray ends the actor with it.
    `token` keeps two queues of one owner apart, and nobody can guess it. `secret` is
    the key of all programs of the queue and of its clients, which Ray alone carries.
    """

    owner: ProcessId = field(default_factory=ProcessId.own)
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    secret: bytes = field(default_factory=_make_secret, repr=False)

    @property
    def owner_text(self) -> OwnerText:
        """What a program is told about who started it; the same in every life."""
        return OwnerText(self.owner, f"ray-{self.token}")

    @property
    def ends_with(self) -> ProcessId:
        """The process here that lives as long as the queue's owner or longer: itself,
        or Ray's of this node where that is on another one."""
        return self.owner if self.owner.alive else ProcessId.of(os.getppid())

    def folder(self, kind: str) -> Path:
        """Of the actor's files; `kind` tells several on one machine apart."""
        holder = self.ends_with
        name = f"{_prefix()}{holder.pid}-{holder.start}-{self.token}-{kind}"
        return Path(tempfile.gettempdir()) / name

    def make_folder(self, kind: str) -> Path:
        """Of mode 0700. It stays when the actor is killed, and goes with the queue."""
        _remove_folders_of_the_dead()
        folder = self.folder(kind)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        return folder

    @contextlib.contextmanager
    def key_file(self, folder: Path) -> Iterator[Path]:
        """A file with `secret`, of mode 0600, for a program that is started meanwhile:
        it reads it once."""
        file = folder / "auth_key"
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(file, flags, 0o600), "wb") as out:
            out.write(self.secret)
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)


def _remove_folders_of_the_dead() -> None:
    """What is left of queues whose owner was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_prefix()}*"):
        pid, _, rest = folder.name.removeprefix(_prefix()).partition("-")
        start = rest.partition("-")[0]
        if not (pid.isdigit() and start.isdigit()):
            continue
        if not ProcessId(int(pid), int(start)).alive:
            shutil.rmtree(folder, ignore_errors=True)


def _prefix() -> str:
    """Pids mean nothing to another container that sees the same folder."""
    pids = os.stat("/proc/self/ns/pid").st_ino
    return f"transfer_queue-{os.getuid()}-ray-{pids}-"
