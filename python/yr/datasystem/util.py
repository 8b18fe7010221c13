"""What the clients share: checks of arguments, the outcome of a call, trace ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from yr.datasystem._core import INVALID, DatasystemError, set_trace_id

INT32_MAX = 0x7FFFFFFF
UINT32_MAX = 0xFFFFFFFF

_TRACE_ID_MAX = 36
_TRACE_ID = re.compile(r"[a-zA-Z0-9~.\-/_!@#%^&*()+=:;]*")


class Status:
    """How a call ended; made from the exception that it would have raised."""

    __slots__ = ("_error",)

    def __init__(self, native: DatasystemError | None = None) -> None:
        self._error = native

    def is_ok(self) -> bool:
        return self._error is None

    def is_error(self) -> bool:
        return self._error is not None

    def get_code(self) -> int:
        return 0 if self._error is None else self._error.code

    def get_msg(self) -> str:
        return "" if self._error is None else self._error.message

    def to_string(self) -> str:
        return "code: [OK], msg: []" if self._error is None else str(self._error)

    def __repr__(self) -> str:
        return f"Status({self.to_string()})"


class Context:
    """Settings of the calling thread."""

    @staticmethod
    def set_trace_id(trace_id: str) -> None:
        """Name the calls that follow in this thread, in its errors and in the log.

        At most 36 characters of ``a-zA-Z0-9~.-/_!@#%^&*()+=:;``; "" ends it.
        """
        check_type("trace_id", trace_id, str)
        if len(trace_id) > _TRACE_ID_MAX:
            raise DatasystemError(
                INVALID,
                f"The length of trace id should less than {_TRACE_ID_MAX}: "
                f"it is {len(trace_id)}.",
            )
        if _TRACE_ID.fullmatch(trace_id) is None:
            raise DatasystemError(
                INVALID,
                "The trace id contains illegal char(s), allowed regex format: "
                f"^{_TRACE_ID.pattern}$. Current trace id: {trace_id!r}.",
            )
        set_trace_id(trace_id)


def check_type(name: str, value: object, *types: type) -> None:
    """A bool is no int here, although Python says it is: it is a mistake each time."""
    if isinstance(value, types) and (value is not True and value is not False):
        return
    if isinstance(value, bool) and bool in types:
        return
    raise TypeError(f"The input of {name} has invalid type, valid type: {list(types)}")


def check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise RuntimeError(
            f"Invalid {name} size {value} is set, "
            f"which should be between [{least},{most}]"
        )


def check_uint32(name: str, value: object) -> None:
    """TypeError, as for any value that does not fit the type of the argument."""
    check_type(name, value, int)
    assert isinstance(value, int)
    if not 0 <= value <= UINT32_MAX:
        raise TypeError(f"The input of {name} is {value}, not in [0,{UINT32_MAX}]")


class Validator:
    """The same checks under the names that callers of the existing SDK know."""

    @staticmethod
    def check_args_types(args: Iterable[Iterable[Any]]) -> None:
        """Each of `args` is ``[name, value, type, ...]``."""
        for name, value, *types in args:
            check_type(name, value, *types)

    @staticmethod
    def check_key_exists(args: Mapping[str, Any], keys: Iterable[str]) -> None:
        for key in keys:
            if key not in args:
                raise RuntimeError(f"The key '{key}' of the input param does not exist")

    @staticmethod
    def check_param_range(name: str, value: int, least: int, most: int) -> None:
        check_range(name, value, least, most)
