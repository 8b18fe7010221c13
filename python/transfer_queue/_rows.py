"""Rows of a TensorDict."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NonTensorStack, TensorDict


def slice_rows(fields: TensorDict, first: int, last: int) -> TensorDict:
    """Rows [first, last) of `fields`, sharing memory where that is possible."""
    columns = {
        name: _slice_column(fields, name, first, last)
        for name in map(str, fields.keys())
    }
    return TensorDict(columns, batch_size=[last - first])


def single_row(fields: dict[str, Any]) -> TensorDict:
    """A dict of one row's values as a batch of one."""
    columns = {}
    for name, value in fields.items():
        if isinstance(value, torch.Tensor):
            if value.is_nested:
                raise ValueError("Please use (async)kv_batch_put for batch operation")
            columns[name] = value.unsqueeze(0)
        else:
            columns[name] = NonTensorStack(value)
    return TensorDict(columns, batch_size=[1])


def _slice_column(fields: TensorDict, name: str, first: int, last: int) -> Any:
    value = fields.get(name)
    is_nested = isinstance(value, torch.Tensor) and value.is_nested
    if is_nested and value.layout is not torch.jagged:  # Cannot be sliced.
        return NonTensorStack(*value.unbind()[first:last])
    return fields[first:last].get(name)
