#!/usr/bin/env bash
# lint.sh: everything that can be said about the sources without running them. Goes
# on after a failure, so that one run shows them all.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=()

step() { # step NAME COMMAND...
    local name=$1
    shift
    "$@" </dev/null || failed+=("$name")
}

c_format() {
    git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror
}

# clang-tidy reads the commands of the tests' build.
c_tidy() {
    cmake --preset dev >/dev/null && .venv/bin/python tools/tidy.py build/dev
}

python_types() {
    .venv/bin/mypy --no-error-summary python/yr python/transfer_queue &&
        .venv/bin/mypy --no-error-summary tools bench examples
}

step "include direction" python3 tools/check_layers.py
step "sizes" python3 tools/check_sizes.py
step "paths" python3 tools/check_paths.py
step "generated files (make flags)" python3 tools/generate_flags.py --check
step "clang-format (make fmt)" c_format
step "ruff" .venv/bin/ruff check --quiet .
step "ruff format (make fmt)" .venv/bin/ruff format --quiet --check .
step "mypy" python_types
step "codespell" .venv/bin/codespell
step "clang-tidy" c_tidy

if [ ${#failed[@]} != 0 ]; then
    printf 'lint: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "lint: all well"
