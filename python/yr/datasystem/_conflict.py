"""Two distributions that write into the folder yr/datasystem cannot both work."""

from __future__ import annotations

import os
import sys

_OTHERS = ("openyuanrong_datasystem-", "openyuanrong_datasystem_sdk-")


def refuse_other_distribution() -> None:
    """Raise ImportError if openyuanrong-datasystem is installed in this environment.

    The program dscli ends with that text alone: it imports this package before any code
    of its own could catch the error.

    Reads the names in the folders of sys.path, as any import does; importlib.metadata
    says the same in ten times the time.
    """
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.startswith(_OTHERS) and name.endswith((".dist-info", ".egg-info")):
                explanation = _explain(name, folder)
                if [os.path.basename(word) for word in sys.argv[:1]] == ["dscli"]:
                    raise SystemExit(f"dscli: {explanation}")
                raise ImportError(explanation)


def _explain(name: str, folder: str) -> str:
    distribution = name.partition("-")[0].replace("_", "-")
    return (
        f"{distribution} is installed in {folder or os.getcwd()}. It has files of the "
        "same names as this package, yr.datasystem, and the two overwrite each other. "
        f"Remove it with `pip uninstall {distribution}`, then put back what that took "
        "along with `pip install --force-reinstall --no-deps TransferQueue`."
    )
