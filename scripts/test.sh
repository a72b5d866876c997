#!/usr/bin/env bash
# All tests: format, lints, documentation, every crate's tests with a real etcd, faults under load, the demo's tour, the
# shell scripts, and the walkthrough with Docker Compose where a Docker engine answers. Installs what is missing (scripts/setup.sh).
# What could not be run for want of a tool is said in the last lines.
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
scripts/setup.sh
for tool in shellcheck promtool; do
    if ! command -v "$tool" >/dev/null && ! scripts/setup.sh --all; then
        left_out+=("$tool: not installed")
    fi
done

stage "format"
cargo fmt --all --check

stage "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings
if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh .ci/run; fi
if command -v promtool >/dev/null; then promtool check config observability/prometheus.yml; fi

stage "documentation"
RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps

stage "tests"
cargo test --locked --workspace

stage "faults, one of each kind"
scripts/faults.sh --debug --quick

stage "the demo's tour"
scripts/demo.sh --once

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
