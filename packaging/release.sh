#!/usr/bin/env bash
# Makes the Debian package, the tarball, a Homebrew formula and a list of what is in the binary
# (CycloneDX), with checksums: packaging/release.sh [OUT]
# TAPLINE_BINARY=path packs a binary that is there instead of building one.
# The same commit and the same binary give the same bytes: times are the commit's, owners root.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/package}
umask 022

if [ -z "${TAPLINE_BINARY:-}" ]; then
    cargo build --release --locked
    TAPLINE_BINARY=$(cargo metadata --locked --no-deps --format-version 1 |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release/tapline
fi
version=$("$TAPLINE_BINARY" --version | cut -d' ' -f2)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
machine=$(uname -m)
case $machine in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) arch=$machine ;;
esac
# The youngest symbol of the C library that the binary asks for is what it needs.
glibc=$(objdump -T "$TAPLINE_BINARY" | grep -o 'GLIBC_[0-9.]*' | cut -d_ -f2 | sort -V | tail -1)
[ -n "$glibc" ] || { echo "release.sh: which glibc it needs cannot be told" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/man"
"$TAPLINE_BINARY" __man "$work/man"
for shell in bash zsh fish; do
    "$TAPLINE_BINARY" completions "$shell" >"$work/tapline.$shell"
done
"$TAPLINE_BINARY" init - >"$work/tapline.toml"

# The package.
root=$work/deb
put() { install -D -m "$1" "$2" "$root/$3"; }
put 0755 "$TAPLINE_BINARY" usr/bin/tapline
strip --strip-debug "$root/usr/bin/tapline"
for page in "$work"/man/*.1; do
    gzip -9n <"$page" >"$page.gz"
    put 0644 "$page.gz" "usr/share/man/man1/$(basename "$page").gz"
done
put 0644 "$work/tapline.bash" usr/share/bash-completion/completions/tapline
put 0644 "$work/tapline.zsh" usr/share/zsh/vendor-completions/_tapline
put 0644 "$work/tapline.fish" usr/share/fish/vendor_completions.d/tapline.fish
for unit in tapline.service tapline-backup.service tapline-backup.timer; do
    put 0644 "packaging/$unit" "usr/lib/systemd/system/$unit"
done
put 0644 packaging/sysusers.conf usr/lib/sysusers.d/tapline.conf
put 0644 "$work/tapline.toml" usr/share/doc/tapline/examples/tapline.toml
put 0644 README.md usr/share/doc/tapline/README.md
put 0644 CHANGELOG.md usr/share/doc/tapline/CHANGELOG.md
{ printf 'MIT OR Apache-2.0\n\n'; cat LICENSE-MIT LICENSE-APACHE; } >"$work/copyright"
put 0644 "$work/copyright" usr/share/doc/tapline/copyright
put 0755 packaging/postinst DEBIAN/postinst
put 0755 packaging/prerm DEBIAN/prerm
cat >"$root/DEBIAN/control" <<CONTROL
Package: tapline
Version: $version
Architecture: $arch
Maintainer: tapline
Section: database
Priority: optional
Installed-Size: $(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f1)
Depends: libc6 (>= $glibc), libgcc-s1, ca-certificates, passwd
Recommends: postgresql-client | mariadb-client | default-mysql-client
Description: streaming, zero-temp-file database backups into S3
 Dumps PostgreSQL, MySQL, MariaDB, SQLite and any command's output straight
 into a bucket or folder, verifies and restores them, by the command line or
 as a service with schedules.
CONTROL
find "$root" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$root" "$out/tapline_${version}_$arch.deb" >/dev/null

# The tarball.
name=tapline-$version-$machine-linux
mkdir -p "$work/$name"
cp -r "$root/usr/bin/tapline" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$work/$name/"
mkdir "$work/$name/man" "$work/$name/completions" "$work/$name/systemd"
cp "$work"/man/*.1 "$work/$name/man/"
cp "$work"/tapline.{bash,zsh,fish} "$work/$name/completions/"
cp packaging/*.service packaging/*.timer "$work/$name/systemd/"
cp "$work/tapline.toml" "$work/$name/tapline.example.toml"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    -C "$work" -c "$name" | gzip -9n >"$out/$name.tar.gz"

packaging/sbom.py >"$out/tapline-$version.cdx.json"
sha256=$(sha256sum "$out/$name.tar.gz" | cut -d' ' -f1)
sed "s/@VERSION@/$version/; s/@SHA256@/$sha256/; s/@NAME@/$name/" packaging/homebrew.rb >"$out/tapline.rb"
(cd "$out" && sha256sum "tapline_${version}_$arch.deb" "$name.tar.gz" "tapline-$version.cdx.json" tapline.rb >SHA256SUMS)
echo "needs glibc $glibc"
cat "$out/SHA256SUMS"
