#!/bin/sh
# Shows that the server loses no memory and touches none that is not its own: a short load of every kind under valgrind's
# memcheck, then an orderly stop. Ends with 0 when there is no error and no block is definitely or indirectly lost.
#
#   scripts/leaks.sh      needs valgrind
#
# Not asked for: branches on values that are not initialised. Our code is safe Rust, and the optimiser itself makes such
# branches where the result does not hang on them: memcheck reports one in the choice of a channel's earliest deadline.
#
# What the scenarios say of times counts for nothing here: everything is twenty times as slow.

# The system's allocator, which valgrind knows. Read by find_linger.
# shellcheck disable=SC2034
features=--no-default-features
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
log=$(mktemp)
# Read by start_server.
# shellcheck disable=SC2034
under="valgrind --quiet --undef-value-errors=no --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect \
    --error-exitcode=9 --log-file=$log"
start_server --grace 1s --workers 2
for scenario in "relay --clients 10 --seconds 5" "churn --clients 10 --seconds 5" "keep --clients 10 --seconds 3" \
    "kick --clients 20" "vanish --clients 50" "storm --clients 50 --seconds 1 --bound 60s"; do
    printf '%s\n' "$scenario"
    # Split on purpose.
    # shellcheck disable=SC2086
    stress $scenario >/dev/null 2>&1 || true
done
"$linger" who --data "$data" >/dev/null
"$linger" why all --data "$data" >/dev/null 2>&1
kill "$pid"
wait "$pid"
code=$?
pid=
cat "$log"
rm -f "$log"
if [ "$code" -eq 0 ]; then
    echo "nothing lost, no error"
else
    echo "valgrind or the server ended with exit code $code" >&2
    exit 1
fi
