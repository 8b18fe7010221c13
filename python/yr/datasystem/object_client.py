"""How an object is kept. (The object client itself is not built yet.)"""

from __future__ import annotations

from enum import Enum


class WriteMode(Enum):
    """Whether an object also goes to a second-level cache, and whether it may go away.

    NONE_L2_CACHE objects stay until they are deleted or expire; those with EVICT in the
    name go when room is short, about in the order in which they were put, unless
    somebody reads them at that moment.
    """

    NONE_L2_CACHE = 0
    WRITE_THROUGH_L2_CACHE = 1
    WRITE_BACK_L2_CACHE = 2
    NONE_L2_CACHE_EVICT = 3
    WRITE_BACK_L2_CACHE_EVICT = 4


class CacheType(Enum):
    """Where an object lives; the first name is spelt as users know it."""

    MEMEORY = 0
    DISK = 1
