#!/usr/bin/env bash
# soak.sh SECONDS JOBS: the random C tests and the simulations again and again, each round
# with a new seed, with whole-structure checks and sanitizers on. Stops at the first
# failure and names the seed.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1 jobs=$2
random_tests='^(queue_random_test|model_test|conn_test)$' # Those that use test_seed().

cmake --preset asan >/dev/null
cmake --build --preset asan -j "$jobs" -- --quiet
end=$((SECONDS + seconds))
rounds=0
while [ "$SECONDS" -lt "$end" ]; do
    seed=$(od -An -N6 -tu8 /dev/urandom | tr -d ' ')
    TEST_SEED=$seed ctest --preset asan -R "$random_tests" -j "$jobs" --no-tests=error \
        --output-on-failure >build/soak.log 2>&1 </dev/null || {
        tail -n 60 build/soak.log >&2
        echo "soak: failed after $rounds rounds; repeat with TEST_SEED=$seed" >&2
        exit 1
    }
    for simulation in sim cluster_sim; do
        "build/asan/tests/$simulation/$simulation" --seed "$seed" --count 20 \
            >build/soak.log 2>&1 || {
            tail -n 60 build/soak.log >&2 # Says how to repeat it.
            exit 1
        }
    done
    rounds=$((rounds + 1))
done
echo "soak: $rounds rounds in $seconds s, no failure"
