#!/usr/bin/env bash
# Installs a package in a clean Debian of its own, runs what it brings, and removes it again.
#
#   packaging/try.sh FILE.deb [ROOT.tar]
#
# Without a ROOT.tar, mmdebstrap makes a minimal one, which takes a minute. Needs root.
set -euo pipefail
deb=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
if (($# > 1)); then
    tar -C "$root" -xf "$2" --exclude='./dev/*'
else
    # What the package depends on is the only addition.
    mmdebstrap --quiet --variant=minbase --include=systemd-standalone-sysusers bookworm - |
        tar -C "$root" -x --exclude='./dev/*'
fi
mknod -m 666 "$root/dev/null" c 1 3
cp "$deb" "$root/metalbond.deb"
inside=(chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ LC_ALL=C)
step() { printf '== %s\n' "$*"; }

step "installs"
"${inside[@]}" dpkg --install /metalbond.deb
[[ -z $("${inside[@]}" dpkg --audit) ]]

step "starts nothing and enables nothing"
[[ -z $(find "$root/etc/systemd" -name 'metalbond*' -print) ]]

step "has a user of its own"
"${inside[@]}" getent passwd metalbond

step "runs as that user, from the files it brings"
as_user=(setpriv --reuid=metalbond --regid=metalbond --clear-groups --no-new-privs)
"${inside[@]}" metalbond --version
"${inside[@]}" metalbond check /etc/metalbond/server.toml
"${inside[@]}" "${as_user[@]}" metalbond demo | tail -n 1
log=$root/server.log
"${inside[@]}" "${as_user[@]}" metalbond server --config /etc/metalbond/server.toml \
    --listen '127.0.0.1:0' 2>"$log" &
server=$!
for ((i = 0; i < 100; i++)); do
    grep -q 'listening on' "$log" && break
    sleep 0.1
done
grep 'listening on' "$log"
kill -TERM "$server"
wait "$server"

step "without servers, the client says what it lacks"
code=0
"${inside[@]}" metalbond client --config /etc/metalbond/client.toml || code=$?
((code == 2))

step "keeps a changed configuration when it is installed again, and until it is purged"
echo '# changed' >>"$root/etc/metalbond/server.toml"
"${inside[@]}" dpkg --install /metalbond.deb
"${inside[@]}" dpkg --remove metalbond
grep -q '# changed' "$root/etc/metalbond/server.toml"
"${inside[@]}" dpkg --purge metalbond
[[ ! -e $root/etc/metalbond && ! -e $root/usr/bin/metalbond ]]
echo "all is well"
