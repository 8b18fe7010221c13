"""A point in time by which a call must have ended."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """Monotonic; made once per call and handed down to each of its steps."""

    end: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    def later(self, seconds: float) -> Deadline:
        return Deadline(self.end + seconds)

    @property
    def remaining_s(self) -> float:
        return max(0.0, self.end - time.monotonic())

    @property
    def remaining_ms(self) -> int:
        """At least 1, so that it is never read as "no limit"."""
        return max(1, int(self.remaining_s * 1000))

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.end
