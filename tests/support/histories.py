"""Whether what clients saw of one key can have happened in some order: linearizability.

Just-in-time linearization: Lowe, "Testing for linearizability" (2017). A key is a
register, `None` when it is deleted; written values are different from each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Operation:
    """`kind` is "set", "delete" or "get"; `value` what was set or read."""

    kind: str
    value: Any
    begin: float
    end: float | None  # None: nobody knows what became of it, or when.
    may_repeat: bool = False  # It may have taken effect more than once.
    text: str = field(default="", compare=False)


Configuration = tuple[Any, frozenset[int]]  # The value, and what has taken effect.


def explain(operations: Iterable[Operation]) -> str | None:
    """None: they can have happened. Else what nobody can explain."""
    every = _worth_trying(list(operations))
    events = [(op.begin, 1, i) for i, op in enumerate(every)]
    events += [(op.end, 0, i) for i, op in enumerate(every) if op.end is not None]
    configurations: set[Configuration] = {(None, frozenset())}
    open_: set[int] = set()
    for _, is_begin, i in sorted(events):
        if is_begin:
            open_.add(i)
            continue
        after = _with_effect(configurations, every, open_, i)
        if not after:
            values = sorted({str(value) for value, _ in configurations})
            return f"{every[i]}: before it, the value was one of {values}"
        configurations = {(value, done - {i}) for value, done in after}
        open_.discard(i)
    return None


def print_around(history: list[Operation], text: str) -> None:
    """What may have led to what explain() said."""
    ordered = sorted(history, key=lambda op: op.begin)
    at = next(i for i, op in enumerate(ordered) if str(op) in text)
    for op in ordered[max(0, at - 25) : at + 5]:
        print(op)


def _worth_trying(operations: list[Operation]) -> list[Operation]:
    """Without what had no outcome and what nobody saw: not to have happened explains
    as much."""
    seen = {op.value for op in operations if op.kind == "get" and op.end is not None}
    return [
        op
        for op in operations
        if op.end is not None
        or op.kind == "delete"
        or (op.kind == "set" and op.value in seen)
    ]


def _with_effect(
    configurations: set[Configuration],
    every: list[Operation],
    open_: set[int],
    last: int,
) -> set[Configuration]:
    """All that can come of these by open operations, of which `last` is one."""
    found: set[Configuration] = set()
    seen = set(configurations)
    left = list(configurations)
    while left:
        value, done = left.pop()
        if last in done:
            found.add((value, done))
        for i in open_:
            op = every[i]
            if (i in done and not op.may_repeat) or (
                op.kind == "get" and op.value != value
            ):
                continue
            after = (value if op.kind == "get" else op.value, done | {i})
            if after not in seen:
                seen.add(after)
                left.append(after)
    return found
