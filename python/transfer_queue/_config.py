"""The configuration: packaged defaults, the user's values over them, and warnings.

A configuration is open: unknown keys pass through, because adopters keep their own keys
in the same tree. Only under ``backend``, where a misspelt option would silently change
where data goes, an unknown key gets one warning that names the nearest known one.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from transfer_queue import _worker

_log = logging.getLogger("transfer_queue.config")

# Sections of other backends, which configurations written for them may contain.
_OTHER_BACKENDS = frozenset({"SimpleStorage", "MooncakeStore", "RayStore"})
_KNOWN_EXTRA = {
    "Yuanrong": frozenset({"client_name", "encrypt_connections", "host", "put_wait_s"})
}

_SAMPLERS = frozenset(
    {
        "SequentialSampler",
        "GRPOGroupNSampler",
        "RankAwareSampler",
        "SeqlenBalancedSampler",
        "BaseSampler",
    }
)

_warned: set[str] = set()


def load_defaults() -> DictConfig:
    """The packaged config.yaml."""
    text = Path(__file__).with_name("config.yaml").read_text("utf-8")
    return _as_open_config(OmegaConf.create(text))


def merge(conf: DictConfig | dict[str, Any] | None) -> DictConfig:
    """The user's configuration over the defaults; what is odd in it is warned about."""
    defaults = load_defaults()
    user = _as_open_config(
        OmegaConf.create({} if conf is None else conf, flags={"allow_objects": True})
    )
    _warn_unknown_backend_keys(defaults, user)
    merged = _as_open_config(OmegaConf.merge(defaults, user))
    _check_controller(merged)
    return merged


def prepare(conf: DictConfig | dict[str, Any] | None) -> DictConfig:
    """merge(), with the size of the arena decided where the user left it open.

    The size is written into worker_args, so that the configuration that init() returns
    says what is, and gives the same again when it is used for another init().
    """
    merged = merge(conf)
    section = merged.backend.get("Yuanrong")
    if section is not None and not _user_gave_arena_size(conf):
        section.worker_args = _worker.with_arena_size(str(section.worker_args or ""))
    return merged


def _user_gave_arena_size(conf: DictConfig | dict[str, Any] | None) -> bool:
    user = OmegaConf.create({} if conf is None else conf, flags={"allow_objects": True})
    arguments = OmegaConf.select(user, "backend.Yuanrong.worker_args")
    words = str(arguments or "").split()
    return any(
        word.lstrip("-").split("=", 1)[0] == "shared_memory_size_mb" for word in words
    )


def backend_section(conf: DictConfig, name: str) -> dict[str, Any]:
    """The section of one backend as a plain dict (empty when there is none)."""
    section = OmegaConf.select(conf, f"backend.{name}")
    if section is None:
        return {}
    return cast("dict[str, Any]", OmegaConf.to_container(section, resolve=True))


def to_plain(conf: DictConfig) -> dict[str, Any]:
    """`conf` as plain containers; objects in it become their names."""
    container = OmegaConf.to_container(conf, resolve=True)
    return cast("dict[str, Any]", _plain(container))


def from_plain(container: dict[str, Any]) -> DictConfig:
    return _as_open_config(OmegaConf.create(container))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    named = value if isinstance(value, type) else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _as_open_config(config: Any) -> DictConfig:
    if not isinstance(config, DictConfig):
        raise TypeError(
            "the configuration must be a DictConfig or a dict, "
            f"not {type(config).__name__}"
        )
    OmegaConf.set_struct(config, False)
    config._set_flag("allow_objects", True)
    return config


def _warn_unknown_backend_keys(defaults: DictConfig, user: DictConfig) -> None:
    known = set(defaults.backend) | _OTHER_BACKENDS
    backend = user.get("backend")
    if not isinstance(backend, DictConfig):
        return
    chosen = str(backend.get("storage_backend", ""))
    for name in map(str, backend):
        if name not in known and name != chosen:
            _warn_unknown(f"backend.{name}", name, known)
    section = backend.get("Yuanrong")
    if not isinstance(section, DictConfig):
        return
    known_here = set(defaults.backend.Yuanrong) | _KNOWN_EXTRA["Yuanrong"]
    for name in map(str, section):
        if name not in known_here:
            _warn_unknown(f"backend.Yuanrong.{name}", name, known_here)


def _warn_unknown(path: str, name: str, known: set[str]) -> None:
    if path in _warned:
        return
    _warned.add(path)
    import difflib

    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
    hint = f"; the nearest known key is '{near[0]}'" if near else ""
    _log.warning("configuration key '%s' is unknown and has no effect%s", path, hint)


def _check_controller(conf: DictConfig) -> None:
    for name in ("timeout_s", "init_timeout_s"):
        value = conf.controller.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ValueError(
                f"controller.{name} must be a positive number of seconds, not {value!r}"
            )
    fsync = conf.controller.get("journal_fsync")
    if not isinstance(fsync, bool):
        raise ValueError(
            f"controller.journal_fsync must be true or false, not {fsync!r}"
        )
    copies = conf.controller.get("journal_copies")
    if type(copies) is not int or not 0 <= copies <= 2:
        raise ValueError(f"controller.journal_copies must be 0, 1 or 2, not {copies!r}")
    sampler = conf.controller.get("sampler")
    if isinstance(sampler, str) and sampler not in _SAMPLERS:
        raise ValueError(f"Could not find sampler {sampler}")
    if conf.get("metrics") is not None and conf.metrics.get("enabled"):
        _warn_once(
            "metrics.enabled", "metrics are not built yet: no endpoint is opened"
        )
    if sampler not in (None, "SequentialSampler"):
        _warn_once("controller.sampler", "samplers are not built yet: it has no effect")


def _warn_once(path: str, text: str) -> None:
    if path not in _warned:
        _warned.add(path)
        _log.warning("configuration key '%s': %s", path, text)
