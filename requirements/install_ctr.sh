#!/bin/sh
# Adds to .venv the CTR libraries of ctr.txt: those that embeddings are exported for, and that evaluate them.
# Called by `make ctr-tools`.
set -eu
cd "$(dirname "$0")/.."

PYTHON=$PWD/.venv/bin/python
STAMP=.venv/installed-ctr
STARTED=$(date +%s)

say() { printf '[%3d s] %s\n' "$(($(date +%s) - STARTED))" "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }
wanted_stamp() { sha256sum <requirements/ctr.txt | cut -d' ' -f1; }
is_installed() { [ "$(cat "$STAMP" 2>/dev/null)" = "$(wanted_stamp)" ]; }

[ -x "$PYTHON" ] || fail ".venv is missing: run make setup first"
if is_installed; then exit 0; fi
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
say "CTR libraries: $(grep -c == requirements/ctr.txt) packages of requirements/ctr.txt"
PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_REQUIRE_VIRTUALENV=0 PIP_USER=0 \
    "$PYTHON" -m pip install --no-deps --progress-bar off -r requirements/ctr.txt >"$WORK/output" 2>&1 || {
    cat "$WORK/output" >&2
    fail "the CTR libraries could not be installed"
}
wanted_stamp >"$STAMP.part"
mv "$STAMP.part" "$STAMP"
say "ready"
