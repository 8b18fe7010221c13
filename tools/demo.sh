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

# A cluster with its own port and folder, found by RAY_ADDRESS and by nobody else.
start_ray() {
    local port
    port=$(free_port)
    RAY_TMPDIR=$folder "$bin/ray" start --head --block --disable-usage-stats \
        --include-dashboard=false --num-cpus=16 --node-ip-address=127.0.0.1 \
        --port="$port" --temp-dir="$folder/ray" \
        >"$folder/ray.log" 2>&1 </dev/null &
    ray_pid=$!
    for _ in $(seq 300); do
        grep -q "Ray runtime started" "$folder/ray.log" && break
        kill -0 "$ray_pid" 2>/dev/null || { cat "$folder/ray.log" >&2; exit 1; }
        sleep 0.1
    done
    export RAY_ADDRESS=127.0.0.1:$port
}

title() { printf '\n=== %s\n' "$*"; }

title "single node, on a Ray cluster"
start_ray
"$bin/python" examples/single_node.py
stop_ray
unset RAY_ADDRESS

title "single node, without Ray"
RAY_TMPDIR=$folder/none "$bin/python" examples/single_node.py

title "text pipeline"
RAY_TMPDIR=$folder/none "$bin/python" examples/text_pipeline.py
