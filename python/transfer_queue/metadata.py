"""What describes rows to their users."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KVBatchMeta"]


@dataclass
class KVBatchMeta:
    """Rows of one partition by key: which they are, their tags, what is produced.

    `keys[i]` and `tags[i]` belong to row i. Tags and `extra_info` are copied on
    construction, so later changes to the caller's dicts do not reach in here.
    """

    keys: list[str] = field(default_factory=list)
    tags: list[dict[str, Any]] = field(default_factory=list)
    partition_id: str | None = None
    fields: list[str] | None = None
    extra_info: dict[str, Any] | None = field(default_factory=dict)
    _size: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.tags):
            raise ValueError(
                "keys and tags must have same length, "
                f"got {len(self.keys)} keys and {len(self.tags)} tags."
            )
        if _has_duplicates(self.keys):
            raise ValueError("Got duplicated keys.")
        # A single field may be given as a str; its letters are not fields.
        if isinstance(self.fields, (list, tuple)) and _has_duplicates(self.fields):
            raise ValueError("Got duplicated fields.")
        self._size = len(self.keys)
        self.tags = [_copied(tag) for tag in self.tags]
        self.extra_info = copy.deepcopy(self.extra_info)

    @classmethod
    def taken(
        cls,
        keys: list[str],
        tags: list[dict[str, Any]],
        partition_id: str,
        fields: list[str],
    ) -> KVBatchMeta:
        """Of what is checked and nobody else has: without a look at each row."""
        meta = cls(partition_id=partition_id, fields=fields)
        meta.keys, meta.tags, meta._size = keys, tags, len(keys)
        return meta

    @property
    def size(self) -> int:
        """Number of rows."""
        return self._size

    def __len__(self) -> int:
        return self._size

    def __str__(self) -> str:
        return (
            f"KVBatchMeta(size={self._size}, partition_id={self.partition_id!r}, "
            f"keys={self.keys}, tags={self.tags}, fields={self.fields}, "
            f"extra_info={self.extra_info})"
        )

    def select_keys(self, keys_to_select: Sequence[str]) -> KVBatchMeta:
        """A new object with these rows, in this order."""
        if _has_duplicates(keys_to_select):
            raise ValueError("Contain duplicate keys.")
        row_of = {key: row for row, key in enumerate(self.keys)}
        unknown = {key for key in keys_to_select if key not in row_of}
        if unknown:
            raise RuntimeError(f"Keys {unknown} not found in current batch.")
        return self._rows([row_of[key] for key in keys_to_select])

    def reorder(self, indexes: Sequence[int]) -> None:
        """Make row i what was row `indexes[i]`, in place; tags follow their keys."""
        if len(indexes) != self._size:
            raise ValueError(
                f"Length of indexes ({len(indexes)}) does not match the batch size "
                f"({self._size})."
            )
        if _has_duplicates(indexes):
            raise ValueError("Contain duplicate indexes.")
        if any(not 0 <= index < self._size for index in indexes):
            raise ValueError(f"Indexes must be in range [0, {self._size}).")
        self.keys = [self.keys[index] for index in indexes]
        self.tags = [self.tags[index] for index in indexes]

    def chunk(self, chunks: int) -> list[KVBatchMeta]:
        """`chunks` pieces in order; the first `size % chunks` hold one row more."""
        if chunks < 1:
            raise ValueError(f"Cannot cut a batch into {chunks} chunks.")
        small, extra = divmod(self._size, chunks)
        pieces = []
        first = 0
        for number in range(chunks):
            count = small + (number < extra)
            pieces.append(self._rows(range(first, first + count)))
            first += count
        return pieces

    @classmethod
    def concat(cls, data: Sequence[KVBatchMeta]) -> KVBatchMeta:
        """The rows of all, one after the other; empty pieces do not count.

        `extra_info` is the union of all and must not differ where it overlaps.
        """
        pieces = [piece for piece in data if piece.size > 0]
        if not pieces:
            return cls()
        first = pieces[0]
        field_sets = [set(p.fields) for p in pieces if p.fields is not None]
        if any(names != field_sets[0] for names in field_sets):
            raise ValueError("Field names do not match for concatenation.")
        if any(piece.partition_id != first.partition_id for piece in pieces):
            raise ValueError("Partition do not match for concatenation.")
        return cls(
            keys=[key for piece in pieces for key in piece.keys],
            tags=[tag for piece in pieces for tag in piece.tags],
            partition_id=first.partition_id,
            fields=next((p.fields for p in pieces if p.fields is not None), None),
            # None, not {}, when there is nothing: users test for it.
            extra_info=_merged(piece.extra_info for piece in pieces) or None,
        )

    def _rows(self, rows: Sequence[int]) -> KVBatchMeta:
        return KVBatchMeta(
            keys=[self.keys[row] for row in rows],
            tags=[self.tags[row] for row in rows],
            partition_id=self.partition_id,
            fields=copy.copy(self.fields),
            extra_info=self.extra_info,
        )


_IMMUTABLE = {str, int, float, bool, bytes, type(None)}


def _copied(tag: dict[str, Any]) -> dict[str, Any]:
    """As copy.deepcopy(), which takes twenty times as long on the usual flat tag."""
    if _IMMUTABLE.issuperset(map(type, tag.values())):
        return dict(tag)
    return copy.deepcopy(tag)


def _has_duplicates(items: Sequence[Any]) -> bool:
    return len(set(items)) != len(items)


def _merged(infos: Iterable[dict[str, Any] | None]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for info in infos:
        for key, value in (info or {}).items():
            if key in merged and not _is_same(merged[key], value):
                raise ValueError(
                    f"extra_info has conflicting values for '{key}': "
                    f"{merged[key]!r} and {value!r}."
                )
            merged[key] = value
    return merged


def _is_same(left: Any, right: Any) -> bool:
    """Equal in type and value; what cannot be compared counts as different."""
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    try:
        library = type(left).__module__.partition(".")[0]
        if library == "numpy" and hasattr(left, "dtype"):
            import numpy as np

            return left.dtype == right.dtype and bool(np.array_equal(left, right))
        if library == "torch" and hasattr(left, "equal"):
            return left.dtype == right.dtype and bool(left.equal(right))
        return bool(left == right)
    except Exception:
        return False
