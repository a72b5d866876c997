#!/usr/bin/env bash
# The whole system on this machine, without containers: a registry, three greeters and the gateway, and a tour of what they do
# when things change and break, under a steady load. Then it stays up for you to try things; Ctrl-C ends all of it.
#
#   scripts/demo.sh                    the tour, then stay up
#   scripts/demo.sh --once             the tour only; exit code 0 if every step held and no request failed
#
#   --registry NAME                            etcd (default), consul or zookeeper
#   --port N  --admin-port N  --registry-port N   fixed ports (default: free ones)
#   --rate N                                   requests a second (default: 300)
#   --release                                  a release build: takes minutes longer to build, runs faster
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$root/.tools/bin:$PATH

once='' port=0 admin_port=0 kind=etcd registry_port='' rate=300 profile=debug
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "$0"; }
while [ $# -gt 0 ]; do
    case $1 in
    --once) once=yes ;;
    --release) profile=release ;;
    --registry)
        case ${2:-} in
        etcd | consul | zookeeper) kind=$2 ;;
        *) echo "demo: --registry is etcd, consul or zookeeper" >&2; exit 2 ;;
        esac
        shift
        ;;
    --port | --admin-port | --registry-port | --rate)
        [[ ${2:-} =~ ^[0-9]{1,5}$ ]] || { echo "demo: $1 needs a number" >&2; exit 2; }
        name=${1#--}
        printf -v "${name//-/_}" %s "$2"
        shift
        ;;
    --help) usage; exit ;;
    *) echo "demo: unknown argument $1; see --help" >&2; exit 2 ;;
    esac
    shift
done

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
say() { printf '%s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# --- processes: all that is started here ends with this script ---

work=$(mktemp -d)
declare -A pids=() # name -> process id

clean_up() {
    local status=$? name
    trap - EXIT INT TERM
    set +e
    # The registry last, so that the others can leave in order.
    for name in "${!pids[@]}"; do
        kill -CONT "${pids[$name]}" 2>/dev/null
        [ "$name" = "$kind" ] || kill -TERM "${pids[$name]}" 2>/dev/null
    done
    for name in "${!pids[@]}"; do [ "$name" = "$kind" ] || wait "${pids[$name]}" 2>/dev/null; done
    [ -z "${pids[$kind]:-}" ] || { kill -TERM "${pids[$kind]}" && wait "${pids[$kind]}"; } 2>/dev/null
    if [ "$status" != 0 ] && [ "$status" != 130 ]; then
        for log in "$work"/*.log; do printf -- '--- %s\n' "${log##*/}" >&2; tail -n 15 "$log" >&2; done
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() { # NAME COMMAND...
    local name=$1
    shift
    "$@" >>"$work/$name.log" 2>&1 &
    pids[$name]=$!
}

stop() { # NAME SIGNAL
    kill "-$2" "${pids[$1]}"
    wait "${pids[$1]}" 2>/dev/null || true
    unset "pids[$1]"
}

await() { # LOG PATTERN: until the log says so, for at most 15 s
    local deadline=$((SECONDS + 15))
    until grep -q "$2" "$work/$1.log" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || fail "no '$2' in $1's log after 15 s"
        sleep 0.05
    done
}

free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)) && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

start_etcd() {
    start etcd etcd --data-dir "$work/etcd" --name demo --log-level warn \
        --listen-client-urls "http://$server" --advertise-client-urls "http://$server" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "demo=$peer"
}

etcd_answers() { ETCDCTL_API=3 etcdctl --endpoints "$server" endpoint health; }

start_consul() {
    cat >"$work/consul.json" <<CONFIG
{ "ports": { "http": ${server##*:}, "server": ${peer##*:}, "serf_lan": $((${peer##*:} + 1)),
             "serf_wan": -1, "dns": -1, "grpc": -1 },
  "disable_update_check": true, "performance": { "raft_multiplier": 1 } }
CONFIG
    start consul consul agent -server -bootstrap -node demo -disable-host-node-id -log-level warn \
        -bind 127.0.0.1 -client 127.0.0.1 -data-dir "$work/consul" -config-file "$work/consul.json"
}

consul_answers() { CONSUL_HTTP_ADDR=$server consul catalog services; }

# A node's time to live is its session's: 2 to 20 ticks.
start_zookeeper() {
    printf '%s\n' tickTime=500 "clientPort=${server##*:}" clientPortAddress=127.0.0.1 admin.enableServer=false \
        "dataDir=$work/zookeeper" >"$work/zookeeper.cfg"
    start zookeeper zookeeper "$work/zookeeper.cfg"
}

zookeeper_answers() { : <"/dev/tcp/${server%:*}/${server##*:}"; }

start_registry() {
    "start_$kind"
    local deadline=$((SECONDS + 30))
    until "${kind}_answers" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$kind does not answer after 30 s"
        sleep 0.1
    done
}

start_greeter() { # NAME VERSION
    start "$1" "$bin/service-greeter" --registry "$registry" --ttl 5s --drain 1s --tag "version=$2"
    await "$1" registered
}

greeters() { for name in "${!pids[@]}"; do case $name in greeter-*) echo "$name" ;; esac; done | sort -V; }

# --- steps ---

steps=0 broken=0

step() { # TITLE WHAT TO LOOK FOR
    steps=$((steps + 1))
    printf '\n%s%d. %s%s\n   %s\n' "$bold" "$steps" "$1" "$plain" "$2"
}

load() { # SECONDS [FLAG...]: in the background, until loaded
    local seconds=$1
    shift
    "$bin/examples/load" "http://$gateway/greeter/greet/Ada" --rate "$rate" --duration "${seconds}s" "$@" \
        > >(tee "$work/load.out") 2>&1 &
    pids[load]=$!
}

loaded() { # waits for the load's end and its table
    if ! wait "${pids[load]}"; then
        broken=$((broken + 1))
        say "   ${bold}NOT OK:${plain} requests failed"
    fi
    unset 'pids[load]'
    sleep 0.1 # for tee
}

# Whether the load's table has as many lines of instances as it should, of these versions.
expect() { # COUNT VERSION-PATTERN
    local seen
    seen=$(grep -cE "^  [0-9.]+:[0-9]+ +$2 " "$work/load.out" || true)
    if [ "$seen" = "$1" ] && [ "$(grep -cE '^  [0-9.]+:[0-9]+ ' "$work/load.out")" = "$1" ]; then
        say "   ok: $1 instances answered"
    else
        broken=$((broken + 1))
        say "   ${bold}NOT OK:${plain} $seen instances of $2 answered, $1 expected"
    fi
}

# --- the system ---

scripts/setup.sh "$kind"
say "demo: building (cargo build --profile ${profile/debug/dev})"
build=(cargo build --locked --profile "${profile/debug/dev}" --features "consul zookeeper")
"${build[@]}" --quiet -p service-greeter -p service-gateway --bins
"${build[@]}" --quiet -p service-gateway --example load
bin=${CARGO_TARGET_DIR:-$root/target}/$profile

server=127.0.0.1:${registry_port:-$(free_port)}
peer=http://127.0.0.1:$(free_port)
registry=$kind://$server
start_registry
start_greeter greeter-1 v1
start_greeter greeter-2 v1
start_greeter greeter-3 v2
start gateway "$bin/service-gateway" --registry "$registry" --admin-actions \
    --listen "127.0.0.1:$port" --admin-listen "127.0.0.1:$admin_port"
await gateway "node joined.*nodes=3"
gateway=$(sed -n 's/.*listening address=\([^ ]*\).*/\1/p' "$work/gateway.log")
admin=$(sed -n 's/.*listening .*admin=\([^ ]*\).*/\1/p' "$work/gateway.log")
say "demo: $kind at $server, gateway at http://$gateway, its admin port at http://$admin"
say "demo: greeter-1 v1, greeter-2 v1, greeter-3 v2; logs in $work"

# --- the tour ---

step "Three instances" "Look at the shares: each answers a third of the requests."
load 4
loaded
expect 3 'v[12]'

step "Scale to five" "Two more v1 start after a second. Look at the live line: they take their share at once."
load 6
sleep 1
start_greeter greeter-4 v1
start_greeter greeter-5 v1
loaded
expect 5 'v[12]'

step "Pin a version" "Every request says 'x-service-tags: version=v2'. Only the one v2 answers."
load 3 --header 'x-service-tags: version=v2'
loaded
expect 1 v2

step "Kill one with -9" "greeter-1 dies after a second, its entry stays in $kind for up to 5 s. Nothing fails: look at 'after another attempt'."
load 9
sleep 1
stop greeter-1 KILL
loaded
expect 5 'v[12]'

step "Roll v1 to v2" "One v2 starts, one v1 leaves (SIGTERM), and so on, until there is no v1."
load 8
sleep 1
for n in 2 4 5; do
    start_greeter "greeter-$((n + 4))" v2
    stop "greeter-$n" TERM
done
loaded
say "   … and now:"
load 2
loaded
expect 4 v2

step "Stop $kind, and start it again" "The gateway serves the nodes it knows; nobody notices. Afterwards a new greeter is found."
load 12
sleep 1
stop "$kind" TERM
sleep 5
start_registry
start_greeter greeter-10 v2
loaded
expect 5 v2

say
if [ "$broken" = 0 ]; then
    say "${bold}Every step held, and no request failed.${plain}"
else
    say "${bold}$broken steps did not hold.${plain}"
fi
if [ -n "$once" ]; then
    exit $((broken > 0))
fi

case $kind in
etcd) look="ETCDCTL_API=3 etcdctl --endpoints $server get --prefix /services/" ;;
consul) look="curl 'http://$server/v1/health/service/greeter?passing'" ;;
zookeeper) look="cargo run -p discovery --features zookeeper --example watch -- $registry greeter" ;;
esac
cat <<TRY

${bold}All of it is still up. Things to try${plain} (Ctrl-C ends everything):

  curl -i http://$gateway/greeter/greet/Ada
  curl -i -H 'x-service-tags: version=v2' http://$gateway/greeter/greet/Ada
  xdg-open http://$admin/    # the dashboard: the instances, drawn, as they change
  curl http://$admin/api/instances
  curl http://$admin/metrics
  $look
  $bin/service-greeter --registry $registry --tag version=v3
  $bin/examples/load http://$gateway/greeter/greet/Ada --rate $rate
$(for name in $(greeters); do echo "  kill -9 ${pids[$name]}    # $name"; done)
  kill -STOP ${pids[$kind]}; kill -CONT ${pids[$kind]}    # $kind freezes, and goes on
TRY
wait
