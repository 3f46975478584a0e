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

# The CTR libraries live with what cpu.txt pins (gpu.txt pins the same); ctr.txt lists only what they need beyond that.
# RecBole asks for an old Ray, which only its hyperparameter search uses: its wish is overridden.
cp left_out.txt "$work/overrides.txt"
echo "ray==$(sed -n 's/^ray==//p' cpu.txt)" >> "$work/overrides.txt"
echo "triton ; sys_platform == 'never'" >> "$work/overrides.txt"
[ -n "${UPGRADE:-}" ] || [ ! -f ctr.txt ] || cp ctr.txt "$work/ctr.txt"
links=$("$work/venv/bin/pip" config get global.find-links 2>/dev/null || echo https://download.pytorch.org/whl/torch/)
"$work/venv/bin/uv" pip compile ctr.in --constraint cpu.txt --override "$work/overrides.txt" --find-links "$links" \
    --python-version 3.11 --universal --no-annotate --no-header --quiet --output-file "$work/ctr.txt"
for list in cpu.txt assets.txt; do sed -n 's/^\([A-Za-z0-9._-]*\)==.*/^\1==/p' $list; done | sort -u > "$work/pinned"
{ echo "# Made by requirements/lock.sh from ctr.in. Installed with --no-deps beside cpu.txt or gpu.txt."
  grep -v -f "$work/pinned" "$work/ctr.txt" | grep -v -E "sys_platform == '(never|win32)'|sys_platform == 'emscripten'"
} > ctr.txt
