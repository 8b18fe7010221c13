#!/usr/bin/env bash
# demo.sh: the guide's single-node demo on a Ray cluster of its own, the same file without
# Ray, then the text pipeline. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
folder=$(mktemp -d "${TMPDIR:-/tmp}/tq-demo.XXXXXX")
ray_pid=

stop_ray() {
    [ -n "$ray_pid" ] || return 0
    kill -TERM "$ray_pid" 2>/dev/null || true
    timeout 20 tail --pid="$ray_pid" -f /dev/null || kill -KILL "$ray_pid" || true
    ray_pid=
}

finish() {
    stop_ray
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Ports that nobody listens on now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}

# A cluster with its own port and folder, which RAY_TMPDIR lets the demo find as it would
# find one that the user started.
start_ray() {
    : >"$folder/ray.log"
    "$bin/ray" start --head --block --disable-usage-stats --include-dashboard=false \
        --num-cpus=16 --port="$(free_port)" >"$folder/ray.log" 2>&1 </dev/null &
    ray_pid=$!
    for _ in $(seq 600); do
        grep -q "Ray runtime started" "$folder/ray.log" && return
        kill -0 "$ray_pid" 2>/dev/null || break
        sleep 0.1
    done
    cat "$folder/ray.log" >&2
    exit 1
}

title() { printf '\n=== %s\n' "$*"; }

unset RAY_ADDRESS TQ_CONTROLLER_ADDRESS
export RAY_TMPDIR=$folder

title "single node, on a Ray cluster"
start_ray
"$bin/python" examples/single_node.py
stop_ray

export RAY_TMPDIR=$folder/none
mkdir "$RAY_TMPDIR"
title "single node, without Ray"
"$bin/python" examples/single_node.py

title "text pipeline"
"$bin/python" examples/text_pipeline.py
