"""The distribution that this one stands in for must not be installed beside it."""

from __future__ import annotations

import os
import sys

OTHERS = {
    "openyuanrong_datasystem": "openyuanrong-datasystem",
    "openyuanrong_datasystem_sdk": "openyuanrong-datasystem-sdk",
}


def describe_conflict() -> str | None:
    """What to tell the user, or None. Reads folder names only: importlib.metadata
    takes longer than all else that dscli does."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            distribution = OTHERS.get(name.partition("-")[0])
            if distribution is not None and name.endswith((".dist-info", ".egg-info")):
                return (
                    f"{distribution} is installed in this environment too ({folder}): "
                    "both have the package yr.datasystem, and the one that was "
                    f"installed last wins. Run `pip uninstall {distribution}`, then "
                    '`pip install --force-reinstall --no-deps "TransferQueue"`.'
                )
    return None
