#!/bin/bash
# Looks for inputs that break a property, with libFuzzer, from the corpus in fuzz/corpus:
#     scripts/fuzz.sh [TARGET|all] [SECONDS]
#     scripts/fuzz.sh quick [SECONDS]     every target, 4 s each, built in a minute and slower: that all of it works
# Without arguments: every target, 60 s each. Works with the toolchain that is there, no nightly needed. New inputs go to
# target/fuzz/corpus, what breaks to target/fuzz/found; what is worth keeping belongs into fuzz/corpus, where every test
# run replays it.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=${1:-all}
seconds=${2:-60}
profile=release
if [ "$wanted" = quick ]; then
    wanted=all
    seconds=${2:-4}
    profile=quick
fi

# What `cargo fuzz` would pass, but for the sanitizers, which stable has not: the only unsafe code of this crate
# registers sockets, and no target has any.
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
# With a target named, flags leave build scripts alone.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS=$flags CARGO_TARGET_DIR=target/fuzz \
    cargo build --locked --profile "$profile" --manifest-path fuzz/Cargo.toml --target "$host" --bins

broken=()
mkdir -p target/fuzz/found
for program in fuzz/targets/*.rs; do
    target=$(basename "$program" .rs)
    [ "$wanted" = all ] || [ "$wanted" = "$target" ] || continue
    printf '\n== %s, %s s\n' "$target" "$seconds"
    mkdir -p "target/fuzz/corpus/$target"
    "target/fuzz/$host/$profile/$target" -max_total_time="$seconds" -max_len=4096 -timeout=20 -rss_limit_mb=2048 \
        -verbosity=0 -print_final_stats=1 -artifact_prefix="target/fuzz/found/$target-" \
        "target/fuzz/corpus/$target" "fuzz/corpus/$target" || broken+=("$target")
    ran=yes
done

[ -n "${ran:-}" ] || { echo "no target $wanted; there are: $(cd fuzz/targets && echo *.rs | sed 's/\.rs//g')" >&2; exit 2; }
[ "${#broken[@]}" -eq 0 ] || { echo "broken: ${broken[*]}; see target/fuzz/found" >&2; exit 1; }
