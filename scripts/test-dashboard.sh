#!/usr/bin/env bash
# The dashboard in a real browser: etcd, greeters and a gateway come up, nodes join, are killed, drained and many, etcd goes
# and comes, and a headless Chromium has to show it. Needs Debian's or Ubuntu's package `chromium` (as CHROMIUM names it, or found
# on the PATH; installed where apt-get and root are there) and gets Playwright, which drives it, into .tools/venv.
#
#   scripts/test-dashboard.sh
#   scripts/test-dashboard.sh --pictures docs    keep pictures of the page, light and dark, for the README
#   scripts/test-dashboard.sh --check            only see whether a browser can be had; exit code 3 if not
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$root/.tools/bin:$PATH
venv=$root/.tools/venv

check='' pictures=()
while [ $# -gt 0 ]; do
    case $1 in
    --check) check=yes ;;
    --pictures)
        [ -n "${2:-}" ] || { echo "test-dashboard: --pictures needs a directory" >&2; exit 2; }
        pictures=(--pictures "$2")
        shift
        ;;
    --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "$0"; exit ;;
    *) echo "test-dashboard: unknown argument $1; see --help" >&2; exit 2 ;;
    esac
    shift
done

missing() { printf 'test-dashboard: %s\n' "$@" >&2; exit 3; }

find_browser() { command -v "${CHROMIUM:-chromium}" || command -v chromium-browser || command -v google-chrome; }

if ! find_browser >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "test-dashboard: installing the package chromium with apt-get"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium >/dev/null; } || true
fi
CHROMIUM=$(find_browser) || missing "Chromium is missing: sudo apt-get install chromium, or name one with CHROMIUM=…"
export CHROMIUM
if ! "$venv/bin/python" -c 'import playwright' 2>/dev/null; then
    { python3 -m venv "$venv" && "$venv/bin/pip" install -q 'playwright>=1.40'; } ||
        missing "Playwright could not be installed: it needs python3 with venv (sudo apt-get install python3-venv) and PyPI"
fi
[ -z "$check" ] || exit 0

scripts/setup.sh
build=(cargo build --locked --quiet --features "consul zookeeper") # as the other scripts, so that nothing is built twice
"${build[@]}" -p service-greeter -p service-gateway -p load --bins
exec "$venv/bin/python" scripts/test-dashboard.py --bin "${CARGO_TARGET_DIR:-target}/debug" "${pictures[@]}"
