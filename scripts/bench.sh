#!/usr/bin/env bash
# What a request through the gateway costs, beside nginx and HAProxy in the same run: builds release binaries, lets the
# three take turns in front of the same two greeters under wrk's load, and prints tables in Markdown. Gets nginx,
# HAProxy and wrk from the distribution where it may, or says how.
#
#   scripts/bench.sh                      all workloads, ten minutes
#   scripts/bench.sh --quick              the same in two
#   scripts/bench.sh 64                   only workloads whose name has this in it
#   scripts/bench.sh --plot figures.svg   draws the figures too
#   scripts/bench.sh resolve              what choosing a node costs: time and allocations
#   scripts/bench.sh discovery            how soon changes in etcd are felt, and what 10 000 nodes and 5 000 clients cost
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$root/.tools/bin:/usr/sbin:$PATH

if [ "${1:-}" = --help ]; then sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "$0"; exit; fi

scripts/setup.sh >&2

if [ "${1:-}" = resolve ]; then
    shift
    exec cargo bench --quiet --locked -p discovery --bench resolve -- "$@"
fi

missing=()
for program in nginx haproxy wrk; do command -v "$program" >/dev/null || missing+=("$program"); done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "bench: installing ${missing[*]} with apt-get" >&2
        # Their services stay as they are: the benchmark starts processes of its own.
        { apt-get update && RUNLEVEL=1 apt-get install -y --no-install-recommends "${missing[@]}"; } >&2 </dev/null
    else
        echo "bench: ${missing[*]} missing: install with the system's package manager, such as apt-get install ${missing[*]}" >&2
        exit 1
    fi
fi

cargo build --quiet --locked --release -p service-greeter -p service-gateway -p bench --features "consul zookeeper" --bins
exec "${CARGO_TARGET_DIR:-target}/release/bench" "$@"
