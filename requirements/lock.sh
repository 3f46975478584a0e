#!/bin/sh
# Resolves cpu.in and gpu.in into fully pinned lists for Linux, Python 3.11 and newer.
# Usage: requirements/lock.sh PYTHON   (installs uv into a throw-away environment)
# Pins stay where the *.in files allow it; UPGRADE=1 takes the newest versions of everything.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$1" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet uv
for backend in cpu gpu; do
    cp left_out.txt "$work/overrides.txt"
    links=
    if [ "$backend" = cpu ]; then  # the +cpu wheel of torch is not on the index
        echo "triton ; sys_platform == 'never'" >> "$work/overrides.txt"
        links=$("$work/venv/bin/pip" config get global.find-links 2>/dev/null || echo https://download.pytorch.org/whl/torch/)
    fi
    [ -n "${UPGRADE:-}" ] || cp "$backend.txt" "$work/$backend.txt"  # uv prefers the pins that it finds there
    "$work/venv/bin/uv" pip compile "$backend.in" --override "$work/overrides.txt" ${links:+--find-links "$links"} \
        --python-version 3.11 --universal --no-annotate --no-header --quiet --output-file "$work/$backend.txt"
    { echo "# Made by requirements/lock.sh from $backend.in. Installed with --no-deps: the list is complete."
      grep -v -E "sys_platform == '(never|win32)'|sys_platform == 'emscripten'" "$work/$backend.txt"
    } > "$backend.txt"
done
