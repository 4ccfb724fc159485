#!/bin/bash
# Tries the models of src/server/testing/models in every order of their threads, up to a bound of preemptions:
#     scripts/models.sh [PREEMPTIONS|all] [NAME]
# NAME is part of a model's name. Without arguments: every model, 3 preemptions.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "${1:-3}" = all ] || export LOOM_MAX_PREEMPTIONS="${1:-3}"
# A target directory of its own: these flags are for every crate, and would rebuild them all each time.
RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p linger-server --profile models --lib -- "testing::models::${2:-}"
