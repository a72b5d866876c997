#!/usr/bin/env bash
# The whole system on this machine, without containers: a registry, three greeters and the gateway, and the README's tour of
# what they do when things change and break, under load. Then it stays up for you to try things; Ctrl-C ends all of it.
#
#   scripts/demo.sh                    the tour, then stay up
#   scripts/demo.sh --once             the tour only; exit code 0 if every step said what the README says
#
#   --registry NAME                            etcd (default), consul or zookeeper
#   --port N  --admin-port N  --registry-port N   fixed ports (default: free ones)
#   --pace SECONDS                             to read each step before it begins (default: 3 on a terminal, else 0)
#   --release                                  a release build: takes minutes longer to build, runs faster
#   --all                                      plays the README's other console blocks too: answers, errors, flags
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$root/.tools/bin:$PATH

once='' all='' port=0 admin_port=0 kind=etcd registry_port='' profile=debug pace=0
if [ -t 1 ]; then pace=3; fi
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "$0"; }
while [ $# -gt 0 ]; do
    case $1 in
    --once) once=yes ;;
    --all) all=yes ;;
    --release) profile=release ;;
    --registry)
        case ${2:-} in
        etcd | consul | zookeeper) kind=$2 ;;
        *) echo "demo: --registry is etcd, consul or zookeeper" >&2; exit 2 ;;
        esac
        shift
        ;;
    --port | --admin-port | --registry-port | --pace)
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

say() { printf '%s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# --- processes: all that is started here ends with this script ---

work=$(mktemp -d)
declare -A pids=() # name, such as greeter-v1.2 -> process id

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

# --- the steps' words ---

started=0 # greeters so far: each has a name of its own

start_greeter() { # SERVICE
    local service=$1 tag=version=${1#greeter-}
    if [ "$service" = greeter-v2 ]; then tag+=,weight=${V2_WEIGHT:-1}; fi
    started=$((started + 1))
    start "$service.$started" "$bin/service-greeter" --registry "$registry" --ttl 5s --drain 1s --tag "$tag"
    await "$service.$started" registered
}

start_gateway() {
    balancer=${BALANCER:-round-robin}
    start gateway "$bin/service-gateway" --registry "$registry" --balancer "$balancer" --admin-actions \
        --listen "127.0.0.1:$port" --admin-listen "127.0.0.1:$admin_port"
    local deadline=$((SECONDS + 15))
    until curl -fs --max-time 1 -o /dev/null "http://$admin/ready"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "the gateway is not ready after 15 s"
        sleep 0.05
    done
}

processes_of() { for name in "${!pids[@]}"; do case $name in "$1" | "$1".*) echo "$name" ;; esac; done | sort -V; }

scale() { # SERVICE COUNT
    local -a names
    mapfile -t names < <(processes_of "$1")
    local name
    for name in "${names[@]:$2}"; do stop "$name" TERM; done
    local missing=$(($2 - ${#names[@]}))
    while [ "$missing" -gt 0 ]; do start_greeter "$1"; missing=$((missing - 1)); done
}

# What the README's steps ask of Docker, done to processes: a service is some of them.
docker() {
    local name
    case "$1 $2" in
    'compose up') shift 2; up "$@" ;;
    'compose run') shift 5; "$bin/load" "http://$gateway/greeter/greet/Ada" "$@" ;; # run --rm -T load
    'compose kill') for name in $(processes_of "$3"); do stop "$name" KILL; done ;;
    'compose pause') for name in $(processes_of "$3"); do kill -STOP "${pids[$name]}"; done ;;
    'compose unpause') for name in $(processes_of "$3"); do kill -CONT "${pids[$name]}"; done ;;
    'compose stop' | 'compose rm') stop "${*: -1}" TERM ;;
    'compose start') start_registry ;;
    'volume rm') rm -r "${work:?}/$kind" ;;
    *) fail "no such step natively: docker $*" ;;
    esac
}

# As Compose does: what is missing is started, what was configured otherwise is replaced, unless --no-recreate.
up() {
    local -A count=([greeter-v1]=2 [greeter-v2]=1)
    local recreate=yes
    while [ $# -gt 0 ]; do
        case $1 in
        --scale) count[${2%=*}]=${2#*=}; shift ;;
        --no-recreate) recreate='' ;;
        esac
        shift
    done
    [ -n "${pids[$kind]:-}" ] || start_registry
    if [ -n "$recreate" ] && [ "${weight:-}" != "${V2_WEIGHT:-1}" ]; then scale greeter-v2 0; fi
    weight=${V2_WEIGHT:-1}
    scale greeter-v2 "${count[greeter-v2]}"
    scale greeter-v1 "${count[greeter-v1]}"
    if [ -n "$recreate" ] && [ -n "${pids[gateway]:-}" ] && [ "$balancer" != "${BALANCER:-round-robin}" ]; then
        stop gateway TERM
    fi
    [ -n "${pids[gateway]:-}" ] || start_gateway
}

# --- the system ---

# shellcheck source=scripts/steps.sh
. scripts/steps.sh

command -v curl >/dev/null || fail "curl is missing: the steps ask with it"
scripts/setup.sh "$kind"
say "demo: building (cargo build --profile ${profile/debug/dev})"
build=(cargo build --locked --profile "${profile/debug/dev}" --features "consul zookeeper")
"${build[@]}" --quiet -p service-greeter -p service-gateway -p load --bins
bin=${CARGO_TARGET_DIR:-$root/target}/$profile

server=127.0.0.1:${registry_port:-$(free_port)}
peer=http://127.0.0.1:$(free_port)
registry=$kind://$server
project="service-discovery"
[ "$port" != 0 ] || port=$(free_port)
[ "$admin_port" != 0 ] || admin_port=$(free_port)
gateway=127.0.0.1:$port
admin=127.0.0.1:$admin_port
up
say "demo: $kind at $server, greeters v1, v1 and v2; the gateway at http://$gateway; logs in $work"
say "demo: look at it while it runs: http://$admin"
say "demo: what the steps ask of Docker Compose is done to processes here"

play "The tour" "走一遍"
if [ -n "$all" ]; then
    play "What happens to a request" "一个请求的经过"
    play "Flags" "命令行参数"
fi

say
if [ "$broken" = 0 ]; then
    say "${bold}Every step said what $readme says, and no request failed.${plain}"
else
    say "${bold}$broken blocks said something else.${plain}"
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
  $bin/load http://$gateway/greeter/greet/Ada --rate 300
$(for name in $(processes_of greeter-v1) $(processes_of greeter-v2); do echo "  kill -9 ${pids[$name]}    # ${name%.*}"; done)
  kill -STOP ${pids[$kind]}; kill -CONT ${pids[$kind]}    # $kind freezes, and goes on
TRY
wait
