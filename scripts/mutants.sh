#!/bin/bash
# Breaks lines of the source, one at a time, in a copy of it, and sees each found out:
#     scripts/mutants.sh                      by models and by the simulation
#     scripts/mutants.sh models [NAME]        those that a model guards: its model has to fail
#     scripts/mutants.sh simulation [NAME]    the others: the seeds of every test run have to fail, and say why
# The lists are src/testing/{models,simulation}/mutations.txt; NAME is part of a mutation's name. A mutation that does not
# apply, does not build, is not found out, or for another reason, is an error. Ends with the totals: a mutation that is
# found out has passed.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=$PWD/target/mutants
log=$copy/log

# A mutation that makes a test run for ever, in seconds, is found out too.
PATIENCE_S=300
# One that makes a test talk for ever is, too.
LOG_MAX_KIB=100000
# Seeds of the simulation until a mutation counts as missed.
SEEDS=600

SIMULATION=testing::simulation::whatever_happens_in_whatever_order_nobody_is_lost_and_nothing_promised_is

passed=0
failed=0

# verdict WORD [BY]: notes how the mutation under way went.
verdict() {
    printf '%-9s  %-75s  %s\n' "$1" "$name" "${2:-}"
    if [ "$1" = found ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# replace OLD NEW: in the text of the mutation under way. Fails unless OLD is there exactly once.
replace() {
    local rest=${text#*"$1"}
    [ "$rest" != "$text" ] && [[ "$rest" != *"$1"* ]] || return 1
    text=${text%%"$1"*}$2$rest
}

# with_surroundings COMMAND...: in the copy, as the list wants it.
with_surroundings() {
    cd "$copy"
    if [ "$list" = models ]; then
        # The dependencies are those of scripts/models.sh.
        RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$root/target/loom LOOM_MAX_PREEMPTIONS=3 "$@"
    else
        # And those of every test run here.
        CARGO_TARGET_DIR=$root/target LINGER_SIM_SEEDS=$SEEDS RUST_BACKTRACE=0 "$@"
    fi
}

# who_finds_it: what the failed test has said, as far as the list expects it. Fails where it is something else.
who_finds_it() {
    grep -q '^running 1 test' "$log" || return 1
    if [ "$list" = models ]; then
        echo "${finders[0]}"
        return
    fi
    local fault finder
    fault=$(grep -m 1 '^seed [0-9]*, after' "$log") || return 1
    for finder in "${finders[@]}"; do
        [[ "$fault" != *"$finder"* ]] || { echo "seed $(cut -d' ' -f 2 <<<"$fault") $finder"; return; }
    done
    return 1
}

# try: applies the mutation under way to the copy, runs what has to find it out, and puts the copy right again.
try() {
    [ -n "$name" ] && [[ "$name" == *"$wanted"* ]] || return 0
    local text i by path=$SIMULATION
    [ "$list" = simulation ] || path=testing::models::${finders[0]}
    text=$(cat "$file"; printf .)
    text=${text%.}
    for i in "${!old[@]}"; do
        if ! replace "${old[$i]}" "${new[$i]}"; then
            verdict unfitting
            return
        fi
    done
    printf '%s' "$text" >"$copy/$file"
    if ! (with_surroundings cargo test -q "${profile[@]}" --lib --no-run) >"$log" 2>&1; then
        tail -n 20 "$log"
        verdict unbuilt
    elif (ulimit -f "$LOG_MAX_KIB" && with_surroundings timeout "$PATIENCE_S" cargo test -q "${profile[@]}" --lib -- --exact "$path") >"$log" 2>&1; then
        verdict MISSED
    elif by=$(who_finds_it); then
        verdict found "$by"
    else
        grep '^seed ' "$log" || tail -n 20 "$log"
        verdict unclear
    fi
    cp "$file" "$copy/$file"
}

# go_through LIST: every mutation on it.
go_through() {
    list=$1
    profile=()
    [ "$list" = simulation ] || profile=(--profile models)
    local line side
    name=''
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        '= '*)
            try
            name=${line#= }
            file=''
            finders=()
            old=()
            new=()
            side=new
            ;;
        'file '*) file=${line#file } ;;
        'model '*) finders=("${line#model }") ;;
        'says '*) finders+=("${line#says }") ;;
        -*)
            [ "$side" = old ] || old+=('') new+=('')
            side=old
            old[-1]+=${line#-}$'\n'
            ;;
        +*)
            side=new
            new[-1]+=${line#+}$'\n'
            ;;
        esac
    done <"src/testing/$list/mutations.txt"
    try
}

root=$PWD
lists=${1:-models simulation}
wanted=${2:-}
case $lists in
models | simulation | 'models simulation') ;;
*)
    echo "models or simulation, not $lists" >&2
    exit 2
    ;;
esac

rm -rf "$copy/src"
mkdir -p "$copy"
cp -r Cargo.toml Cargo.lock README.md src tests benches "$copy"
# By another version Cargo tells the copy from the original: they share directories, and one must not pass for the other.
sed -i '0,/^version = .*/s//version = "0.0.0-mutant"/' "$copy/Cargo.toml"

for list in $lists; do
    go_through "$list"
done

echo "test result: mutations found out. $passed passed; $failed failed;"
[ "$passed" -gt 0 ] && [ "$failed" -eq 0 ]
