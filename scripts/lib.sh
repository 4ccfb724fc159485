# Starts a server of its own for one scenario and stops it again. Sourced by the other scripts here.
# shellcheck shell=sh

# find_linger: builds what is not up to date, with the one option of cargo in $features where it is set, and sets $linger.
find_linger() {
    root=$(cd "$(dirname "$0")/.." && pwd)
    linger=${LINGER:-${CARGO_TARGET_DIR:-$root/target}/release/linger}
    [ -n "${LINGER-}" ] || (cd "$root" && cargo build --release --quiet ${features:+"$features"}) || exit 1
}

# start_server [SERVE OPTION...]: the same, starts on free ports in a fresh directory, and sets $pid, $target, $data
# and $line as well, the last where it speaks lines. Cheap password hashes: thousands of users are registered for the show.
#
# $under, where it is set, is a command that runs the server, such as valgrind.
#
# Environment: LINGER, another binary than the one built here; LINGER_..., further options of `linger serve`.
start_server() {
    find_linger
    scratch=$(mktemp -d)
    data=$scratch/data
    : >"$scratch/ready"
    pid=
    trap stop_server EXIT
    trap 'exit 130' INT TERM HUP

    # In a session of its own: Ctrl-C ends the scenario, and the server is then stopped once, in order.
    # shellcheck disable=SC2086
    setsid ${under-} "$linger" serve --data "$data" --listen 127.0.0.1:0 --argon2 8,1,1 --log warn "$@" >"$scratch/ready" &
    pid=$!
    tries=0
    until grep -q '^linger ready ' "$scratch/ready"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ] || ! kill -0 "$pid" 2>/dev/null; then
            echo "the server did not start" >&2
            exit 1
        fi
        sleep 0.1
    done
    # Read by who asks for it.
    # shellcheck disable=SC2034
    line=$(sed -n 's/^linger ready .*line=\([^ ]*\).*/\1/p' "$scratch/ready")
    target=$(sed -n 's/^linger ready .*json=\([^ ,]*\).*/\1/p' "$scratch/ready")
}

# Runs at the exit, however it comes about. Keeps the exit code, unless the server fails to stop in order.
stop_server() {
    code=$?
    trap - EXIT
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null
        wait "$pid" || {
            echo "the server ended with exit code $?" >&2
            code=1
        }
    fi
    rm -rf "$scratch"
    exit "$code"
}

# stress SCENARIO [OPTION...]: against the server just started.
stress() {
    "$linger" stress "$@" --target "$target" --data "$data"
}
