#!/bin/sh
# Shows how many messages a second are stored for users who are away: 1,000 senders, each waiting for its answer, for 10 s.
# An answer means that the message is synced to the disk.
#
#   scripts/keep.sh [OPTION...]       options of `linger stress keep`, such as --clients 1 or --window 16

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
start_server --grace 1s --box-messages 1000000 --box-bytes 1GiB
case " $* " in
    *" --clients"*) stress keep "$@" ;;
    *) stress keep --clients 1000 "$@" ;;
esac
