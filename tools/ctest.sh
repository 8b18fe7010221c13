#!/usr/bin/env bash
# ctest.sh PRESET JOBS: build a preset of CMakePresets.json and run its tests.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1 jobs=$2

cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset" -j "$jobs" -- --quiet
run=(ctest --preset "$preset" -j "$jobs" --no-tests=error)
case $preset in
    # ThreadSanitizer needs its shadow memory where address randomisation may put things.
    tsan) TSAN_OPTIONS=halt_on_error=1 exec setarch -R "${run[@]}" ;;
    asan) ASAN_OPTIONS=detect_stack_use_after_return=1 \
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 exec "${run[@]}" ;;
    *) exec "${run[@]}" ;;
esac
