#!/bin/sh
# Shows that no flood of costly requests holds up anybody else: registrations whose connections are reset at once, lines
# to thousands of receivers, chats to groups of thousands of absent members, and a log that nobody reads. Meanwhile 99 of
# 100 chats, logins and kicks of others stay within 100 ms, another user's first login within 1 s, and the server's
# memory grows by less than 64 MiB. Ends with 0 then.
#
#   scripts/flood.sh [OPTION...]      options of `linger stress flood`, such as --kinds groups --chats 8
#
# Without --kinds there are two runs, each with a server that the scenario starts itself: registrations cost what they
# cost by default in the first; thousands of users are registered in the second, with cheap password hashes.
#
# Environment: as in lib.sh.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
find_linger
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP
code=0

# flood NAME COST LEVEL OPTION...: a run with a server of its own; cost of password hashes, level of its log.
flood() {
    name=$1 cost=$2 level=$3
    shift 3
    "${STRESS:-$linger}" stress flood "$@" -- \
        "$linger" serve --data "$scratch/$name" --listen 127.0.0.1:0 --line 127.0.0.1:0 --argon2 "$cost" \
        --grace 1s --log "$level" || code=1
}

case " $* " in
    *" --kinds"*) flood asked 8,1,1 info "$@" ;;
    *)
        flood registrations 19456,2,1 warn --kinds registrations "$@"
        flood others 8,1,1 info --kinds receivers,groups,log-pipe "$@"
        ;;
esac
exit "$code"
