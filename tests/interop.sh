#!/usr/bin/env bash
# tests/interop.sh [--readme] [SERVER…]: the whole cycle against S3 servers that are products of
# their own, on loopback. SERVER is moto, rclone, ceph or garage (by default all), or the http(s)
# address of one that runs already, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of it, in a
# bucket that is made when it is not there (INTEROP_BUCKET). What such a server does otherwise than
# AWS is found out, and said in the table.
#
# What is installed goes into ~/.cache/tapline-interop. Prints a table of what worked; with
# --readme it goes into README.md, too. Exit code 1 when something failed that is no known limit.
# INTEROP_ONLY="check prune" tries these steps alone, INTEROP_MANY=1 tries more than 1,000 parts (5.9 GB), INTEROP_GARAGE=1 builds Garage.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/interop/servers.sh
. tests/interop/cycle.sh

cache=${XDG_CACHE_HOME:-$HOME/.cache}/tapline-interop
mkdir -p "$cache"
work=$(mktemp -d "${TMPDIR:-/tmp}/tapline-interop.XXXXXX")
daemons=()

# A server that does not end by itself is killed, and waited for, so that its port and files are free.
stop_daemons() {
    local pid
    for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${daemons[@]}"; do
        for _ in {1..50}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    daemons=()
}
trap 'stop_daemons; [ -n "${INTEROP_KEEP:-}" ] || rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# daemon COMMAND…: in the background until this server's turn ends, or this script is killed
daemon() {
    setpriv --pdeathsig KILL -- "$@" >>"$dir/server.log" 2>&1 &
    daemons+=($!)
}

# clocked_daemon COMMAND…: with a clock that $dir/clock moves, where libfaketime is installed
clocked_daemon() {
    local library
    library=$(compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' || true)
    if [ -n "$library" ]; then
        echo '+0' >"$dir/clock"
        set -- env FAKETIME_TIMESTAMP_FILE="$dir/clock" FAKETIME_CACHE_DURATION=1 \
            FAKETIME_DONT_FAKE_MONOTONIC=1 LD_PRELOAD="$library" "$@"
    fi
    daemon "$@"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

s3() { timeout 300 "$cache/venv/bin/python" tests/interop/s3.py "$@"; }

tapline() { timeout --kill-after=10 "${patience:-150}" "$binary" --config "$dir/matrix.toml" "$@"; }
others() { timeout --kill-after=10 "${patience:-150}" "$binary" --config "$dir/others.toml" "$@"; }

declare -A results # of "SERVER STEP": `ok`, or the number of a note
notes=()
failed=0

note() { # note SERVER STEP WORDS: its number, which stands in the table
    notes+=("$1, $2: $3")
    results["$1 $2"]="${4:-no} (${#notes[@]})"
}

# The last thing that was said, on one line.
last_words() { grep -v '^ *$' "$1" | tail -n "${2:-1}" | tr '\n' ' ' | sed 's/ *$//'; }

# What a server says in the log that it cannot do at all, by tapline's words or the other client's.
missing_operation() {
    local refusal='(NotImplemented|MethodNotAllowed)'
    sed -nE "s/.*\($refusal\) when calling the ([A-Za-z]+) operation.*/\2/p
        s/.*\b([A-Z][A-Za-z]+) (of [^ ]+ )?in s3:[^ ]+ at [^ ]+: $refusal.*/\1/p
        s/.*operation: Some\(.([A-Za-z]+).\).* code: Some\(.$refusal.*/\1/p" "$1" | head -n 1
}

run_step() { # run_step STEP: as a program of its own, so that whatever fails in it ends it
    local step=$1 log=$dir/$1.log status start=$SECONDS pattern words
    IFS='|' read -r pattern words <<<"${limits[$step]:-}"
    if [ -n "$words" ] && [ -z "$pattern" ]; then
        note "$title" "$step" "not tried: $words" -
        return
    fi
    set +e
    (set -e; "step_$step") >"$log" 2>&1
    status=$?
    set -e
    case $status in
    0) results["$title $step"]=ok ;;
    77) note "$title" "$step" "$(last_words "$log")" - ;;
    78) note "$title" "$step" "$(last_words "$log")" ok ;;
    *)
        local lacking
        lacking=$(missing_operation "$log")
        if [ -n "$words" ] && grep -q -- "$pattern" "$log"; then
            note "$title" "$step" "$words"
        elif [ "$server" = url ] && [ -n "$lacking" ]; then
            note "$title" "$step" "the server has no $lacking"
        else
            failed=1
            note "$title" "$step" "$(last_words "$log" 3)" FAILED
            sed "s/^/    /" "$log" | tail -40
        fi
        ;;
    esac
    if [ $status = 0 ] && [ -n "$words" ]; then
        failed=1
        note "$title" "$step" "works, though it is known not to: $words" FAILED
    fi
    printf '%-16s %-10s %3d s  %s\n' "$title" "$step" $((SECONDS - start)) "${results["$title $step"]}"
}

run_server() { # run_server NAME-OR-URL
    local title=$1 status step
    server=${1%%://*}
    case $1 in http://* | https://*) server=url title=$1 ;; esac
    declare -gA limits=()
    lacks='' checks_no_signatures=''
    dir=$work/$server
    mkdir "$dir"
    port=$(free_port)
    export BUCKET=${INTEROP_BUCKET:-tapline} AWS_DEFAULT_REGION=${AWS_DEFAULT_REGION:-us-east-1}
    export AWS_ENDPOINT_URL=http://127.0.0.1:$port
    [ "$server" != url ] || AWS_ENDPOINT_URL=$1
    local start=$SECONDS
    set +e
    (set -e; "${server}_install") >"$dir/install.log" 2>&1
    status=$?
    set -e
    if [ $status = 0 ]; then
        # Not in a program of its own: it sets what the steps need, and begins what this one ends.
        "${server}_start" >"$dir/start.log" 2>&1 && s3 bucket >>"$dir/start.log" 2>&1 || status=1
        title=$("${server}_version")
    fi
    titles+=("$title")
    if [ $status != 0 ]; then
        [ $status = 77 ] || failed=1
        local why
        why=$(last_words "$dir/start.log" 2>/dev/null || last_words "$dir/install.log")
        for step in "${steps[@]}"; do results["$title ${step%%|*}"]=-; done
        note "$title" start "$why"
        echo "$title: $why"
        tail -n 20 "$dir"/*.log | sed 's/^/    /'
        stop_daemons
        return
    fi
    printf '%-16s %-10s %3d s\n' "$title" start $((SECONDS - start))
    write_inventories
    for step in "${steps[@]}"; do
        case " ${INTEROP_ONLY:-${step%%|*}} " in *" ${step%%|*} "*) run_step "${step%%|*}" ;; esac
    done
    stop_daemons
    rm -rf "$dir"
}

table() { # as Markdown
    local step title row number=0
    row="| |" && for title in "${titles[@]}"; do row+=" $title |"; done && echo "$row"
    row="|---|" && for title in "${titles[@]}"; do row+="---|"; done && echo "$row"
    for step in "${steps[@]}"; do
        row="| ${step#*|} |"
        for title in "${titles[@]}"; do row+=" ${results["$title ${step%%|*}"]:--} |"; done
        echo "$row"
    done
    [ ${#notes[@]} = 0 ] || echo
    for note in "${notes[@]}"; do echo "$((number += 1)). $note"; done
}

readme=
[ "${1:-}" != --readme ] || { readme=1; shift; }
[ $# -gt 0 ] || set -- moto rclone ceph garage
# A client that the steps are checked with.
pip_install boto3
if [ -z "${TAPLINE:-}" ]; then
    cargo build --quiet --locked --features demo
    TAPLINE=${CARGO_TARGET_DIR:-target}/debug/tapline
fi
binary=$(realpath "$TAPLINE")
# The tests' own binary, for the one that runs against whatever server it is told.
suite=${TAPLINE_SUITE:-$(cargo test --quiet --locked --features demo --test it --no-run \
    --message-format json | sed -n 's/.*"executable":"\([^"]*\/it-[^"]*\)".*/\1/p' | tail -n 1)}
make_dumps
titles=()
for name; do run_server "$name"; done

table >"$work/table.md"
echo
cat "$work/table.md"
if [ -n "$readme" ]; then
    begin='<!-- made by tests/interop.sh --readme -->' end='<!-- end -->'
    awk -v begin="$begin" -v end="$end" -v file="$work/table.md" -v date="$(date -u +%F)" '
        $0 == begin { print; print ""; print "On " date ":"; print ""
                      while ((getline line < file) > 0) print line
                      print ""; inside = 1 }
        $0 == end { inside = 0 }
        !inside && $0 != begin { print }' README.md >"$work/readme.md"
    cp "$work/readme.md" README.md
fi
exit $failed
