"""Loggers of the package: quiet unless asked.

All are below ``transfer_queue`` and obey the program's own logging configuration. With
TQ_LOGGING_LEVEL set, that level applies and, where the program has set up no logging,
lines go to stderr.
"""

from __future__ import annotations

import logging
import os

_FORMAT = "%(asctime)s - %(levelname)s - %(name)s - %(message)s"


class _FallbackHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stderr as long as the program has no handlers of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            super().emit(record)


def configure_from_environment() -> None:
    """Apply TQ_LOGGING_LEVEL to the package's loggers. Idempotent."""
    level = os.environ.get("TQ_LOGGING_LEVEL", "").strip().upper()
    if not level:
        return
    package = logging.getLogger("transfer_queue")
    try:
        package.setLevel(int(level) if level.isdigit() else level)
    except ValueError:
        package.warning("TQ_LOGGING_LEVEL=%s is not a logging level; ignored", level)
        return
    if not package.handlers:
        handler = _FallbackHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        package.addHandler(handler)


def get_logger(name: str) -> logging.Logger:
    """A logger below ``transfer_queue``."""
    configure_from_environment()
    inside = name == "transfer_queue" or name.startswith("transfer_queue.")
    return logging.getLogger(name if inside else f"transfer_queue.{name}")
