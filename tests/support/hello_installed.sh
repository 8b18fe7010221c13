#!/usr/bin/env bash
# hello_installed.sh BUILD HELLO_C WORKER CC [EMULATOR...]: installs header, library and
# pkg-config file into a folder of its own, builds examples/hello.c with nothing else, and
# runs it.
set -euo pipefail
build=$1 source=$2 worker=$3 cc=$4
emulator=("${@:5}")
folder=$(mktemp -d)
pid=
finish() {
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT

cmake --install "$build" --component datasystem_sdk --prefix "$folder/sdk" >/dev/null
pkgconfig=$(dirname "$(find "$folder/sdk" -name datasystem.pc)")
export PKG_CONFIG_PATH=$pkgconfig
read -ra flags < <(pkg-config --cflags --libs datasystem)
"$cc" -std=gnu11 -Wall -Wextra -Werror "$source" "${flags[@]}" -pthread -o "$folder/hello"

port=$((20000 + $$ % 10000))
"$worker" --worker_address "127.0.0.1:$port" --datasystem_home_dir "$folder/home" \
    --shared_memory_size_mb 64 >"$folder/worker.txt" 2>&1 &
pid=$!
export LD_LIBRARY_PATH
LD_LIBRARY_PATH=$(dirname "$pkgconfig")
for _ in $(seq 100); do
    if "${emulator[@]}" "$folder/hello" 127.0.0.1 "$port" >"$folder/said.txt" 2>&1; then
        break
    fi
    sleep 0.1
done
diff - "$folder/said.txt" <<'SAID'
connected through shared memory
hello = world
later = worth the wait
deleted: yes
SAID
