#!/bin/sh
# Shows that no accepted message is lost: senders number their chats, receivers confirm them, and for 30 s connections
# are reset, kicked and taken over, receivers are killed with SIGKILL, and so is the server. The scenario starts the
# server itself, so that it can kill it.
#
#   scripts/chaos.sh [OPTION...]      options of `linger stress chaos`, such as --seed 7 or --blow-ms 5
#
# Environment: as in lib.sh; LINGER_DURABILITY=normal, for one.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
find_linger
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP
case " $* " in
    *" --seconds"*) ;;
    *) set -- --seconds 30 "$@" ;;
esac
"$linger" stress chaos "$@" -- \
    "$linger" serve --data "$scratch/data" --listen 127.0.0.1:0 --argon2 8,1,1 --grace 1s --log error
