#!/usr/bin/env bash
# All tests: format, lints, documentation, every crate's tests with a real etcd, Consul and ZooKeeper, faults under load, the
# README's steps, the dashboard where a browser can be had, the shell scripts, and the tour on Docker Compose where a Docker
# engine answers. Installs what is missing (scripts/setup.sh). What could not be run for want of a tool is said in the last lines.
#
#   scripts/test.sh
#   scripts/test.sh --no-docker    without Docker Compose
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
oldest_etcd=$root/.tools/etcd-oldest/etcd

# NAME VERSION PINNED, a line for each registry: what is tested here, and what docker-compose.yml has.
versions=$(scripts/setup.sh --versions)
version_of() { awk -v name="$1" '$1 == name { print $2 }' <<<"$versions"; }

stage "format"
cargo fmt --all --check

stage "lints"
cargo clippy --locked --workspace "${registries[@]}" --all-targets -- -D warnings
for registry in '' etcd consul zookeeper; do # who wants one alone, or none of them
    cargo clippy --locked -p discovery --no-default-features --features "$registry" --lib -- -D warnings
done
shellcheck -x scripts/*.sh .ci/run
if [ -e .git ]; then # as Git for Windows would check it out, whose default it is
    clone=$(mktemp -d)
    git clone -q -c core.autocrlf=true . "$clone"
    if grep -rlI --exclude-dir=.git --exclude-dir=seeds $'\r' "$clone"; then echo "these files have CR LF in a clone with core.autocrlf=true" >&2; exit 1; fi
    rm -rf "$clone"
fi
promtool check config observability/prometheus.yml
for file in docker-compose.yml Dockerfile; do # one version for containers and for processes
    grep -qF "etcd:v$(awk '$1 == "etcd" { print $3 }' <<<"$versions")" "$file" || { echo "$file has another etcd than scripts/setup.sh" >&2; exit 1; }
done

stage "documentation"
RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace "${registries[@]}" --no-deps

stage "tests, on etcd $(version_of etcd), Consul $(version_of consul), ZooKeeper $(version_of zookeeper)"
cargo test --locked --workspace "${registries[@]}"

stage "faults, one of each kind, on the same"
scripts/faults.sh --debug --quick
for registry in consul zookeeper; do scripts/faults.sh --debug --quick --registry "$registry"; done

if [ -x "$oldest_etcd" ]; then
    stage "etcd's tests and faults again, on etcd $(version_of etcd-oldest)"
    suites=()
    for suite in access cluster faults keys leases; do suites+=(--test "etcd_$suite"); done # without the scripted etcd
    ETCD_PROGRAM=$oldest_etcd cargo test --locked --workspace "${registries[@]}" "${suites[@]}"
    ETCD_PROGRAM=$oldest_etcd cargo test --locked --workspace "${registries[@]}" --test registry etcd::
    ETCD_PROGRAM=$oldest_etcd scripts/faults.sh --debug --quick
else
    left_out+=("the oldest etcd that is supported: it could not be had")
fi

stage "the README's steps, natively"
blocks() { awk '/^```console$/, /^```$/' "$1"; }
diff <(blocks README.md) <(blocks README.zh-CN.md)
scripts/demo.sh --once --all

stage "the dashboard, in a browser"
if scripts/test-dashboard.sh --check; then
    scripts/test-dashboard.sh
else
    left_out+=("the dashboard: no Chromium, or no Playwright to drive it")
fi

stage "the tour on Docker Compose"
# Where container registries are out of reach, a program of the site's own may provide the base images.
seed_images=${SEED_IMAGES:-../shared/docker/seed-images}
if [ "$docker" = no ]; then
    left_out+=("the tour on Docker Compose: --no-docker")
elif ! docker info >/dev/null 2>&1; then
    left_out+=("the tour on Docker Compose: no Docker engine answers")
else
    if [ -x "$seed_images" ]; then "$seed_images"; fi
    if docker compose version >/dev/null 2>&1; then
        scripts/tour.sh --once
    else
        left_out+=("the tour on Docker Compose: Docker has no Compose plugin")
    fi
fi

printf '\n=== all tests passed in %d s\n' "$((SECONDS - started))"
while read -r name version pinned; do
    case $version. in
    "$pinned".*) echo "tested on: $name $version" ;;
    *) echo "tested on: $name $version; not tested: $pinned" ;;
    esac
done <<<"$versions"
for what in "${left_out[@]}"; do printf 'left out: %s\n' "$what"; done
