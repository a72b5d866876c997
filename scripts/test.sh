#!/usr/bin/env bash
# All tests: format, lints, documentation, every crate's tests with a real etcd, Consul and ZooKeeper, faults under load, the
# demo's tour, the dashboard where a browser can be had, the shell scripts, and the walkthrough with Docker Compose where a
# Docker engine answers. Installs what is missing (scripts/setup.sh). What could not be run for want of a tool is said in the last lines.
#
#   scripts/test.sh
#   scripts/test.sh --no-docker    without the compose walkthrough
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$root/.tools/bin:$PATH

docker=yes
case ${1:-} in
'') ;;
--no-docker) docker=no ;;
--help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "$0"; exit ;;
*) echo "test: unknown argument $1; see --help" >&2; exit 2 ;;
esac

left_out=()
started=$SECONDS
stage() { printf '\n=== %s (after %d s)\n' "$*" "$((SECONDS - started))"; }

stage "what is needed"
scripts/setup.sh --all
registries=(--features 'consul zookeeper')

stage "format"
cargo fmt --all --check

stage "lints"
cargo clippy --locked --workspace "${registries[@]}" --all-targets -- -D warnings
cargo clippy --locked -p discovery --no-default-features --lib -- -D warnings # who wants none of them
shellcheck scripts/*.sh .ci/run
promtool check config observability/prometheus.yml

stage "documentation"
RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace "${registries[@]}" --no-deps

stage "tests"
cargo test --locked --workspace "${registries[@]}"

stage "faults, one of each kind"
scripts/faults.sh --debug --quick
for registry in consul zookeeper; do scripts/faults.sh --debug --quick --registry "$registry"; done

stage "the demo's tour"
scripts/demo.sh --once

stage "the dashboard, in a browser"
if scripts/test-dashboard.sh --check; then
    scripts/test-dashboard.sh
else
    left_out+=("the dashboard: no Chromium, or no Playwright to drive it")
fi

stage "the compose walkthrough"
# Where container registries are out of reach, a program of the site's own may provide the base images.
seed_images=${SEED_IMAGES:-../shared/docker/seed-images}
if [ "$docker" = no ]; then
    left_out+=("the compose walkthrough: --no-docker")
elif ! docker info >/dev/null 2>&1; then
    left_out+=("the compose walkthrough: no Docker engine answers")
else
    if [ -x "$seed_images" ]; then "$seed_images"; fi
    if docker compose version >/dev/null 2>&1; then
        scripts/compose-walkthrough.sh
    else
        left_out+=("the compose walkthrough: Docker has no Compose plugin")
    fi
fi

printf '\n=== all tests passed in %d s\n' "$((SECONDS - started))"
for what in "${left_out[@]}"; do printf 'left out: %s\n' "$what"; done
