#!/bin/sh
# Shows that live users hardly notice when 10,000 others are lost at once: pairs chat, visitors log in and are kicked
# meanwhile. Ends with 0 when 99 of 100 chats stayed within 50 ms, nobody is left online and nothing leaked.
#
#   scripts/storm.sh [OPTION...]      options of `linger stress storm`, such as --clients 5000 --how fin --bound 20ms

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
start_server --grace 2s
stress storm "$@"
