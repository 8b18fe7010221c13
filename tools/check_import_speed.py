"""Importing our packages must stay cheap: torch, numpy and ray wait until needed.

    python tools/check_import_speed.py

Prints a line per package; exit status 1 names what got loaded, or what took too long.
"""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("torch", "numpy", "ray", "tensordict", "rich", "omegaconf", "asyncio")
LIMIT_MS = {"yr.datasystem": 20.0, "yr.datasystem.kv_client": 60.0}
_TRIES = 5

_PROBE = """
import json, sys, time
start = time.perf_counter()
import {package}
cost_ms = (time.perf_counter() - start) * 1000
print(json.dumps([cost_ms, sorted(set(sys.modules) & set({heavy!r}))]))
"""


def measure(package: str) -> tuple[float, list[str]]:
    """The best time of some fresh interpreters, and the heavy modules it loaded."""
    code = _PROBE.format(package=package, heavy=HEAVY)
    best_ms, loaded = float("inf"), []
    for _ in range(_TRIES):
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        cost_ms, loaded = json.loads(run.stdout)
        best_ms = min(best_ms, cost_ms)
    return best_ms, loaded


def main() -> int:
    failed = False
    for package, limit_ms in LIMIT_MS.items():
        cost_ms, loaded = measure(package)
        bad = bool(loaded) or cost_ms > limit_ms
        failed |= bad
        verdict = f"FAILED, loads {' '.join(loaded) or 'too slowly'}" if bad else "ok"
        print(f"{package}: {cost_ms:.1f} ms of {limit_ms:.0f} ms, {verdict}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
