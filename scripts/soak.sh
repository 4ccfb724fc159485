#!/bin/sh
# Shows that the server holds out: chats, messages for the absent, logins without end, takeovers, kicks, crowds that
# vanish and storms, round after round. At the end it must have what it had after two thirds of the time: fds,
# channels, threads; nobody online, and no difference found by its own comparison. A flood comes between: behind it the
# server must hold as much memory as before (within 10 %), and so must it at the end. Ends with 0 then.
#
#   scripts/soak.sh [SECONDS]     how long, but rounds are finished, and memory is looked at; 900 by default
#
# Environment: SOAK_TRACE, where it is set, has each round's figures printed.
#
# Memory is RssAnon of /proc/PID/status, the least of 75 s in which nobody is there: before the flood, after it, and at
# the end. Every minute the server moves on what the boxes have taken in, and gives back the page cache that this needed;
# between two of these it holds some 20 MiB more or less. The first two thirds fill what is filled once: SQLite's other
# caches, the chats that are remembered for ten minutes.

seconds=${1:-900}
# What a round's concurrent part takes, in seconds.
part=10
# How long after a round the server may take to give everything back, in seconds.
rest=30
# For how long memory is looked at, in seconds: longer than what the server does every minute takes to come round.
calm=75
memory_percent=10
# For how long rounds are not counted, in seconds.
warm_up=$((seconds * 2 / 3))

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
start_server --grace 1s --box-messages 1000000 --box-bytes 1GiB --line 127.0.0.1:0
failed=0
began=$(date +%s)

# stat NAME: one number of `linger stats`.
stat() {
    "$linger" stats --data "$data" --json | tr ',{}' '\n' | sed -n "s/^\"$1\"://p"
}

# judged NAME SCENARIO [OPTION...]: a scenario whose verdict counts.
judged() {
    name=$1
    shift
    stress "$@" --prefix "$name" >"$scratch/$name.out" 2>&1 || {
        echo "round $round: $name failed" >>"$scratch/failures"
        sed "s/^/    /" "$scratch/$name.out" >>"$scratch/failures"
    }
}

# Two that log in as the same users, and so take each other's sessions over. Each sees logins end that it has not ended,
# so their verdicts say nothing; what is judged is that nothing is left.
rivals() {
    for seed in 1 2; do
        stress churn --prefix rival --seconds "$part" --clients 20 --seed "$seed" >/dev/null 2>&1 &
    done
    wait
}

one_round() {
    round=$1
    judged relay relay --seconds "$part" --clients 40 --window 4 &
    a=$!
    judged keep keep --seconds "$part" --clients 20 &
    b=$!
    judged churn churn --seconds "$part" --clients 20 &
    c=$!
    rivals &
    d=$!
    wait "$a" "$b" "$c" "$d"
    # These count fds, so nobody else may come and go meanwhile.
    judged kick kick --clients 100
    judged vanish vanish --clients 1000
    judged kick-bulk kick --clients 300 --bulk 100
    judged storm storm --clients 1500 --seconds 1 --bound 1s
}

# Requests that cost much, and members who take what was kept for them.
flood() {
    judged flood flood --line "$line" --registrations 3000 --members 500 --chats 32 --many-members 1000 \
        --small-chats 50 --take --bound 1s --first-login 10s
}

# measure FILE: what the server holds once everybody has gone and the grace is over.
measure() {
    tries=0
    until [ "$("$linger" channels --data "$data" --json | tr -d ' ')" = '{"channels":[]}' ]; do
        tries=$((tries + 1))
        [ "$tries" -lt "$rest" ] || break
        sleep 1
    done
    # What is put off until nobody is busy: checkpoints, and a whole round of the server's own comparison.
    sleep 3
    {
        echo "fds $(stat fds)"
        echo "channels $("$linger" channels --data "$data" --json | grep -o '"channel":"' | wc -l)"
        echo "online $("$linger" who --data "$data" --json | grep -o '"id":' | wc -l)"
        echo "threads $(sed -n 's/^Threads:[[:space:]]*//p' "/proc/$pid/status")"
    } >"$1"
    [ -z "${SOAK_TRACE-}" ] || echo "round $round, $(($(date +%s) - began)) s: $(tr '\n' ' ' <"$1")"
}

# memory: the least that it holds in KiB while nobody is there.
memory() {
    seen=0
    while [ "$seen" -lt "$calm" ]; do
        sed -n 's/^RssAnon:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$pid/status"
        sleep 1
        seen=$((seen + 1))
    done | sort -n | head -n 1
}

# held FILE NAME
held() {
    sed -n "s/^$2 //p" "$1"
}

# verdict NAME BEFORE AFTER MOST: one row of the table; more than the most is a failure.
verdict() {
    word=good
    if [ "$3" -gt "$4" ]; then
        word=BAD
        failed=1
    fi
    printf '%-12s %12s %12s %12s  %s\n' "$1" "$2" "$3" "$4" "$word"
}

: >"$scratch/failures"
rounds=0
while [ "$rounds" -eq 0 ] || [ $(($(date +%s) - began)) -lt "$warm_up" ]; do
    rounds=$((rounds + 1))
    one_round "$rounds"
done
measure "$scratch/before"
memory_before=$(memory)
uncounted=$rounds
round=flood
flood
measure "$scratch/flood"
memory_flood=$(memory)
until [ "$rounds" -gt "$uncounted" ] && [ $(($(date +%s) - began)) -ge "$seconds" ]; do
    rounds=$((rounds + 1))
    one_round "$rounds"
done
measure "$scratch/after"
memory_after=$(memory)

echo "soak: $(($(date +%s) - began)) s, $rounds rounds, $uncounted of them before the last third"
for name in accepted logins chats_delivered chats_kept kicks left_replaced left_peer_reset commits; do
    printf '  %-16s %s\n' "$name" "$(stat "$name")"
done
printf '%-12s %12s %12s %12s\n' '' before after most
for name in fds channels online threads; do
    before=$(held "$scratch/before" "$name")
    verdict "$name" "$before" "$(held "$scratch/after" "$name")" "$before"
done
most=$((memory_before + memory_before * memory_percent / 100))
verdict flood_kib "$memory_before" "$memory_flood" "$most"
verdict memory_kib "$memory_before" "$memory_after" "$most"
verdict differences 0 "$(stat reconciled)" 0
verdict failures 0 "$(grep -c '^round' "$scratch/failures")" 0
[ "$(stat left_replaced)" -gt 0 ] || { echo "there was no takeover" && failed=1; }
cat "$scratch/failures"
[ "$failed" -eq 0 ]
