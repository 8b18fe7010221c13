#!/usr/bin/env bash
# Installs the peers that `make bench` measures beside us into .venv-peers: their Python
# packages from PyPI, redis-server and iperf3 from Debian. Idempotent.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-peers
stamp=$venv/.stamp-3
[ -e "$stamp" ] && exit 0
# Mooncake's programs are linked against the RDMA libraries, also for TCP.
packages=(redis-server iperf3 libibverbs1 librdmacm1 libnuma1 libcurl4)
if ! dpkg-query -W "${packages[@]}" >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ]; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            "${packages[@]}" >/dev/null
    else
        echo "peers need: sudo apt-get install ${packages[*]}" >&2
        exit 1
    fi
fi
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet torch==2.13.0
"$venv/bin/pip" install --quiet openyuanrong-datasystem==0.8.1 ray==2.60.0 redis \
    mooncake-transfer-engine-non-cuda==0.3.13.post1 tensordict omegaconf msgspec \
    numpy psutil pyzmq hydra-core prometheus_client cloudpickle matplotlib
"$venv/bin/pip" install --quiet --no-deps transferqueue==0.1.11
touch "$stamp"
