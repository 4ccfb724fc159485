#!/bin/sh
# Shows that nobody stays online who is gone: 1,000 clients log in and then vanish at once, by close, reset and
# half-close. Ends with 0 when `who` and the database let go of all of them, and no id or fd is left after the grace.
#
#   scripts/vanish.sh [OPTION...]      options of `linger stress vanish`, such as --clients 5000 --how rst

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
start_server --grace 2s
stress vanish "$@"
