#!/bin/bash
# A whole server and its clients in one thread, in orders that seeds decide:
#     scripts/simulate.sh [SECONDS [FIRST]]     new seeds for so long (60), from that one on (from the time)
#     LINGER_SIM_SEED=N scripts/simulate.sh     one seed again, with its trace
# What does not hold ends it, with the seed and the end of its trace. Else it ends with what was run, and how fast.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${LINGER_SIM_SEED:-}" ]; then
    export LINGER_SIM_SECONDS=${1:-60}
    export LINGER_SIM_FIRST=${2:-$(date +%s)000}
fi
exec cargo test -q -p linger-server --lib -- --nocapture --exact \
    testing::simulation::whatever_happens_in_whatever_order_nobody_is_lost_and_nothing_promised_is
