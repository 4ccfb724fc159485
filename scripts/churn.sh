#!/bin/sh
# Shows that a user can always come back at once: 50 lanes connect, log in and leave for 10 s, by close and by reset,
# each under one name. Ends with 0 when no login was refused, nobody is left online and no departure is missing.
#
#   scripts/churn.sh [OPTION...]      options of `linger stress churn`, such as --clients 200 --seconds 60

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
start_server --grace 1s
stress churn "$@"
