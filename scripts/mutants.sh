#!/bin/bash
# Breaks the lines that the models guard, one at a time, in a copy of the source, and sees each model fail:
#     scripts/mutants.sh [NAME]
# The list is src/testing/models/mutations.txt; NAME is part of a mutation's name. A mutation that does not apply, does
# not build, or is not found out, is an error. Ends with the totals: a mutation that is found out has passed.
set -euo pipefail
cd "$(dirname "$0")/.."

list=src/testing/models/mutations.txt
copy=$PWD/target/mutants
log=$copy/log
# The dependencies are those of scripts/models.sh.
export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$PWD/target/loom LOOM_MAX_PREEMPTIONS=3

# A mutation that makes a model run for ever, in seconds, is found out too.
PATIENCE_S=120

passed=0
failed=0

# verdict WORD: notes how the mutation under way went.
verdict() {
    printf '%-9s  %-75s  %s\n' "$1" "$name" "$model"
    if [ "$1" = found ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# replace OLD NEW: in the text of the mutation under way. Fails unless OLD is there exactly once.
replace() {
    local rest=${text#*"$1"}
    [ "$rest" != "$text" ] && [[ "$rest" != *"$1"* ]] || return 1
    text=${text%%"$1"*}$2$rest
}

# try: applies the mutation under way to the copy, runs its model, and puts the copy right again.
try() {
    [ -n "$name" ] && [[ "$name" == *"$wanted"* ]] || return 0
    local text i path=testing::models::$model
    text=$(cat "$file"; printf .)
    text=${text%.}
    for i in "${!old[@]}"; do
        if ! replace "${old[$i]}" "${new[$i]}"; then
            verdict unfitting
            return
        fi
    done
    printf '%s' "$text" >"$copy/$file"
    if ! (cd "$copy" && cargo test -q --profile models --lib --no-run) >"$log" 2>&1; then
        tail -n 20 "$log"
        verdict unbuilt
    elif (cd "$copy" && timeout "$PATIENCE_S" cargo test -q --profile models --lib -- --exact "$path") >"$log" 2>&1; then
        verdict MISSED
    elif grep -q '^running 1 test' "$log"; then
        verdict found
    else
        tail -n 20 "$log"
        verdict unclear
    fi
    cp "$file" "$copy/$file"
}

wanted=${1:-}

rm -rf "$copy/src"
mkdir -p "$copy"
cp -r Cargo.toml Cargo.lock README.md src tests benches "$copy"
# By another version Cargo tells the copy from the original: they share a directory, and one must not pass for the other.
sed -i '0,/^version = .*/s//version = "0.0.0-mutant"/' "$copy/Cargo.toml"

name=''
while IFS= read -r line || [ -n "$line" ]; do
    case $line in
    '= '*)
        try
        name=${line#= }
        file=''
        model=''
        old=()
        new=()
        side=new
        ;;
    'file '*) file=${line#file } ;;
    'model '*) model=${line#model } ;;
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
done <"$list"
try

echo "test result: mutations found out by their models. $passed passed; $failed failed;"
[ "$passed" -gt 0 ] && [ "$failed" -eq 0 ]
