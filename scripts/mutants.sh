#!/bin/bash
# Breaks lines of the source, one at a time, in a copy of it, and sees each found out:
#     scripts/mutants.sh                      by models and by the simulation
#     scripts/mutants.sh models [NAME]        those that a model guards: its model has to fail
#     scripts/mutants.sh simulation [NAME]    the others: the seeds of every test run have to fail, and say why
# Each mutation is a patch, tests/mutations/{models,simulation}/*.patch; NAME is part of the file's name. Above the diff
# stand its name as a sentence, and who has to find it: `model` and the model's name, or `says` and what the simulation may
# say. A mutation that does not apply, does not build, is not found out, or for another reason, is an error. Ends with the
# totals: a mutation that is found out has passed.
# Whoever renames something in src renames it in the patches by the same `sed`. Line numbers do not matter.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
copy=$root/target/mutants
log=$copy/log

# A mutation that makes a test run for ever, in seconds, is found out too.
PATIENCE_S=300
# One that makes a test talk for ever is, too.
LOG_MAX_KIB=100000
# Seeds of the simulation until a mutation counts as missed.
SEEDS=1500

SIMULATION=testing::simulation::whatever_happens_in_whatever_order_nobody_is_lost_and_nothing_promised_is

passed=0
failed=0

# verdict WORD [BY]: notes how the mutation under way went.
verdict() {
    printf '%-9s  %-75s  %s\n' "$1" "$(head -n 1 "$mutation")" "${2:-}"
    if [ "$1" = found ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# patched OPTION...: the copy, by the mutation under way.
patched() {
    patch --silent --strip 1 --fuzz 0 --no-backup-if-mismatch --directory "$copy" "$@" <"$mutation"
}

# with_surroundings COMMAND...: in the copy, as the kind of mutation wants it.
with_surroundings() {
    cd "$copy"
    if [ "$kind" = models ]; then
        # The dependencies are those of scripts/models.sh.
        RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$root/target/loom LOOM_MAX_PREEMPTIONS=3 "$@"
    else
        # And those of every test run here.
        CARGO_TARGET_DIR=$root/target LINGER_SIM_SEEDS=$SEEDS RUST_BACKTRACE=0 "$@"
    fi
}

# who_finds_it: what the failed test has said, as far as the mutation expects it. Fails where it is something else.
who_finds_it() {
    grep -q '^running 1 test' "$log" || return 1
    if [ "$kind" = models ]; then
        echo "$model"
        return
    fi
    local fault finder
    fault=$(grep -m 1 '^seed [0-9]*, after' "$log") || return 1
    while read -r finder; do
        [[ "$fault" != *"$finder"* ]] || { echo "seed $(cut -d' ' -f 2 <<<"$fault") $finder"; return; }
    done < <(sed -n 's/^says //p' "$mutation")
    return 1
}

# try: applies the mutation under way to the copy, runs what has to find it out, and puts the copy right again.
try() {
    local model path=$SIMULATION profile=() by
    model=$(sed -n 's/^model //p' "$mutation")
    [ "$kind" = simulation ] || { path=testing::models::$model profile=(--profile models); }
    if ! patched --dry-run; then
        verdict unfitting
        return
    fi
    patched
    if ! (with_surroundings cargo test -q -p linger-server "${profile[@]}" --lib --no-run) >"$log" 2>&1; then
        tail -n 20 "$log"
        verdict unbuilt
    elif (ulimit -f "$LOG_MAX_KIB" && with_surroundings timeout "$PATIENCE_S" cargo test -q -p linger-server "${profile[@]}" --lib -- --exact "$path") >"$log" 2>&1; then
        verdict MISSED
    elif by=$(who_finds_it); then
        verdict found "$by"
    else
        grep '^seed ' "$log" || tail -n 20 "$log"
        verdict unclear
    fi
    patched --reverse
}

kinds=${1:-models simulation}
wanted=${2:-}
case $kinds in
models | simulation | 'models simulation') ;;
*)
    echo "models or simulation, not $kinds" >&2
    exit 2
    ;;
esac

rm -rf "$copy/src"
mkdir -p "$copy"
cp -r Cargo.toml Cargo.lock README.md src tests benches "$copy"
# By another version Cargo tells the copy from the original: they share directories, and one must not pass for the other.
sed -i '0,/^version = .*/s//version = "0.0.0-mutant"/' "$copy/Cargo.toml"

for kind in $kinds; do
    for mutation in "tests/mutations/$kind"/*"$wanted"*.patch; do
        try
    done
done

echo "test result: mutations found out. $passed passed; $failed failed;"
[ "$passed" -gt 0 ] && [ "$failed" -eq 0 ]
