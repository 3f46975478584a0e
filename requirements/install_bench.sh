#!/bin/sh
# Adds to .venv what the benchmarks measure against: Arctic Inference's suffix tree, compiled from source.
# Its build tools go to a temporary folder: only what runs is installed. Called by `make bench-tools`.
set -eu
cd "$(dirname "$0")/.."

PYTHON=$PWD/.venv/bin/python
ARCTIC=arctic-inference==0.3.0
BUILD_TOOLS="nanobind==2.9.2 grpcio-tools==1.85.1 cmake==4.4.4 wheel==0.48.0"
STARTED=$(date +%s)

say() { printf '[%3d s] %s\n' "$(($(date +%s) - STARTED))" "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

is_installed() {
    "$PYTHON" - "$ARCTIC" >/dev/null 2>&1 <<'END'
import sys
from importlib.metadata import version
name, wanted = sys.argv[1].split("==")
if version(name) != wanted:
    raise SystemExit(1)
from arctic_inference.suffix_decoding import SuffixDecodingCache
END
}

# Runs a command silently; its output is shown when it fails.
run() { "$@" >"$WORK/output" 2>&1 || give_up; }
give_up() {
    cat "$WORK/output" >&2
    fail "$ARCTIC could not be built; nothing else was changed (it needs a C++ compiler)"
}

pip_install() {
    PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_REQUIRE_VIRTUALENV=0 PIP_USER=0 \
        "$PYTHON" -m pip install --no-deps --progress-bar off "$@"
}

[ -x "$PYTHON" ] || fail ".venv is missing: run make setup first"
if is_installed; then exit 0; fi
command -v c++ >/dev/null || command -v g++ >/dev/null || fail "$ARCTIC needs a C++ compiler (c++ or g++), none found"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
say "build tools of $ARCTIC"
# shellcheck disable=SC2086
run pip_install --target "$WORK/tools" $BUILD_TOOLS
say "compiling $ARCTIC; about two minutes, once"
PYTHONPATH=$WORK/tools PATH=$WORK/tools/bin:$PATH run pip_install --no-build-isolation "$ARCTIC"
is_installed || fail "$ARCTIC was installed but cannot be imported"
say "ready"
