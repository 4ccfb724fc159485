#!/bin/sh
# Shows how fast chats go, and that none is lost or overtaken: 50 pairs exchange chats in both directions for 10 s,
# 16 under way in each.
#
#   scripts/relay.sh [OPTION...]      options of `linger stress relay`, such as --size 1024

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
start_server --grace 1s
case " $* " in
    *" --window"*) stress relay "$@" ;;
    *) stress relay --window 16 "$@" ;;
esac
