#!/usr/bin/env bash
# The README's walkthrough with Docker Compose, each step checked: build, up, ask, scale up, pin a version, scale down
# under requests, down. Ends with 0 when every step held, and leaves nothing behind.
#
#   scripts/compose-walkthrough.sh
#
# Needs Docker with the Compose plugin (v2) and curl. It takes a project name of its own and free ports: a stack that
# is up already is not touched.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export COMPOSE_PROJECT_NAME=service-discovery-walkthrough-$$
export GATEWAY_PORT=0 ADMIN_PORT=0 # 0: any free port

say() { printf '\n== %s\n' "$*"; }
pass() { printf '   ok: %s\n' "$*"; }
fail() { printf 'compose-walkthrough: %s\n' "$*" >&2; exit 1; }

compose() { # quietly: its words are shown when it fails
    docker compose --progress plain "$@" >"$work/compose.log" 2>&1 ||
        { cat "$work/compose.log" >&2; fail "docker compose $* failed"; }
}

clean_up() {
    local status=$?
    trap - EXIT INT TERM
    rm -f "$work/asking" && wait
    if [ "$status" != 0 ]; then docker compose logs --tail 20 >&2 || true; fi
    docker compose --progress quiet down --volumes --rmi local --timeout 5 >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$status"
}

# One line for each of N requests: status, instance, version, as the gateway's headers tell.
ask() { # N [HEADER]
    curl -sS --max-time 20 -o /dev/null -D - ${2:+-H "$2"} "$gateway/greeter/greet/Ada?[1-$1]" | tr -d '\r' | awk '
        /^HTTP\//              { if (status) print status, by, version; status = $2; by = version = "-" }
        tolower($1) == "x-served-by:"      { by = $2 }
        tolower($1) == "x-served-version:" { version = $2 }
        END                    { if (status) print status, by, version }'
}

# What the lines of `ask` say, counted: "  10 200 172.18.0.3:8080 v1".
counted() { sort | uniq -c; }

# Waits until N instances answer, 10 of 10 N requests each: that is round robin over all of them and no others.
expect_round_robin() { # N
    local deadline=$((SECONDS + 30))
    until ask $((10 * $1)) | counted >"$work/seen"; [ "$(grep -c '^ *10 200 ' "$work/seen")" = "$1" ]; do
        grep -v '^ *[0-9]* 200 ' "$work/seen" && fail "that is not a 200"
        [ "$SECONDS" -lt "$deadline" ] || { cat "$work/seen" >&2; fail "not $1 instances in turn after 30 s"; }
    done
    cat "$work/seen"
    pass "$1 instances, 10 requests each"
}

keep_asking() { # until $work/asking is gone
    while [ -e "$work/asking" ]; do ask 20 || echo "curl failed"; done
}

docker compose version >/dev/null 2>&1 || fail "Docker with the Compose plugin is missing: https://docs.docker.com/compose/install/"
docker info >/dev/null 2>&1 || fail "no Docker engine answers: is it running, and may you use it? (docker info)"
command -v curl >/dev/null || fail "curl is missing"
work=$(mktemp -d)
trap clean_up EXIT
trap 'exit 130' INT TERM

say "docker compose build"
started=$SECONDS
compose build
pass "built in $((SECONDS - started)) s"

say "docker compose up --wait"
started=$SECONDS
compose up --detach --wait --wait-timeout 60
gateway=http://$(docker compose port gateway 8080)
admin=http://$(docker compose port gateway 9090)
docker compose ps --format '{{.Service}}\t{{.Status}}' | sed 's/^/   /'
pass "healthy after $((SECONDS - started)) s"

say "curl $gateway/greeter/greet/Ada"
curl -sS -i --max-time 5 "$gateway/greeter/greet/Ada" | tr -d '\r' | tee "$work/answer" | sed 's/^/   /'
echo
grep -q '^HTTP/1.1 200' "$work/answer" || fail "the answer is not a 200"
grep -q '"message":"Hello, Ada!"' "$work/answer" || fail "the answer is not the greeting"
for page in health ready api/instances; do
    curl -fsS --max-time 5 -o /dev/null "$admin/$page" || fail "the admin port does not serve /$page"
done
pass "a greeting, and the admin port serves /health, /ready and /api/instances"
expect_round_robin 3

say "docker compose up --detach --scale greeter-v1=5"
compose up --detach --wait --wait-timeout 60 --no-recreate --scale greeter-v1=5
expect_round_robin 6

say "curl --header 'x-service-tags: version=v2'"
ask 20 'x-service-tags: version=v2' | counted | tee "$work/seen"
grep -Eq '^ *20 200 [^ ]+ v2$' "$work/seen" || fail "not all 20 were answered by the one v2"
pass "v2 and nothing else"

say "docker compose up --detach --scale greeter-v1=1, under requests"
touch "$work/asking"
for n in 1 2 3 4; do keep_asking >"$work/load.$n" 2>&1 & done
compose up --detach --no-recreate --scale greeter-v1=1
rm "$work/asking"
wait
cat "$work"/load.* >"$work/load"
failed=$(grep -vc '^200 ' "$work/load" || true)
[ "$failed" = 0 ] || { grep -v '^200 ' "$work/load" | counted | head >&2; fail "$failed of $(wc -l <"$work/load") requests failed"; }
pass "$(wc -l <"$work/load") requests meanwhile, 0 failed"
expect_round_robin 2

say "docker compose down --volumes"
compose down --volumes --rmi local
label=label=com.docker.compose.project=$COMPOSE_PROJECT_NAME
left=$(docker ps -aq --filter "$label"; docker volume ls -q --filter "$label"; docker network ls -q --filter "$label")
[ -z "$left" ] || fail "something is left: $left"
pass "no container, volume or network is left"

say "every step held"
