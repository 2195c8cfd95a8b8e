#!/usr/bin/env bash
# Installs a package in a clean Debian of its own, runs what it brings, and removes it again. Then
# installs a package with the layout of Go MetalBond's, configures it, and upgrades it.
#
#   packaging/try.sh FILE.deb [ROOT.tar]
#
# Without a ROOT.tar, mmdebstrap or debootstrap makes a minimal one, which takes a minute or two.
# Needs root.
set -euo pipefail
deb=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
if (($# > 1)); then
    tar -C "$root" -xf "$2" --exclude='./dev/*'
elif ! command -v mmdebstrap >/dev/null; then
    debootstrap --variant=minbase --include=systemd-standalone-sysusers bookworm "$root" >/dev/null
    rm -rf "$root/dev"
    mkdir "$root/dev"
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

# Starts a command, waits for a text in its log, and ends the command.
says() {
    local text=$1 log=$root/says.log
    shift
    "$@" 2>"$log" >/dev/null &
    local process=$!
    for ((i = 0; i < 100; i++)); do
        grep -q -e "$text" "$log" && break
        sleep 0.1
    done
    kill -TERM "$process" 2>/dev/null || true
    wait "$process" || true
    grep -e "$text" "$log" || { cat "$log" && false; }
}

step "without servers, the client waits and says what it lacks"
says 'option server: none is given' "${inside[@]}" metalbond client \
    --config /etc/metalbond/client.toml

step "keeps a changed configuration when it is installed again, and until it is purged"
echo '# changed' >>"$root/etc/metalbond/server.toml"
"${inside[@]}" dpkg --install /metalbond.deb
"${inside[@]}" dpkg --remove metalbond
grep -q '# changed' "$root/etc/metalbond/server.toml"
"${inside[@]}" dpkg --purge metalbond
[[ ! -e $root/etc/metalbond && ! -e $root/usr/bin/metalbond ]]
[[ ! -e $root/usr/share/metalbond && ! -e $root/etc/iproute2/rt_protos.d/metalbond.conf ]]

step "takes the place of Go MetalBond's package, whose configuration stays"
go=$root/go
mkdir -p "$go"/DEBIAN "$go"/usr/sbin "$go"/usr/share/metalbond/{html,systemd-units}
cat >"$go/DEBIAN/control" <<END
Package: metalbond
Version: 0.5.0
Architecture: $("${inside[@]}" dpkg --print-architecture)
Maintainer: nobody <nobody@metalbond.invalid>
Description: the layout of another package
END
printf '#!/bin/sh\necho go\n' >"$go/usr/sbin/metalbond"
echo '<html></html>' >"$go/usr/share/metalbond/html/index.html"
units=$go/usr/share/metalbond/systemd-units
printf '[Service]\nType=oneshot\nExecStart=/bin/true\n' >"$units/metalbond-tun.service"
cat >"$units/metalbond-client.service" <<'END'
[Unit]
Requires=metalbond-tun.service
[Service]
WorkingDirectory=/usr/share/metalbond
ExecStart=/usr/sbin/metalbond client --server [::1]:4711 --keepalive 5 --install-routes 123#0 --tun overlay-tun
END
cat >"$go/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
mkdir -p /etc/iproute2 /etc/systemd/system
printf '254\tmetalbond\n' >>/etc/iproute2/rt_protos
cp -n /usr/share/metalbond/systemd-units/* /etc/systemd/system/
END
chmod 755 "$go/DEBIAN/postinst" "$go/usr/sbin/metalbond"
dpkg-deb --root-owner-group --build "$go" "$root/go.deb" >/dev/null
"${inside[@]}" dpkg --install /go.deb
[[ $("${inside[@]}" metalbond) == go ]]
unit=$root/etc/systemd/system/metalbond-client.service
sed -i 's/--keepalive 5/--keepalive 0/' "$unit"
before=$(cat "$unit" "$root/etc/iproute2/rt_protos")
# As on a host that systemd runs: what is asked of it is written down.
mkdir -p "$root/run/systemd/system"
printf '#!/bin/sh\necho "$*" >>/asked\n' >"$root/usr/bin/systemctl"
chmod 755 "$root/usr/bin/systemctl"
"${inside[@]}" dpkg --install /metalbond.deb
[[ -z $("${inside[@]}" dpkg --audit) ]]
[[ $(cat "$unit" "$root/etc/iproute2/rt_protos") == "$before" ]]
[[ ! -e $root/usr/share/metalbond/html && -d $root/usr/share/metalbond ]]
"${inside[@]}" /usr/sbin/metalbond --version
"${inside[@]}" test -e /usr/lib/systemd/system/metalbond-tun.service
new=$("${inside[@]}" dpkg-query --showformat='${Version}' --show metalbond)
"${inside[@]}" dpkg --compare-versions "$new" gt 99.0

step "restarts nothing by an upgrade, and ends what runs when it is removed"
grep -q 'daemon-reload' "$root/asked"
[[ -z $(grep -e 'start' -e 'stop' "$root/asked") ]]
"${inside[@]}" dpkg --install /metalbond.deb
[[ -z $(grep -e 'start' -e 'stop' "$root/asked") ]]

step "runs what the unit of Go MetalBond starts"
command=$(sed -n 's/^ExecStart=//p' "$unit")
# In a network of its own: nothing is changed on this host.
# shellcheck disable=SC2086
says 'nothing is installed for what --subscribe does not have: VNI 123' \
    unshare --net sh -c '
        ip link add overlay-tun type ip6tnl mode any external 2>/dev/null ||
            ip link add overlay-tun type vxlan external gpe dstport 4790 udp6zerocsumrx
        ip link set overlay-tun up
        exec "$@"' sh "${inside[@]}" $command
"${inside[@]}" dpkg --purge metalbond
grep -q 'stop.*metalbond-server' "$root/asked"
grep -q 'stop.*metalbond-client' "$root/asked"
echo "all is well"
