# What is done with each server, step by step; each is a function step_NAME that fails when something
# is not as it must be, and returns 77 when it says why it cannot be tried
# (78: why no more of it can be).

steps=(
    "conforms|the conformance suite of the store"
    "check|\`check\`"
    "crc64nvme|backup, \`checksum = \"crc64nvme\"\`; gzip, zstd, none; one part and several"
    "crc32|backup, \`checksum = \"crc32\"\`, the same"
    "none|backup, \`checksum = \"none\"\`, the same"
    "list|\`list\`, \`show\`"
    "verify|\`verify\` of every byte, \`verify --quick\`"
    "restore|\`restore\` of each, compared"
    "stock|each archive read by another client and \`tar\`"
    "volumes|an archive of several volumes"
    "forty|40 parts"
    "many|more than 1,000 parts"
    "failing|a dump that fails leaves nothing"
    "sigterm|SIGTERM in the middle leaves nothing"
    "sigkill|SIGKILL in the middle, then \`cleanup\`"
    "prune|\`prune\`"
    "writer|a key that may only put objects"
    "roles|a key that may only read, one that may only read and delete"
    "lock|\`object_lock\`: what is stored cannot be deleted"
    "versions|versions and locks: \`prune --versions\`, \`cleanup --versions\`, \`object_lock\`"
    "lines|the lines of \"Keys and networks\", as they stand there"
)
checksums=(crc64nvme crc32 none)
compressions=(gzip zstd none)

# The dumps: 34 MiB that do not compress are five parts of 8 MiB.
make_dumps() {
    seq 1 20000 >"$work/small"
    openssl enc -aes-128-ctr -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c 34M >"$work/big" || true
}

# The inventories for the server at hand: matrix.toml has what every server should hold in the end,
# others.toml what is made to fail, be killed or be pruned.
write_inventories() {
    store() { # store NAME [KEY=VALUE…]
        echo "[stores.$1]"
        echo "url = \"s3://$BUCKET/$1\""
        echo "endpoint = \"$AWS_ENDPOINT_URL\""
        echo "region = \"$AWS_DEFAULT_REGION\""
        shift
        printf '%s\n' 'access_key = { env = "AWS_ACCESS_KEY_ID" }' \
            'secret_key = { env = "AWS_SECRET_ACCESS_KEY" }' "$@"
    }
    database() { # database NAME STORE SHELL-COMMAND [KEY=VALUE…]
        echo "[databases.$1]"
        echo "store = \"$2\""
        echo "engine = \"command\""
        echo "command = [\"sh\", \"-c\", \"$3\"]"
        shift 3
        printf '%s\n' "$@"
    }
    run() {
        printf '%s\n' '[run]' 'jobs = 2' 'retry_for = "20s"'
    }
    local checksum compression size
    {
        run
        for checksum in "${checksums[@]}"; do
            store "$checksum" "checksum = \"$checksum\""
            for compression in "${compressions[@]}"; do
                for size in small big; do
                    database "$size-$checksum-$compression" "$checksum" "cat $work/$size" \
                        "compression = \"$compression\""
                done
            done
        done
    } >"$dir/matrix.toml"
    {
        run
        store volumes 'max_parts = 2'
        store crc64nvme
        other_databases
    } >"$dir/others.toml"
}

other_databases() {
    database volumes volumes "cat $work/big" 'compression = "none"'
    database forty crc64nvme "head -c 320M /dev/zero" 'compression = "none"'
    database many crc64nvme "head -c 5600M /dev/zero" 'compression = "none"'
    database failing crc64nvme "cat $work/big; echo the disk is broken >&2; exit 3"
    database endless crc64nvme "cat $work/big $work/big; exec sleep 60"
    database pruned crc64nvme "cat $work/small"
    database writer crc64nvme "cat $work/big"
}

of_checksum() { # of_checksum CHECKSUM: its databases
    for compression in "${compressions[@]}"; do
        echo "small-$1-$compression" "big-$1-$compression"
    done
}

nothing_is_left() { # nothing_is_left PREFIX
    local left
    left=$(s3 left "$1")
    [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# What the server is known not to do is in `lacks`; all else must be as AWS does it. `?` is to find it out.
step_conforms() {
    TAPLINE_TEST_S3=$AWS_ENDPOINT_URL/$BUCKET TAPLINE_TEST_S3_LACKS=${lacks:-} RUST_BACKTRACE=0 \
        timeout 900 "$suite" --exact --ignored --nocapture store::the_server_that_is_named_conforms |
        tee "$dir/conforms.out"
    [ "$lacks" != '?' ] || lacks=$(sed -n 's/^lacks: //p' "$dir/conforms.out")
    [ -z "${lacks:-}" ] || { echo "but for: ${lacks// /, }"; return 78; }
}

step_check() { others check pruned; }
step_crc64nvme() { tapline backup $(of_checksum crc64nvme); }
step_crc32() { tapline backup $(of_checksum crc32); }
step_none() { tapline backup $(of_checksum none); }

step_list() {
    tapline list >"$dir/list"
    grep -q big-crc64nvme-gzip "$dir/list"
    grep -q small-none-none "$dir/list"
    tapline show big-crc32-zstd >"$dir/show"
    grep -qi 'sha-\?256' "$dir/show"
}

step_verify() {
    tapline verify
    tapline verify --quick
}

step_restore() {
    local size checksum compression
    for size in small big; do
        for checksum in "${checksums[@]}"; do
            for compression in "${compressions[@]}"; do
                tapline restore "$size-$checksum-$compression" --output "$dir/restored"
                cmp "$dir/restored" "$work/$size"
                rm "$dir/restored"
            done
        done
    done
}

step_stock() {
    local checksum
    for checksum in "${checksums[@]}"; do
        s3 read "$checksum/small-" "$work/small"
        s3 read "$checksum/big-" "$work/big"
    done
}

step_volumes() {
    others backup volumes
    [ "$(s3 left volumes/ | grep -c '^object')" = 4 ] # three volumes and the manifest
    others verify volumes
    others restore volumes --output "$dir/restored" --overwrite
    cmp "$dir/restored" "$work/big"
    s3 read volumes/ "$work/big"
}

step_forty() {
    others backup forty
    others verify forty
    has_parts forty 40
}

step_many() {
    [ "${INTEROP_MANY:-}" = 1 ] || { echo "not tried: INTEROP_MANY=1 does, with 5.9 GB"; return 77; }
    # In the least memory that a job can do with, its parts have the least size, too.
    local least
    least=$(others backup many --jobs 1 --memory 1MiB 2>&1 |
        sed -n 's/.* \([0-9]*\) MiB are needed.*/\1/p' | sed -n 1p || true)
    patience=900 others backup many --jobs 1 --memory "${least}MiB"
    patience=900 others verify many
    has_parts many 1001
}

has_parts() { # has_parts DATABASE COUNT: at least, in its latest backup
    others show "$1" --json >"$dir/manifest"
    python3 -c 'import json, sys
parts = sum(volume["parts"] for volume in json.load(open(sys.argv[1]))["archive"]["volumes"])
sys.exit(0 if parts >= int(sys.argv[2]) else f"only {parts} parts")' "$dir/manifest" "$2"
}

step_failing() {
    local status=0
    others backup failing || status=$?
    [ $status = 1 ]
    nothing_is_left crc64nvme/failing/
}

# interrupt SIGNAL: sends it to a backup that has parts in the store; `status` is what it ends with
interrupt() {
    "$binary" --config "$dir/others.toml" backup endless &
    local pid=$!
    s3 parts crc64nvme/endless/ || { kill -KILL $pid; return 1; }
    kill -"$1" $pid
    status=0
    wait $pid || status=$?
}

step_sigterm() {
    interrupt TERM
    [ "$status" = 143 ]
    nothing_is_left crc64nvme/endless/
}

step_sigkill() {
    interrupt KILL
    [ -n "$(s3 left crc64nvme/endless/)" ]
    others list --store crc64nvme >"$dir/list"
    if grep endless "$dir/list"; then return 1; fi
    # What is young may be a backup that runs.
    others cleanup --store crc64nvme --older-than 1h --confirm
    [ -n "$(s3 left crc64nvme/endless/)" ]
    if ! command -v faketime >/dev/null || ! [ -e "$dir/clock" ]; then
        s3 abort crc64nvme/endless/
        echo "what is young stays; no more was tried, for its clock cannot be moved"
        return 78
    fi
    echo '+2h' >"$dir/clock"
    sleep 2
    faketime -f +2h "$binary" --config "$dir/others.toml" \
        cleanup --store crc64nvme --older-than 1h --confirm
    echo '+0' >"$dir/clock"
    sleep 2
    nothing_is_left crc64nvme/endless/
}

step_prune() {
    others backup pruned
    others backup pruned
    others prune pruned --keep-last 1 --confirm
    [ "$(s3 left crc64nvme/pruned/ | grep -c manifest.json)" = 1 ]
    [ "$(s3 left crc64nvme/pruned/ | grep -c .)" = 2 ]
    others verify pruned
}

# as_role ACTION…: the same inventory with a key that may do this alone
as_role() {
    declare -F "${server}_allow" >/dev/null || { echo "not tried: no such keys"; exit 77; }
    "${server}_allow" "$@"
}
other() { AWS_ACCESS_KEY_ID=$OTHER_KEY AWS_SECRET_ACCESS_KEY=$OTHER_SECRET others "$@"; }
refused() { if "$@"; then echo "was not refused: $*"; return 1; fi; }

step_writer() {
    as_role s3:PutObject
    other check writer
    other backup writer
    others verify writer
    # What such a key cannot do is said, and an earlier backup is not touched by it.
    refused other list
}

# The roles of the README.
step_roles() {
    as_role s3:ListBucket s3:GetObject
    others backup pruned
    others backup pruned
    other list
    other verify pruned
    other restore pruned --output "$dir/restored" --overwrite
    cmp "$dir/restored" "$work/small"
    refused other backup writer
    refused other prune pruned --keep-last 1 --confirm
    others verify --all pruned
    as_role s3:ListBucket s3:GetObject s3:DeleteObject \
        s3:ListBucketMultipartUploads s3:ListMultipartUploadParts s3:AbortMultipartUpload
    other prune pruned --keep-last 1 --confirm
    other cleanup --confirm
    [ "$(s3 left crc64nvme/pruned/ | grep -c .)" = 2 ]
    refused other backup writer
    others verify pruned
}

versioned_bucket() {
    s3 versioned && return
    [ "$server" = url ] || return 1
    echo "not tried: it makes no bucket that keeps versions and locks objects"
    exit 77
}

# In a bucket that keeps versions and locks objects.
step_lock() {
    export BUCKET=tapline-locked
    versioned_bucket
    {
        run
        store locked 'object_lock = { mode = "governance", days = 1 }'
        store unchecked 'object_lock = { mode = "governance", days = 1 }' 'checksum = "none"'
        database small locked "cat $work/small" 'expected_size = "1kB"'
        database large locked "cat $work/big"
        database plain unchecked "cat $work/big"
    } >"$dir/locked.toml"
    locked() { timeout --kill-after=10 150 "$binary" --config "$dir/locked.toml" "$@"; }
    locked check small
    locked backup
    locked verify
    s3 locked locked/small/ 2
    s3 locked locked/large/ 2
    s3 locked unchecked/plain/ 2
}

# In a bucket that keeps versions and locks objects: what is said to be free is, and what is locked is
# named with its date.
step_versions() {
    export BUCKET=tapline-versions
    versioned_bucket
    {
        run
        store plain
        store locked 'object_lock = { mode = "governance", days = 1 }'
        database versioned plain "cat $work/big"
        database small locked "cat $work/small" 'expected_size = "1kB"'
        database large locked "cat $work/big"
    } >"$dir/versions.toml"
    kept() { timeout --kill-after=10 150 "$binary" --config "$dir/versions.toml" "$@"; }
    of_versioned() { s3 versions plain/versioned/ | grep -c .; }
    kept check versioned small
    kept backup versioned
    kept backup versioned
    kept prune versioned --keep-last 1 --versions --confirm
    [ "$(of_versioned)" = 2 ]
    kept backup versioned
    kept prune versioned --keep-last 1 --confirm | grep 'free only with'
    [ "$(of_versioned)" = 6 ] # an archive and a manifest, two that are hidden, and their marks
    local database
    for database in small large; do
        kept backup $database
        kept backup $database
        refused kept prune $database --keep-last 1 --versions --confirm 2>&1 | tee "$dir/refused"
        grep 'locked until 20' "$dir/refused"
        kept verify $database
    done
    if ! command -v faketime >/dev/null || ! [ -e "$dir/clock" ]; then
        echo "but for what \`cleanup --versions\` does with what was hidden before: the clock cannot be moved"
        return 78
    fi
    echo '+2h' >"$dir/clock"
    sleep 2
    faketime -f +2h "$binary" --config "$dir/versions.toml" \
        cleanup --store plain --older-than 1h --versions --confirm
    echo '+0' >"$dir/clock"
    sleep 2
    [ "$(of_versioned)" = 2 ]
    kept verify versioned
}

# The lines of README's "Keys and networks": nginx speaks TLS before the server, tinyproxy stands between.
step_lines() {
    local front proxy line lines rest=() skipped=()
    command -v nginx tinyproxy >/dev/null || apt_install nginx-light tinyproxy
    pip_install awscli
    front=$(free_port) proxy=$(free_port)
    mkdir "$dir/lines" "$dir/lines/bin"
    ln -s "$binary" "$dir/lines/bin/tapline"
    make_authority "$dir/lines"
    front_server "$front" "$proxy"
    {
        run
        echo '[stores.main]'
        echo "url = \"s3://$BUCKET/lines\""
        database lines main "cat $work/big; until [ -e $dir/lines/go ]; do sleep 0.1; done; cat $work/big" \
            'compression = "none"'
    } >"$dir/lines/tapline.toml"
    login() { # login PROFILE KEY SECRET
        printf '[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$@" >>"$dir/lines/credentials"
    }
    login default "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"
    mapfile -t lines < <(sed -n '/^### Keys and networks/,/^### What/{/^```sh/,/^```$/{/^```/!p}}' README.md)
    [ ${#lines[@]} -ge 7 ]
    touch "$dir/lines/go"
    for line in "${lines[@]}"; do
        case $line in
        AWS_PROFILE=writer*)
            declare -F "${server}_allow" >/dev/null || { skipped+=("a key that may only put objects"); continue; }
            "${server}_allow" s3:PutObject
            grep -q writer "$dir/lines/credentials" || login writer "$OTHER_KEY" "$OTHER_SECRET"
            type_line "$line"
            ;;
        AWS_CA_BUNDLE=*)
            refused type_line "${line#* }" AWS_CA_BUNDLE=
            type_line "$line" AWS_CA_BUNDLE=
            ;;
        HTTPS_PROXY=*)
            type_line "$line"
            grep -q "CONNECT 127.0.0.1:$front" "$dir/lines/proxy.log"
            ;;
        AWS_ENDPOINT_URL=*)
            # What nginx takes away from a path has been signed.
            [ -n "${checks_no_signatures:-}" ] || { skipped+=("an endpoint with a path"); continue; }
            type_line "$line"
            grep -q '/storage/v1/s3/' "$dir/lines/access.log"
            ;;
        aws*) rest+=("$line") ;;
        *) type_line "$line" ;;
        esac
    done
    if declare -F "${server}_key" >/dev/null; then
        keys_change "${rest[@]}"
    else
        skipped+=("keys that change")
    fi
    type_line "tapline verify --all"
    [ ${#skipped[@]} = 0 ] && return
    echo "but for: $(printf '%s\n' "${skipped[@]}" | sort -u | paste -sd , | sed 's/,/, /g')"
    return 78
}

# A dump goes on when its key is another in the middle of it, and the old one means nothing any more.
keys_change() {
    local line status=0
    "${server}_key"
    login backup "$OLD_KEY" "$OLD_SECRET"
    rm "$dir/lines/go"
    type_line "AWS_PROFILE=backup tapline backup" >"$dir/lines/turn.log" 2>&1 &
    local pid=$!
    s3 parts lines/lines/ || { touch "$dir/lines/go"; return 1; }
    "${server}_turn"
    for line; do
        line=${line/NEW-KEY/$NEW_KEY}
        type_line "${line/NEW-SECRET/$NEW_SECRET}"
    done
    touch "$dir/lines/go"
    wait $pid || status=$?
    cat "$dir/lines/turn.log"
    return $status
}

type_line() { # type_line LINE [VARIABLE=VALUE…]: as it stands in the README, but for what is where
    local line=$1
    shift
    line=${line//https:\/\/s3.example.com/https://127.0.0.1:$front}
    line=${line//proxy.example.com:3128/127.0.0.1:$proxy}
    line=${line//\/etc\/ssl\/our-ca.pem/$dir/lines/ca.pem}
    echo "\$ $line"
    (
        cd "$dir/lines"
        unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
        export PATH=$dir/lines/bin:$cache/venv/bin:$PATH AWS_SHARED_CREDENTIALS_FILE=$dir/lines/credentials
        export AWS_ENDPOINT_URL=https://127.0.0.1:$front AWS_CA_BUNDLE=$dir/lines/ca.pem
        [ $# = 0 ] || export "$@"
        timeout --kill-after=10 150 bash -c "$line"
    )
}

make_authority() { # make_authority FOLDER: ca.pem, and server.pem of its own
    (
        cd "$1"
        local new='-newkey rsa:2048 -nodes -days 2'
        openssl req -x509 $new -subj /CN=authority -keyout ca.key -out ca.pem
        openssl req $new -subj /CN=store -keyout server.key -out server.csr
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out server.pem \
            -extfile <(echo subjectAltName=IP:127.0.0.1)
    ) 2>/dev/null
}

front_server() { # front_server PORT PROXY-PORT
    cat >"$dir/lines/nginx.conf" <<CONF
user root;
daemon off;
worker_processes 1;
pid $dir/lines/nginx.pid;
error_log $dir/lines/error.log;
events {}
http {
    access_log $dir/lines/access.log;
    client_body_temp_path $dir/lines/body;
    proxy_temp_path $dir/lines/proxied;
    fastcgi_temp_path $dir/lines/f;
    uwsgi_temp_path $dir/lines/u;
    scgi_temp_path $dir/lines/s;
    client_max_body_size 0;
    proxy_request_buffering off;
    proxy_http_version 1.1;
    proxy_set_header Host \$http_host;
    server {
        listen 127.0.0.1:$1 ssl;
        ssl_certificate $dir/lines/server.pem;
        ssl_certificate_key $dir/lines/server.key;
        location /storage/v1/s3/ { proxy_pass ${AWS_ENDPOINT_URL%/}/; }
        location / { proxy_pass ${AWS_ENDPOINT_URL%/}; }
    }
}
CONF
    printf '%s\n' "Port $2" 'Listen 127.0.0.1' 'Timeout 600' 'MaxClients 100' "LogFile \"$dir/lines/proxy.log\"" \
        'LogLevel Connect' "PidFile \"$dir/lines/proxy.pid\"" >"$dir/lines/proxy.conf"
    : >"$dir/lines/proxy.log"
    chmod a+rw "$dir/lines/proxy.log"
    setpriv --pdeathsig KILL -- nginx -e stderr -p "$dir/lines" -c "$dir/lines/nginx.conf" &
    setpriv --pdeathsig KILL -- tinyproxy -d -c "$dir/lines/proxy.conf" >"$dir/lines/proxy.log" 2>&1 &
    python3 - "$1" "$2" <<'PYTHON'
import socket, sys, time
for port in sys.argv[1:]:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", int(port)), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        sys.exit(f"nobody listens on {port}")
PYTHON
}
