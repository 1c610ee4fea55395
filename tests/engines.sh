#!/usr/bin/env bash
# tests/engines.sh [--readme] [ENGINE…]: databases of every kind go into a backup and come back on servers
# that are newer than this machine's, and on Oracle's MySQL, which Debian's releases have not. ENGINE is
# postgres, mariadb or mysql; by default all.
#
# The servers are Debian sid's: `mmdebstrap` unpacks them into ~/.cache/tapline-engines, root's into
# /var/cache, where the servers' own users may go, too. There they are run from, as they are, by the tests
# that try this machine's. Prints a table of what came back; with --readme it goes into README.md, too.
# Exit code 1 when anything did not.
set -euo pipefail
cd "$(dirname "$0")/.."

readme=
[ "${1:-}" != --readme ] || { readme=1; shift; }
engines=("$@")
[ $# -gt 0 ] || engines=(postgres mariadb mysql)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tapline-engines
[ "$(id -u)" != 0 ] || cache=/var/cache/tapline-engines
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for tool in mmdebstrap patchelf; do
    command -v "$tool" >/dev/null || apt-get install -y -qq --no-install-recommends "$tool" >/dev/null
done

# unpacked NAME PACKAGES: a folder of Debian sid, whose programs find their libraries there
unpacked() {
    local root=$cache/$1 program
    if [ ! -e "$root/clients" ]; then
        rm -rf "$root"
        mkdir -p "$cache"
        # A mirror may be older than the lists allow.
        mmdebstrap --quiet --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' \
            --include="$2" sid "$root" http://deb.debian.org/debian
        mkdir "$root/clients.new"
        for program in "$root"/usr/lib/postgresql/*/bin/* "$root"/usr/{bin,sbin}/{mysql,mariadb,my_print,resolveip}*; do
            [ "$(head -c 4 "$program" 2>/dev/null | tr -d '\0')" = $'\x7fELF' ] || continue
            [ -L "$program" ] || patchelf --force-rpath --set-rpath "$root/usr/lib/x86_64-linux-gnu" \
                --set-interpreter "$root/usr/lib64/ld-linux-x86-64.so.2" "$program"
            ln -sfr "$program" "$root/clients.new/"
        done
        mv "$root/clients.new" "$root/clients"
        chmod -R a+rX "$cache"
    fi
    echo "$root"
}

# tried ROOT FILTER…: runs tests of these names with the servers and clients of ROOT
tried() {
    TAPLINE_TESTS_ROOT=$1 PATH=$1/clients:$PATH RUST_TEST_THREADS=2 RUST_BACKTRACE=0 \
        "$tests" --include-ignored "${@:2}" >"$work/log" 2>&1
}

rows=() failed=0
# row WHAT ROOT FILTER…: a line of the table
row() {
    local what=$1 result
    shift
    echo "$server: $what" >&2
    if tried "$@" && ! grep -q '^running 0 tests' "$work/log"; then
        result=ok
    else
        failed=1 result=FAILED
        grep -E '^test .*FAILED|panicked' "$work/log" >&2 || tail -n 20 "$work/log" >&2
    fi
    rows+=("| $server | $what | $result |")
}

cargo test --locked --features demo --test it --no-run --message-format=json 2>/dev/null >"$work/build"
tests=$(sed -n 's/.*"executable":"\([^"]*\/it-[^"]*\)".*/\1/p' "$work/build" | tail -n 1)

for engine in "${engines[@]}"; do
    case $engine in
    postgres)
        root=$(unpacked postgres postgresql-18)
        server="PostgreSQL $("$root/clients/psql" --version | cut -d' ' -f3)"
        old="PostgreSQL $(ls /usr/lib/postgresql | sort -n | tail -n 1)"
        row "every kind of object: into itself, under another name, by \`--stdout\` and \`psql\`, in a drill; plain, custom, parallel, staged, encrypted" \
            "$root" every_kind_of_object_of_postgres
        row "the same by a user who is no superuser" "$root" every_kind_of_object_that_any_user_of_postgres
        row "the same from $old, by either's clients, and back" "$root" engines::all_of_an_older_postgres engines::all_of_any_user
        row "what versions 16 to 18 have added" "$root" engines::what_newer_versions_of_postgres
        row "\`globals\`, \`--table\`, \`--in-place\`, the README's rights, kills in the middle" "$root" \
            restore_postgres:: restore_in_place:: restore_properties::a_postgres restore_parts::one_table \
            restore_parts::a_table_comes restore_parts::definitions_and_rows_of_a_postgres \
            readme_back_postgres restore::postgres_comes_back restore::a_restore_that_is_killed
        ;;
    mariadb)
        root=$(unpacked mariadb mariadb-server,mariadb-client)
        server="MariaDB $("$root/clients/mariadb" --version | sed 's/.*from \([0-9.]*\).*/\1/')"
        old="MariaDB $(mariadb --version | sed 's/.*Distrib \([0-9.]*\).*/\1/')"
        row "every kind of object: into itself, under another name, by \`--stdout\` and \`mariadb\`, in a drill, by the README's users; plain, staged, encrypted" \
            "$root" every_kind_of_object_of_mariadb
        row "the same from $old, by either's clients, and back" "$root" engines::all_of_an_older_mariadb
        row "\`globals\`, \`--table\`, \`--in-place\`, the README's rights, kills in the middle" "$root" \
            restore_mariadb:: restore_properties::a_mariadb restore_parts::parts_of_a_mariadb \
            readme_back_mariadb restore::mariadb_comes_back
        ;;
    mysql)
        root=$(unpacked mysql mysql-server,mysql-client)
        server="MySQL $("$root/clients/mysql" --version | sed 's/.*Ver \([0-9.]*\).*/\1/')"
        row "every kind of object: into itself, under another name, by \`--stdout\` and \`mysql\`, in a drill, by the README's users; plain, staged, encrypted" \
            "$root" every_kind_of_object_of_mysql
        row "with \`gtid_mode=ON\`" "$root" where_mysql_counts_transactions
        row "\`--table\`, \`--schema-only\`, \`--data-only\`" "$root" parts_of_a_mysql_database
        row "that \`globals\` do not come back is said" "$root" that_users_and_grants_of_mysql
        row "kills in the middle" "$root" engines::killed_at_any_instant
        ;;
    *)
        echo "tests/engines.sh: no such engine: $engine" >&2
        exit 2
        ;;
    esac
done

{
    echo "On $(date -u +%F):"
    echo
    echo "| server | what | came back equal |"
    echo "|---|---|---|"
    printf '%s\n' "${rows[@]}"
} | tee "$work/table"
if [ -n "$readme" ]; then
    awk -v table="$work/table" '
        /^<!-- made by tests\/engines.sh --readme -->$/ {
            print; print ""; while ((getline line < table) > 0) print line; print ""; skip = 1
        }
        /^<!-- end of engines -->$/ { skip = 0 }
        !skip' README.md >"$work/readme"
    cat "$work/readme" >README.md
fi
exit "$failed"
