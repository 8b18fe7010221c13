#!/usr/bin/env bash
# Makes this folder ready to work in: system packages, .venv with torch, ray and our
# package (editable), developer tools. Does only what is missing; when nothing changed it
# only lets ninja bring the C code up to date. PYTHON and TORCH_VERSION may be set.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
torch_version=${TORCH_VERSION:-2.13.0}
venv=.venv
say() { echo "setup: $*"; }

need_debian=(build-essential cmake ninja-build pkg-config clang clang-format clang-tidy
    libuv1-dev libxxhash-dev libsodium-dev libjansson-dev libcurl4-openssl-dev libcmocka-dev python3-dev python3-venv iproute2 nftables libfaketime openssh-client openssh-server)
need_fedora=(gcc make cmake ninja-build pkgconf-pkg-config clang clang-tools-extra
    compiler-rt libuv-devel libuv-static xxhash-devel libsodium-devel libsodium-static jansson-devel jansson-static libcurl-devel libcmocka-devel python3-devel iproute nftables libfaketime openssh-clients openssh-server)

# The sanitizers of clang are a package named after its version.
clang_runtime() {
    local version
    version=$(apt-cache depends clang 2>/dev/null |
        sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
    echo "libclang-rt-${version:-14}-dev"
}

# A package may be here for another processor too, to cross-compile for it.
missing_debian() {
    local name native
    native=$(dpkg --print-architecture)
    for name in "${need_debian[@]}" "$(clang_runtime)"; do
        dpkg-query -W -f='${Architecture} ${db:Status-Status}\n' "$name" 2>/dev/null |
            grep -Eq "^($native|all) installed$" || echo "$name"
    done
}

install_debian() {
    local missing
    mapfile -t missing < <(missing_debian)
    [ ${#missing[@]} = 0 ] && return
    if [ "$(id -u)" != 0 ]; then
        say "system packages are missing; run this, then make setup again:" >&2
        echo "    sudo apt-get install -y ${missing[*]}" >&2
        exit 1
    fi
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install_system_packages() {
    if command -v apt-get >/dev/null; then
        install_debian
    elif command -v dnf >/dev/null; then
        rpm -q "${need_fedora[@]}" >/dev/null 2>&1 && return
        say "system packages are missing; run this, then make setup again:" >&2
        echo "    sudo dnf install -y ${need_fedora[*]}" >&2
        exit 1
    else
        say "no apt-get or dnf here: see to ${need_debian[*]}"
    fi
}

make_venv() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        say "$python is older than 3.10; set PYTHON to a newer one" >&2
        exit 1
    }
    [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
}

has() { # has DISTRIBUTION
    "$venv/bin/python" -c 'import importlib.metadata as m, sys
try: m.version(sys.argv[1])
except m.PackageNotFoundError: sys.exit(1)' "$1"
}

install_python_packages() {
    local pip=("$venv/bin/pip" install --quiet --disable-pip-version-check)
    # torch first: the requirement of our package would take the newest and largest one.
    has torch || {
        say "installing torch $torch_version"
        "${pip[@]}" "torch==$torch_version"
    }
    say "installing developer tools"
    "${pip[@]}" -r requirements-dev.txt
    say "building and installing TransferQueue (editable)"
    rm -rf build/editable-*
    "${pip[@]}" --no-build-isolation -e ".[yuanrong]"
}

# Debian's, unpacked: to install it would start it, at a port that users may want.
fetch_etcd() {
    local folder=build/etcd
    command -v etcd >/dev/null || [ -x $folder/usr/bin/etcd ] && return
    mkdir -p $folder
    if (cd $folder && apt-get download -qq etcd-server && dpkg -x etcd-server_*.deb .) \
        >$folder/fetch.log 2>&1; then
        rm -f $folder/etcd-server_*.deb
    else
        say "no etcd here: tests that need one are skipped ($folder/fetch.log says why)"
    fi
}

inputs() {
    "$python" -c 'import sys; print(sys.version, sys.prefix)'
    cat pyproject.toml requirements-dev.txt tools/setup.sh cmake/*.cmake
    grep DS_VERSION include/datasystem/datasystem.h
    pwd
}

mkdir -p build
exec 9>build/.setup.lock
flock 9 # Two make runs at one time take turns.

stamp=$venv/.setup-stamp
now=$(inputs | sha256sum)
if [ ! -x "$venv/bin/dscli" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$now" ]; then
    install_system_packages
    make_venv
    install_python_packages
    fetch_etcd
    echo "$now" >"$stamp"
fi
for folder in build/editable-*/; do
    ninja -C "$folder" >"$folder/ninja.log" 2>&1 || {
        cat "$folder/ninja.log" >&2
        exit 1
    }
done
say "ready: $("$venv/bin/dscli" --version) in $venv"
