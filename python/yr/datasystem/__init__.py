"""The Python SDK of datasystem, a shared-memory object store.

    from yr.datasystem import KVClient

    with KVClient("127.0.0.1", 31501) as client:
        client.set("key", b"value")
        client.get(["key"])  # [b"value"]

Importing the package is cheap: a name loads what it needs when it is first used.
"""

from __future__ import annotations

from yr.datasystem._conflict import refuse_other_distribution

TYPE_CHECKING = False  # typing has the same, but takes longer to load than all of this.
if TYPE_CHECKING:
    from typing import Any

    from yr.datasystem._core import Client as BlockClient
    from yr.datasystem._core import DatasystemError as DatasystemError
    from yr.datasystem._core import QueueConnection as QueueConnection
    from yr.datasystem._core import RowRuns as RowRuns
    from yr.datasystem._core import __version__ as __version__
    from yr.datasystem._core import copy_bytes as copy_bytes
    from yr.datasystem._core import copy_pieces as copy_pieces
    from yr.datasystem.kv_client import ExistenceOpt as ExistenceOpt
    from yr.datasystem.kv_client import KVClient as KVClient
    from yr.datasystem.kv_client import ReadOnlyBuffer as ReadOnlyBuffer
    from yr.datasystem.kv_client import ReadParam as ReadParam
    from yr.datasystem.kv_client import SetParam as SetParam
    from yr.datasystem.object_client import WriteMode as WriteMode
    from yr.datasystem.util import Context as Context
    from yr.datasystem.util import Status as Status

__all__ = [
    "BlockClient",
    "Context",
    "DatasystemError",
    "ExistenceOpt",
    "KVClient",
    "QueueConnection",
    "ReadOnlyBuffer",
    "ReadParam",
    "SetParam",
    "Status",
    "WriteMode",
]

# Public name -> the module that has it, and its name there.
_WHERE = {
    "BlockClient": ("_core", "Client"),
    "Context": ("util", "Context"),
    "DatasystemError": ("_core", "DatasystemError"),
    "ExistenceOpt": ("kv_client", "ExistenceOpt"),
    "KVClient": ("kv_client", "KVClient"),
    "QueueConnection": ("_core", "QueueConnection"),
    "ReadOnlyBuffer": ("kv_client", "ReadOnlyBuffer"),
    "ReadParam": ("kv_client", "ReadParam"),
    "RowRuns": ("_core", "RowRuns"),
    "SetParam": ("kv_client", "SetParam"),
    "Status": ("util", "Status"),
    "WriteMode": ("object_client", "WriteMode"),
    "__version__": ("_core", "__version__"),
    "copy_bytes": ("_core", "copy_bytes"),
    "copy_pieces": ("_core", "copy_pieces"),
}

_NOT_BUILT_YET = frozenset(
    {
        "Blob",
        "Buffer",
        "ConsistencyType",
        "CoordinatorServiceDiscovery",
        "CoordinatorServiceDiscoveryOptions",
        "CopyRange",
        "DeviceBlobList",
        "DsClient",
        "DsTensorClient",
        "ErrorCode",
        "Future",
        "FutureTimeoutException",
        "HeteroClient",
        "MetaInfo",
        "ObjectClient",
        "PerfClient",
        "Result",
        "ServiceAffinityPolicy",
        "ServiceDiscovery",
        "ServiceDiscoveryOptions",
        "StreamClient",
        "SubconfigType",
        "TransferEngine",
    }
)

refuse_other_distribution()


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        import importlib

        module, its_name = _WHERE[name]
        value = getattr(importlib.import_module(f"{__name__}.{module}"), its_name)
        globals()[name] = value
        return value
    text = f"module {__name__} has no attribute {name}"
    if name in _NOT_BUILT_YET:
        text += ": it is not built yet"
    raise AttributeError(text)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
