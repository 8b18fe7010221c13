"""The package as a stranger meets it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import transfer_queue

HEAVY = ("torch", "ray", "tensordict", "numpy", "omegaconf", "asyncio")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        f"import sys, transfer_queue; print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", transfer_queue.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(transfer_queue, name) is not None
    assert name in dir(transfer_queue)


@pytest.mark.parametrize("name", ["BatchMeta", "save_checkpoint", "StreamingDataset"])
def test_a_name_that_is_not_built_yet_says_so(name: str) -> None:
    with pytest.raises(AttributeError, match=f"{name} is not built yet"):
        getattr(transfer_queue, name)
    assert name not in transfer_queue.__all__


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'kv_pot'$"):
        transfer_queue.kv_pot  # noqa: B018


def test_get_client_before_init_says_what_to_do() -> None:
    with pytest.raises(AssertionError) as caught:
        transfer_queue.get_client()
    assert str(caught.value) == (
        "Please initialize the TransferQueue first by calling `tq.init()`!"
    )


def test_close_without_init_is_harmless() -> None:
    transfer_queue.close()
    transfer_queue.close()
