"""The checker of tests/support/histories.py itself."""

from __future__ import annotations

import itertools
import random

import pytest
from histories import Operation, explain


def op(kind: str, value: object, begin: float, end: float | None) -> Operation:
    return Operation(kind, value, begin, end)


def test_one_after_the_other() -> None:
    history = [op("get", None, 0, 1), op("set", 1, 2, 3), op("get", 1, 4, 5)]
    history += [op("delete", None, 6, 7), op("get", None, 8, 9)]
    assert explain(history) is None


def test_the_old_value_after_the_new_one_is_set() -> None:
    history = [op("set", 1, 0, 1), op("set", 2, 2, 3), op("get", 1, 4, 5)]
    assert "value=1, begin=4" in (explain(history) or "")


def test_while_it_is_set_both_may_be_read_but_not_back_again() -> None:
    history = [op("set", 1, 0, 1), op("set", 2, 2, 9)]
    forth = [op("get", 1, 3, 4), op("get", 2, 5, 6)]
    back = [op("get", 2, 3, 4), op("get", 1, 5, 6)]
    assert explain(history + forth) is None
    assert explain(history + back) is not None


def test_what_nobody_knows_the_end_of_may_happen_late_or_never() -> None:
    history = [op("set", 1, 0, 1), op("set", 2, 2, None), op("get", 1, 5, 6)]
    assert explain(history) is None
    assert explain([*history, op("get", 2, 7, 8)]) is None
    assert explain([*history, op("get", 2, 7, 8), op("get", 1, 9, 10)]) is not None
    assert explain([op("set", 1, 0, 1), op("get", None, 5, 6)]) is not None
    late = [op("set", 1, 0, 1), op("delete", None, 2, None), op("get", None, 5, 6)]
    assert explain(late) is None


def test_twice_only_where_it_is_said() -> None:
    between = [op("set", 1, 0, 1), op("get", None, 3, 4), op("set", 2, 5, 6)]
    between += [op("get", 2, 7, 8), op("get", None, 9, 10)]
    assert explain([*between, op("delete", None, 2, 11)]) is not None
    twice = Operation("delete", None, 2, 11, may_repeat=True)
    assert explain([*between, twice]) is None


@pytest.mark.parametrize("seed", range(200))
def test_as_trying_every_order(seed: int) -> None:
    chance = random.Random(seed)
    history = []
    for i in range(6):
        kind = chance.choice(["set", "get", "get", "delete"])
        value = i if kind == "set" else None
        if kind == "get":
            value = chance.choice([None, *range(i + 1)])
        begin = chance.randrange(10)
        history.append(op(kind, value, begin, begin + 0.5 + chance.randrange(8)))
    assert (explain(history) is None) == any(
        is_right(order) for order in itertools.permutations(history)
    )


def is_right(order: tuple[Operation, ...]) -> bool:
    value: object = None
    for i, operation in enumerate(order):
        if any(
            later.end is not None and later.end < operation.begin
            for later in order[i + 1 :]
        ):
            return False
        if operation.kind != "get":
            value = operation.value
        elif operation.value != value:
            return False
    return True
