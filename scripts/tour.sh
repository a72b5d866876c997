#!/usr/bin/env bash
# Plays the README's tour on Docker Compose: every step's words, its commands, and what they say, held against what the README
# shows. Brings the stack up if it is not, and leaves it up. Ends with 0 if every step said what the README says.
#
#   scripts/tour.sh                    on http://127.0.0.1:8080 and 9090: look at the dashboard meanwhile
#   scripts/tour.sh --once             on a stack of its own with free ports, of which nothing is left afterwards
#
#   --pace SECONDS                     to read each step before it begins (default: 3 on a terminal, else 0)
#   REGISTRY_KIND=consul scripts/tour.sh    on Consul; or zookeeper
#
# Needs Docker with the Compose plugin (v2) and curl. Without Docker: scripts/demo.sh plays the same steps.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

once='' pace=0
if [ -t 1 ]; then pace=3; fi
while [ $# -gt 0 ]; do
    case $1 in
    --once) once=yes ;;
    --pace)
        [[ ${2:-} =~ ^[0-9]{1,5}$ ]] || { echo "tour: $1 needs a number" >&2; exit 2; }
        pace=$2
        shift
        ;;
    --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "$0"; exit ;;
    *) echo "tour: unknown argument $1; see --help" >&2; exit 2 ;;
    esac
    shift
done

fail() { printf 'tour: %s\n' "$*" >&2; exit 1; }
docker compose version >/dev/null 2>&1 || fail "Docker with the Compose plugin is missing: https://docs.docker.com/compose/install/"
docker info >/dev/null 2>&1 || fail "no Docker engine answers: is it running, and may you use it? (docker info)"
command -v curl >/dev/null || fail "curl is missing"

# shellcheck source=scripts/steps.sh
. scripts/steps.sh
kind=${REGISTRY_KIND:-etcd}
project=${COMPOSE_PROJECT_NAME:-service-discovery}
bin=$root/target/debug
if [ -n "$once" ]; then
    project=service-discovery-tour-$$
    COMPOSE_PROJECT_NAME=$project GATEWAY_PORT=$(free_port) ADMIN_PORT=$(free_port)
    export COMPOSE_PROJECT_NAME GATEWAY_PORT ADMIN_PORT
fi

work=$(mktemp -d)
clean_up() {
    local status=$?
    trap - EXIT INT TERM
    if [ "$status" != 0 ]; then docker compose logs --tail 20 >&2 || true; fi
    if [ -n "$once" ]; then docker compose --profile '*' --progress quiet down --volumes --rmi local --timeout 5 >/dev/null 2>&1 || true; fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "tour: docker compose up --build --wait"
started=$SECONDS
docker compose --progress plain --profile "$kind" --profile load build >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; fail "the build failed"; }
docker compose --progress plain up --detach --wait --wait-timeout 60
docker compose ps --format '{{.Service}}\t{{.Status}}' | sed 's/^/   /'
gateway=$(docker compose port gateway 8080)
admin=$(docker compose port gateway 9090)
echo "tour: up after $((SECONDS - started)) s, the gateway at http://$gateway"
echo "tour: look at it while it runs: http://$admin"

play "The tour" "走一遍"
play "What happens to a request" "一个请求的经过"

if [ -n "$once" ]; then
    docker compose --profile '*' --progress quiet down --volumes --rmi local
    label=label=com.docker.compose.project=$project
    left=$(docker ps -aq --filter "$label"; docker volume ls -q --filter "$label"; docker network ls -q --filter "$label")
    [ -z "$left" ] || fail "something is left: $left"
fi

echo
[ "$broken" = 0 ] || fail "$broken blocks said something else than $readme"
echo "${bold}Every step said what $readme says, and no request failed.${plain}"
[ -n "$once" ] || echo "The stack is still up: http://$admin. docker compose down --volumes ends it."
