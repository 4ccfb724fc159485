#!/bin/sh
# Shows what a kick promises: 1,000 listening clients are sent away one after another. Each sees the goodbye and the
# end of the stream at once, is offline in the database before `--wait` returns, and nobody else is touched.
#
#   scripts/kick.sh [OPTION...]      options of `linger stress kick`, such as --bulk 100

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
start_server --grace 2s
stress kick "$@"
