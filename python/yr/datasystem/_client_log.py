"""The log of a client's calls, for those who set DATASYSTEM_CLIENT_LOG_DIR.

One line per call in ``<dir>/ds_client_access.log``, its fields separated by `` | ``:
time, level, host, pid:tid, trace id, status code, action, cost in us, bytes, number of
keys or parts, text.

DATASYSTEM_CLIENT_ACCESS_LOG_NAME changes the name, and
DATASYSTEM_CLIENT_LOG_WITHOUT_PID=false adds the pid to it;
DATASYSTEM_CLIENT_MAX_LOG_SIZE (MB) and DATASYSTEM_MAX_LOG_FILE_NUM bound what it takes;
DATASYSTEM_LOG_MONITOR_ENABLE=false turns it off.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

CallLog = Callable[[str, int, int, int, int, str, str], None]

_FIELD_SEPARATOR = " | "
_LOG_MEGABYTES = 100
_LOG_FILES = 5


def open_log() -> CallLog | None:
    """What _core calls after each call of the library; None when nobody asked for it.

    A folder that cannot be written costs one warning and the log, never a call.
    """
    folder = os.environ.get("DATASYSTEM_CLIENT_LOG_DIR", "")
    if not folder or not _flag("DATASYSTEM_LOG_MONITOR_ENABLE", True):
        return None
    path = Path(folder).expanduser() / _file_name()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _CallLog(path).write
    except OSError as error:
        warnings.warn(
            f"DATASYSTEM_CLIENT_LOG_DIR: no log is written to {path}: {error.strerror}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


class _CallLog:
    def __init__(self, path: Path) -> None:
        self._handler = logging.handlers.RotatingFileHandler(
            path,
            maxBytes=_number("DATASYSTEM_CLIENT_MAX_LOG_SIZE", _LOG_MEGABYTES) << 20,
            backupCount=max(1, _number("DATASYSTEM_MAX_LOG_FILE_NUM", _LOG_FILES)) - 1,
            encoding="utf-8",
        )
        self._host = os.environ.get("POD_NAME") or socket.gethostname()

    def write(
        self,
        action: str,
        code: int,
        cost_us: int,
        item_count: int,
        byte_count: int,
        trace_id: str,
        text: str,
    ) -> None:
        fields = (
            _utc_now(),
            "I" if code == 0 else "W",
            self._host,
            f"{os.getpid()}:{threading.get_native_id()}",
            trace_id,
            str(code),
            action,
            str(cost_us),
            str(byte_count),
            str(item_count),
            " ".join(text.split()),
        )
        line = _FIELD_SEPARATOR.join(fields)
        self._handler.handle(logging.makeLogRecord({"msg": line}))


def _utc_now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{moment}.{nanoseconds // 1000:06d}Z"


def _file_name() -> str:
    name = os.environ.get("DATASYSTEM_CLIENT_ACCESS_LOG_NAME") or "ds_client_access"
    if not _flag("DATASYSTEM_CLIENT_LOG_WITHOUT_PID", True):
        name += f"_{os.getpid()}"
    return f"{name}.log"


def _flag(name: str, default: bool) -> bool:
    text = os.environ.get(name, "").strip().lower()
    return default if not text else text in ("1", "true", "yes", "on")


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    return int(text) if text.isdecimal() else default
