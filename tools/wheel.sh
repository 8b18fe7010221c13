#!/usr/bin/env bash
# wheel.sh: build sdist and wheel into dist/ and check what the wheel asks of a host.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf dist
.venv/bin/python -m build --no-isolation --outdir dist . >build/wheel.log 2>&1 || {
    tail -n 40 build/wheel.log >&2
    exit 1
}
.venv/bin/python tools/check_wheel.py dist/*.whl
ls -l dist
