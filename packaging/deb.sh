#!/usr/bin/env bash
# Builds the Debian package for this machine's architecture and prints its path. It holds the
# binary of packaging/static.sh, which needs no library of the system.
#
# Needs cargo-deb (cargo install cargo-deb --locked), and what packaging/static.sh needs.
set -euo pipefail
cd "$(dirname "$0")/.."

packaging/static.sh "$@"
binary=$(realpath "${CARGO_TARGET_DIR:-target}/static/metalbond")

# What the package's list of files (Cargo.toml) takes from here.
stage=target/package
rm -rf "$stage"
mkdir -p "$stage"/{etc,bin,sbin,units}
cp "$binary" "$stage/bin/metalbond"
# Where Go MetalBond's package has the program, and the name of its tunnel unit.
ln -s ../bin/metalbond "$stage/sbin/metalbond"
cp packaging/systemd/metalbond-tunnel.service "$stage/units/"
ln -s metalbond-tunnel.service "$stage/units/metalbond-tun.service"
"$binary" man "$stage/man"
for shell in bash zsh fish; do
    "$binary" completions "$shell" >"$stage/metalbond.$shell"
done
for role in server client; do
    "$binary" template "$role" >"$stage/etc/$role.toml"
done
version=$("$binary" --version | cut -d' ' -f2)
# The epoch sorts above every version of Go MetalBond's package, which has the same name.
debian=1:$version-1
date=$(git log -1 --format=%aD 2>/dev/null || date -R)
cat >"$stage/changelog" <<END
metalbond ($debian) unstable; urgency=medium

  * Built from the sources of $version.

 -- RustBond maintainers <maintainers@rustbond.invalid>  $date
END
# A service ends in order.
sed -i 's/^#drain = 0$/drain = 10/' "$stage/etc/server.toml"

# File names have no epoch.
deb=$stage/metalbond_$version-1_$(dpkg --print-architecture).deb
cargo deb --no-build --no-strip --quiet --deb-version "$debian" --output "$deb"
echo "$deb"
