#!/usr/bin/env bash
# Does the shipped model hear on a 64-bit ARM what it hears here?
#
#     pipelines/edge/aarch64.sh [WORK]          default: build/aarch64, 0.9 GB
#
# Builds a Debian 12 for arm64 (debootstrap), installs the device package there from wheels, and
# runs it under qemu-user: nothing is emulated but the programs, no root is needed, and nothing of
# this machine is changed. What lies in WORK already is used again. Exit code 1: they disagree.
#
# Wants Debian's or Ubuntu's apt and debootstrap; fakeroot where it is not root that runs it.
#   MIRROR   a Debian mirror; default: the one in apt's sources
#   PYTHON   a Python with the device side and pip; default: .venv/bin/python
#   CPU      what qemu is to be; default: cortex-a72, as in a Raspberry Pi 4
#   SPEECHRNN_DATA   with an4/ in it: AN4 dev utterances are heard instead of whistles
set -euo pipefail
cd "$(dirname "$0")/../.."

SUITE=bookworm
PYTHON=${PYTHON:-.venv/bin/python}
CPU=${CPU:-cortex-a72}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "${1:-build/aarch64}"
WORK=$(cd "${1:-build/aarch64}" && pwd)
ROOT=$WORK/root
SITE=$ROOT/opt/speechrnn
QEMU=$WORK/qemu/usr/bin/qemu-aarch64

fail() { echo "error: $*" >&2; exit 2; }
need() { command -v "$1" >/dev/null || fail "$1 is missing; apt-get install $2"; }

need debootstrap debootstrap
need dpkg-deb dpkg
need apt-get apt
[ "$(id -u)" = 0 ] || need fakeroot fakeroot
[ -e $KEYRING ] || fail "$KEYRING is missing; apt-get install debian-archive-keyring"
"$PYTHON" -c 'import ai_edge_litert, pip' || fail "$PYTHON lacks the device side or pip; see PYTHON"

if [ -z "${MIRROR:-}" ]; then
    MIRROR=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' \
        "Codename: $SUITE" | head -n 1)
    [ -n "$MIRROR" ] || fail "apt's sources name no Debian $SUITE; set MIRROR to a Debian mirror"
fi

# apt with sources, lists and cache of its own, so that this machine's stay as they are.
private_apt() {
    "$@" -o Dir::Etc::sourcelist="$WORK/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$WORK/apt/lists" -o Dir::Cache="$WORK/apt/cache" \
        -o APT::Sandbox::User=root -qq
}

# Bookworm's own qemu 7.2 crashes in LiteRT; its backports have version 10.
if [ ! -x "$QEMU" ]; then
    echo "== qemu-user 10 from $SUITE-backports"
    rm -rf "$WORK/qemu" "$WORK/apt"
    mkdir -p "$WORK/qemu" "$WORK"/apt/{lists,cache/archives}/partial
    echo "deb [signed-by=$KEYRING] $MIRROR $SUITE-backports main" >"$WORK/apt/sources.list"
    private_apt apt-get update
    (cd "$WORK/apt" && private_apt apt-get download "qemu-user/$SUITE-backports")
    dpkg-deb -x "$WORK"/apt/qemu-user_*.deb "$WORK/qemu"
fi

# The first stage only downloads and unpacks what a system needs to boot; what was downloaded
# beside it is unpacked here. The second stage would run arm64 programs under chroot, as root.
if [ ! -x "$ROOT/usr/bin/python3.11" ]; then
    echo "== Debian $SUITE for arm64"
    rm -rf "$ROOT"
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(fakeroot)
    "${as_root[@]}" debootstrap --foreign --arch=arm64 --variant=minbase --keyring=$KEYRING \
        --include=python3-minimal,libpython3-stdlib $SUITE "$ROOT" "$MIRROR" >"$WORK/debootstrap.log" \
        || fail "debootstrap failed; see $WORK/debootstrap.log"
    for package in "$ROOT"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$ROOT"; done
fi

# there PYTHONPATH ...: the root's Python, with no other variable of this environment.
emulate=("$QEMU" -cpu "$CPU" -L "$ROOT")
there() {
    env -i HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PIP_ROOT_USER_ACTION=ignore PYTHONPATH="$1" \
        "${emulate[@]}" "$ROOT/usr/bin/python3.11" "${@:2}"
}

echo "== the device package from wheels"
rm -rf "$WORK/source" "$WORK"/wheels/speechrnn-*.whl
mkdir -p "$WORK/source" "$WORK/wheels"
# From a copy: setuptools would leave its build folder in the checkout, and use an old one there.
cp -r speechrnn setup.py pyproject.toml README.md LICENSE "$WORK/source"
"$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$WORK/wheels" "$WORK/source"
if ! cmp -s setup.py "$SITE/setup.py"; then # the requirements are not those that are there
    rm -rf "$SITE" "$WORK"/wheels/pip-*.whl
    platforms=()
    for glibc in 2014 _2_17 _2_24 _2_26 _2_27 _2_28 _2_31 _2_34 _2_35 _2_36; do # bookworm's: 2.36
        platforms+=(--platform "manylinux${glibc}_aarch64")
    done
    "$PYTHON" -m pip download --quiet --only-binary=:all: --python-version 3.11 \
        "${platforms[@]}" --dest "$WORK/wheels" "$WORK"/wheels/speechrnn-*.whl pip
    there "$WORK"/wheels/pip-*.whl -m pip install --quiet --no-index --no-compile \
        --find-links "$WORK/wheels" --target "$SITE" speechrnn
    cp setup.py "$SITE"
else
    rm -rf "$SITE"/speechrnn "$SITE"/speechrnn-*.dist-info
    there "$WORK"/wheels/pip-*.whl -m pip install --quiet --no-index --no-compile --no-deps \
        --find-links "$WORK/wheels" --target "$SITE" --upgrade speechrnn
fi

echo "== the same recordings on both"
here() { PYTHONPATH=$PWD "$PYTHON" "$@"; }
mapfile -t recordings < <(here pipelines/edge/agree.py recordings "$WORK")
here pipelines/edge/agree.py hear "$WORK/here.npz" "${recordings[@]}" >"$WORK/here.txt"
there "$SITE" pipelines/edge/agree.py hear "$WORK/there.npz" "${recordings[@]}" >"$WORK/there.txt"
here pipelines/edge/agree.py compare "$WORK/here.npz" "$WORK/there.npz"

if command -v aarch64-linux-gnu-gcc >/dev/null; then
    echo "== the C program, cross-compiled"
    make -s -B -C pipelines/edge/c CC=aarch64-linux-gnu-gcc OUT="$WORK/transcribe" \
        LITERT="$SITE/ai_edge_litert/libLiteRt.so"
    for recording in "${recordings[@]}"; do
        "${emulate[@]}" "$WORK/transcribe" speechrnn/pretrained/*.tflite "$recording"
    done | diff - "$WORK/here.txt" && echo "it hears the same"
else
    echo "== no aarch64-linux-gnu-gcc: the C program was not tried (apt-get install" \
        "gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"
fi
