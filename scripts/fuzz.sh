#!/usr/bin/env bash
# Gives every parser that reads from outside any bytes at all, for a while each (fuzz/). Ends non-zero with the first that
# panics or breaks a promise, and says where its input is. Needs a C++ compiler; installs cargo-fuzz if it is missing.
#
#   scripts/fuzz.sh        a minute each
#   scripts/fuzz.sh 600    ten minutes each
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$root/.tools/bin:$PATH

seconds=${1:-60}
case $seconds in
--help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "$0"; exit ;;
'' | *[!0-9]*) echo "fuzz: expected a number of seconds, not $seconds; see --help" >&2; exit 2 ;;
esac

if ! command -v cargo-fuzz >/dev/null; then
    echo "fuzz: installing cargo-fuzz into .tools"
    cargo install --quiet --locked --root .tools cargo-fuzz
fi

# No sanitizer: the library forbids unsafe code, and this way a stable compiler will do.
fuzz() { cargo fuzz "$1" --sanitizer none "${@:2}"; }

fuzz build
for file in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$file" .rs)
    seeds=(fuzz/seeds/"$target")
    [ -d "${seeds[0]}" ] || seeds=()
    mkdir -p "fuzz/corpus/$target"
    printf '\n=== %s for %d s\n' "$target" "$seconds"
    fuzz run "$target" "fuzz/corpus/$target" "${seeds[@]}" -- \
        -max_total_time="$seconds" -max_len=9000 -timeout=5 -print_final_stats=1 -verbosity=0
done
printf '\n=== nothing panicked\n'
