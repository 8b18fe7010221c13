"""Keeps torch usable in a forked child.

torch copies large tensors with a pool of threads (OpenMP). A forked child inherits the
pool without its threads and would wait for them for ever, so a child has to do with one
thread; torch's own DataLoader does the same in its workers.
"""

from __future__ import annotations

import os

_is_child = False


def settle_in_child() -> None:
    """Call before work with tensors; the first call in a forked child has an effect."""
    global _is_child
    if _is_child:
        import torch

        _is_child = False
        torch.set_num_threads(1)


def _note_fork() -> None:
    global _is_child
    _is_child = True


os.register_at_fork(after_in_child=_note_fork)
