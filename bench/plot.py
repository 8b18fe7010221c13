"""Draws one plot, for bench/growth.py.

JSON on stdin: {"path", "title", "y", "x": [...], "rows": {label: [...]}}.

Both axes are logarithmic. The file is the same for the same numbers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "datasystem"
matplotlib.rcParams["svg.fonttype"] = "none"

from matplotlib import pyplot  # noqa: E402


def main() -> None:
    request = json.load(sys.stdin)
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for label, values in request["rows"].items():
        axes.plot(request["x"][: len(values)], values, marker="o", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(request["x"], [f"{x:,}" for x in request["x"]])
    axes.minorticks_off()
    axes.set_title(request["title"])
    axes.set_ylabel(request["y"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    path = Path(request["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
