"""What a worker is started with: defaults, command line or file, home folder."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yr.datasystem.cli._output import CommandError, say

DEFAULTS_FILE = Path(__file__).parent / "worker_config.json"
CLUSTER_FILE = Path(__file__).parent / "cluster_config.json"
STDIN = Path("-")
BACKENDS = ("coordinator_address", "etcd_address", "metastore_address")
ONE_NODE_HINT = (
    "for one node: --metastore_address 127.0.0.1:2379 --start_metastore_service true"
)
INJECTION_CHARACTERS = frozenset(";&|`$()<>{}!*?'\"\\\n\r\t\v\f")
JSON_FLAGS = frozenset({"kv_events_config"})
FORBIDDEN_ROOTS = (
    *("/bin", "/sbin", "/lib", "/lib64", "/boot", "/dev", "/etc", "/sys", "/proc"),
)
PATH_FLAGS = (
    *("unix_domain_socket_dir", "log_dir", "health_check_path", "ready_check_path"),
)


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What to start. `flags` are those that differ from the worker's defaults."""

    flags: Mapping[str, str]
    home: Path
    socket: Path
    log_dir: Path
    log_file: Path
    ready_file: Path

    @property
    def address(self) -> str:
        return self.flags["worker_address"]


def read_defaults() -> dict[str, str]:
    return _values_of(json.loads(DEFAULTS_FILE.read_text("utf-8")), DEFAULTS_FILE)


def parse_worker_args(words: Sequence[str]) -> dict[str, str]:
    """`--flag value` pairs (or `--flag=value`); every flag needs a value."""
    flags = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--") or word == "--":
            raise CommandError(f"No parameter name specified: {word}")
        name, equals, value = word[2:].partition("=")
        if not equals:
            following = next(rest, None)
            if following is None or following.startswith("--"):
                raise CommandError(f"Param {name} is missing a value")
            value = following
        flags[name] = value
    return flags


def read_config(path: Path) -> dict[str, str]:
    """A file with `{"flag": {"value": ...}}`, or `{"flag": value}`, for each flag; "-"
    is the standard input."""
    check_path(path)
    try:
        text = sys.stdin.read() if path == STDIN else path.read_text("utf-8")
        content = json.loads(text)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"{path} is not JSON: {error}") from error
    return _values_of(content, path)


def plan_worker(
    worker_args: Sequence[str] | None, config_path: str | None, home: str | None
) -> WorkerPlan:
    """Merge, check and resolve everything that `dscli start` was given."""
    defaults = read_defaults()
    given = (
        parse_worker_args(worker_args or ())
        if config_path is None
        else read_config(Path(config_path))
    )
    flags = {
        name: value for name, value in given.items() if value != defaults.get(name)
    }
    if config_path is not None:
        for name in flags:
            say(f"Modifed config - {name}")
    for name, value in flags.items():
        check_value(name, value)
    _check_backend(flags)
    flags.setdefault("worker_address", defaults["worker_address"])
    folder = _find_home(home or flags.pop("datasystem_home_dir", ""), flags)
    return _resolve(flags, folder, {**defaults, **flags})


def socket_of(flags: Mapping[str, str]) -> str | None:
    """The Unix socket of a running worker, from its flags; None without its home."""
    home = flags.get("datasystem_home_dir")
    if not home:
        return None
    folder = flags.get("unix_domain_socket_dir", "./datasystem/uds")
    return str(Path(home, folder) / "worker.sock")


def default_home(address: str) -> Path:
    """`$XDG_RUNTIME_DIR/datasystem` or /tmp/datasystem-UID, then `host_port`."""
    host, port = split_address(address)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime, "datasystem", f"{host}_{port}")
    return Path(f"/tmp/datasystem-{os.getuid()}", f"{host}_{port}")


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port``."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise CommandError(
            f"'{address}' is not an address; write host:port, such as 127.0.0.1:31501"
        )
    return host.strip("[]"), int(port)


def check_value(name: str, value: str) -> None:
    if name in JSON_FLAGS:
        return
    if not INJECTION_CHARACTERS.isdisjoint(value):
        raise CommandError(
            f"Input contains potential command-injection characters: {name}={value!r}"
        )
    if value.startswith("/"):
        check_path(Path(value))


def check_path(path: Path) -> None:
    """Refuse the system's own folders."""
    plain = os.path.normpath(path)
    for root in FORBIDDEN_ROOTS:
        if plain == root or plain.startswith(f"{root}/"):
            raise CommandError(f"Path {path} is outside allowed directory")
    if plain == "/":
        raise CommandError(f"Path {path} is outside allowed directory")


def generate(output: str) -> int:
    """`dscli generate_config`: copies of the defaults to edit."""
    target = Path(output).absolute()
    check_path(target)
    for source in (CLUSTER_FILE, DEFAULTS_FILE):
        path = target / source.name
        try:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror}") from error
        say(f"Configuration file {path.name} has been generated to {target}")
    say("Configuration generation completed successfully")
    return 0


def _values_of(content: object, path: Path) -> dict[str, str]:
    if not isinstance(content, dict):
        raise CommandError(f"{path} must hold a JSON object of flags")
    values = {}
    for name, entry in content.items():
        value = entry.get("value", "") if isinstance(entry, dict) else entry
        if isinstance(value, bool):
            value = str(value).lower()
        if not isinstance(value, (str, int, float)):
            raise CommandError(f"{path}: the value of {name} must be text or a number")
        values[str(name)] = str(value)
    return values


def _check_backend(flags: Mapping[str, str]) -> None:
    given = [name for name in BACKENDS if flags.get(name)]
    if not given:
        raise CommandError(
            "Missing required: coordinator_address, etcd_address, or "
            f"metastore_address must be specified ({ONE_NODE_HINT})"
        )
    if len(given) > 1:
        raise CommandError("Only one coordination backend can be specified")
    if given == ["coordinator_address"]:
        raise CommandError(
            "coordinator_address: there is no coordinator here; use the metastore "
            f"({ONE_NODE_HINT})"
        )


def _find_home(wanted: str, flags: Mapping[str, str]) -> Path:
    if not wanted:
        return default_home(flags["worker_address"])
    folder = Path(wanted).expanduser().absolute()
    check_value("datasystem_home_dir", str(folder))
    return folder


def _resolve(
    flags: dict[str, str], home: Path, merged: Mapping[str, str]
) -> WorkerPlan:
    def under_home(name: str) -> Path:
        return Path(os.path.normpath(home / merged[name]))

    log_dir = under_home("log_dir")
    log_name = merged["log_filename"] or "datasystem_worker"
    return WorkerPlan(
        flags={**flags, "datasystem_home_dir": str(home)},
        home=home,
        socket=under_home("unix_domain_socket_dir") / "worker.sock",
        log_dir=log_dir,
        log_file=log_dir / f"{log_name}.log",
        ready_file=under_home("ready_check_path"),
    )
