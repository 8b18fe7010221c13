"""What transfer_queue raises of its own.

    TransferQueueError
    ├── BlockCorruptError       (also RuntimeError)  bytes are not what was stored
    ├── ValueUnreadableError    (also RuntimeError)  this process cannot rebuild a value
    └── ValueNotStorableError   (also TypeError)     a value cannot be turned into bytes
        └── PickleRefusedError                       it could, but TQ_ALLOW_PICKLE=0

Each also derives from the built-in exception that callers of such a function expect.
"""

from __future__ import annotations


class TransferQueueError(Exception):
    """Base of everything that only this package raises."""


class BlockCorruptError(TransferQueueError, RuntimeError):
    """Bytes read from the store do not form a block; nothing of them was returned."""


class ValueUnreadableError(TransferQueueError, RuntimeError):
    """The bytes are right, but what they name cannot be imported here."""


class ValueNotStorableError(TransferQueueError, TypeError):
    """A value can be carried neither by msgpack nor by pickle."""


class PickleRefusedError(ValueNotStorableError):
    """A value needs pickle, and TQ_ALLOW_PICKLE=0 refuses it in this process."""
