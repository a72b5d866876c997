# Plays the steps of a README, and holds their output against what the README shows: sourced by demo.sh and tour.sh.
#
# A step is a heading "### N. Title", what to look at, and console blocks: lines after "$ " are commands, the others their
# output. Who sources this sets: gateway, admin (host:port), kind (etcd, consul, zookeeper), project (of Docker Compose),
# bin (where the programs are), root (of the project), pace (seconds to read a step before it begins) and work (a directory for files).
# shellcheck shell=bash disable=SC2154

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
broken=0 # steps whose output is not what the README shows

# The README in the reader's language.
case ${LC_ALL:-${LC_MESSAGES:-${LANG:-}}} in
zh*) readme=README.zh-CN.md ;;
*) readme=README.md ;;
esac

free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)) && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

# play HEADING...: the steps of the sections whose heading begins like one of these, in order.
play() {
    local what line seen=no
    local -a commands=() expected=()
    while IFS=$'\t' read -r what line <&3; do
        case $what in
        title) printf '\n%s%s%s\n' "$bold" "$line" "$plain" ;;
        text) printf '   %s\n' "$line" ;;
        command) commands+=("$(here "$line")") ;;
        output) expected+=("$line") ;;
        end)
            sleep "$pace"
            play_block
            commands=() expected=() seen=yes
            ;;
        esac
    done 3< <(lines "$@")
    [ "$seen" = yes ] || { echo "no step under $* in $readme" >&2; return 1; }
}

# The sections, each line with what it is in front of it.
lines() {
    local IFS='|'
    awk -v headings="$*" '
        function put(what, text) { print what "\t" text }
        /^## / { inside = ($0 ~ "^## (" headings ")") ; next }
        !inside { next }
        /^```console$/ { block = 1; next }
        /^```/ { if (block) put("end", ""); else other = !other; block = 0; next }
        other { next }
        block && /^\$ / { put("command", substr($0, 3)); next }
        block { put("output", $0); next }
        /^### / { put("title", substr($0, 5)); next }
        /^\|/ || /^$/ { next }
        { gsub(/[`<>]|\*\*/, ""); gsub(/\]\([^)]*\)/, ""); gsub(/\[/, ""); put("text", $0) }
    ' "$readme"
}

# A command of the README as it has to be here: other ports, another registry, another name of the project.
here() {
    local line=$1
    line=${line//127.0.0.1:8080/$gateway}
    line=${line//127.0.0.1:9090/$admin}
    line=${line//target\/debug/${bin#"$root"/}}
    line=${line//service-discovery_/${project}_}
    printf '%s' "${line//etcd/$kind}"
}

# Runs the commands, shows what they say, and counts the block as broken if that is not what the README shows.
play_block() {
    local settled=$((SECONDS + 15))
    if [[ ${commands[*]} = *docker* ]]; then
        # Not in a subshell: the commands may change what this shell knows.
        run_commands > >(tee "$work/said")
        sleep 0.2 # for tee
    else
        # Questions only: what was changed before may take a moment to be known.
        until run_commands >"$work/said" 2>&1; as_shown || [ "$SECONDS" -ge "$settled" ]; do sleep 0.2; done
        cat "$work/said"
    fi
    if as_shown; then return; fi
    broken=$((broken + 1))
    printf '   %sNOT OK:%s %s shows the lines with -, this is +\n' "$bold" "$plain" "$readme"
    diff -U 100 <(expected) <(what_matters <"$work/said") | tail -n +4 || true
}

run_commands() {
    local command load=''
    for command in "${commands[@]}"; do
        printf '%s$ %s%s\n' "$bold" "$command" "$plain"
        eval "$command" </dev/null || true # what it says counts, not its exit code: grep may find nothing
        [[ $command != *'&' ]] || load=$!
        [ ! -s "$work/said" ] || [ -z "$(tail -c 1 "$work/said")" ] || echo # a body without a newline
    done
    [ -z "$load" ] || wait "$load" || true # its table says what failed
}

as_shown() { [ ${#expected[@]} = 0 ] || diff -q <(expected) <(what_matters <"$work/said") >/dev/null; }
expected() { printf '%s\n' "${expected[@]}" | what_matters; }

# Of a block's output: what is the same in every run. Who answered is counted by version; the shares too, in tens of
# percent, unless something changes beside the load.
what_matters() {
    local steady=yes
    if [[ "${commands[*]}" = *'&'* ]]; then steady=''; fi
    sed -E -e 's/\r//; /^$/d; /^ *…/d; /^(\x1b\[1m)?\$ /d' -e '/^date: /d; /^ +[0-9]+s .*\/s /d; /^ +latency: /d; /^Going to remove /d; /_.*-data$/d' \
        -e "s/([0-9]+\.){3}[0-9]+:[0-9]+/ADDRESS/g; s#target/[a-z]+/#target/#" \
        -e 's/^(x-request-id|content-length): .*/\1/; s/^ +[0-9]+ answered, ([0-9]+ failed), .*/\1/' |
        awk -v steady="$steady" '
            / answers +[0-9.]+ %$/ { print "answers of " $2 (steady ? ", of ten: " int($5 / 10 + 0.5) : ""); next }
            { print }' |
        sort
}
