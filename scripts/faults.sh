#!/usr/bin/env bash
# What the system survives, done for real: builds release binaries, runs one fault after another against etcd, greeters
# and a gateway under load, and prints a table. Ends non-zero if one falls short.
#
#   scripts/faults.sh                     all of them
#   scripts/faults.sh --quick             one of each kind
#   scripts/faults.sh --long              those too that take many minutes each
#   scripts/faults.sh killed etcd_wiped   these
#   scripts/faults.sh --list              what there is
#
#   --registry consul                     what every registry has to survive, on Consul; or on zookeeper
#   --debug                               first: a debug build, built sooner
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$root/.tools/bin:$PATH

profile=release
case ${1:-} in
--help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "$0"; exit ;;
--debug) profile=debug; shift ;;
esac

registries=()
for argument in "$@"; do case $argument in consul | zookeeper) registries+=("$argument") ;; esac; done
scripts/setup.sh "${registries[@]}" >&2
cargo build --quiet --locked --profile "${profile/debug/dev}" --features "consul zookeeper" -p service-greeter -p service-gateway -p faults --bins
exec "${CARGO_TARGET_DIR:-target}/$profile/faults" "$@"
