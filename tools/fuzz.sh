#!/usr/bin/env bash
# fuzz.sh SECONDS JOBS: run every fuzz target for that long, starting from its corpus in
# tests/fuzz/corpus/NAME. New inputs stay in build/fuzz-corpus; a crash is left in
# build/fuzz-crashes and ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1 jobs=$2

cmake --preset fuzz >/dev/null
cmake --build --preset fuzz -j "$jobs" -- --quiet
mkdir -p build/fuzz-crashes
shopt -s nullglob
targets=(build/fuzz/tests/fuzz/*_fuzz)
[ ${#targets[@]} != 0 ] || { echo "fuzz: no targets in build/fuzz/tests/fuzz" >&2; exit 1; }
for target in "${targets[@]}"; do
    name=$(basename "$target")
    seeds=tests/fuzz/corpus/$name
    found=build/fuzz-corpus/$name
    mkdir -p "$found"
    echo "fuzz: $name for $seconds s"
    "$target" -max_total_time="$seconds" -timeout=10 -print_final_stats=1 \
        -artifact_prefix="build/fuzz-crashes/$name-" "$found" \
        $([ -d "$seeds" ] && echo "$seeds") </dev/null
done
echo "fuzz: no crash in ${#targets[@]} targets"
