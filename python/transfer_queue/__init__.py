"""TransferQueue: the data plane between the stages of LLM post-training.

One process calls ``init()``; it starts what is needed on this node. Every other process
calls ``init()`` too, or just a KV function, and attaches. Rows are named by a key
within a partition; each has fields (columns) and a dict of tags.

Importing this package imports neither torch nor ray nor tensordict: names are resolved
when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transfer_queue.interface import (
        async_kv_batch_get,
        async_kv_batch_get_by_meta,
        async_kv_batch_put,
        async_kv_clear,
        async_kv_list,
        async_kv_put,
        close,
        get_client,
        init,
        kv_batch_get,
        kv_batch_get_by_meta,
        kv_batch_put,
        kv_clear,
        kv_list,
        kv_put,
    )
    from transfer_queue.metadata import KVBatchMeta

__version__ = "1.0.0.dev0"

__all__ = [
    "KVBatchMeta",
    "async_kv_batch_get",
    "async_kv_batch_get_by_meta",
    "async_kv_batch_put",
    "async_kv_clear",
    "async_kv_list",
    "async_kv_put",
    "close",
    "get_client",
    "init",
    "kv_batch_get",
    "kv_batch_get_by_meta",
    "kv_batch_put",
    "kv_clear",
    "kv_list",
    "kv_put",
]

_HOME_OF = {"KVBatchMeta": "transfer_queue.metadata"}

# Names that users of earlier releases know and that a later step builds.
_NOT_BUILT_YET = {
    "TransferQueueClient": "clients made by hand (use get_client() instead)",
    "BatchMeta": "row selection for training loops (get_meta and friends)",
    "get_metrics_endpoint": "metrics",
    "save_checkpoint": "checkpoints",
    "load_checkpoint": "checkpoints",
    "StreamingDataset": "streaming",
    "StreamingDataLoader": "streaming",
    "BaseSampler": "samplers",
    "SequentialSampler": "samplers",
    "GRPOGroupNSampler": "samplers",
    "RankAwareSampler": "samplers",
    "SeqlenBalancedSampler": "samplers",
}


def __getattr__(name: str) -> object:
    if name in __all__:
        from importlib import import_module

        home = import_module(_HOME_OF.get(name, "transfer_queue.interface"))
        value: object = getattr(home, name)
        globals()[name] = value
        return value
    if name in _NOT_BUILT_YET:
        raise AttributeError(
            f"transfer_queue.{name} is not built yet: version {__version__} has the "
            f"key-value functions; {_NOT_BUILT_YET[name]} come in a later version."
        )
    raise AttributeError(f"module 'transfer_queue' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
