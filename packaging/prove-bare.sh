#!/usr/bin/env bash
# Proof that a clean clone works on a bare Debian: debootstrap, clone, then both commands of the README, inside namespaces.
# usage (root): packaging/prove-bare.sh [--suite bookworm|trixie] [--keep] [demo|plain|test|all]...
# PANAL_PROVE_STAGES: arguments for ./test. Package sources, certificates and the settings of pip and npm are this machine's own, read when it runs.
set -euo pipefail
top=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
. "$top/packaging/bootstrap.sh"

suite=bookworm keep='' what=() base=${PANAL_PROVE_DIR:-/var/tmp}
while [ $# -gt 0 ]; do
    case $1 in
    --suite) suite=$2; shift 2 ;;
    --keep) keep=1; shift ;;
    demo | plain | test) what+=("$1"); shift ;;
    all) what=(demo plain test); shift ;;
    *) fail "knows nothing of '$1'" ;;
    esac
done
[ ${#what[@]} -gt 0 ] || what=(demo plain test)
[ "$(id -u)" = 0 ] || fail "needs root: it makes a root directory and namespaces"
install_packages debootstrap git util-linux

mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Identifier: Packages' | sed -n 's/^Debian|Debian|//p' | head -n 1)
security=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Identifier: Packages' | sed -n 's/^Debian|Debian-Security|//p' | head -n 1)
[ -n "$mirror" ] || fail "apt knows no Debian mirror: run apt-get update"

root=$(mktemp -d "$base/panal-bare-$suite-XXXXXX")
chmod 755 "$root"
finish() { [ -n "$keep" ] && say "kept: $root" || rm -rf --one-file-system "$root"; }
trap finish EXIT
trap 'exit 130' INT TERM HUP

say "making a bare $suite in $root"
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" 2>&1 | progress debootstrap
[ -x "$root/usr/bin/apt-get" ] || fail "debootstrap failed; see $root/debootstrap/debootstrap.log"
{
    echo "deb $mirror $suite main"
    echo "deb $mirror $suite-updates main"
    [ -n "$security" ] && echo "deb $security $suite-security main"
} >"$root/etc/apt/sources.list"
cp /etc/apt/apt.conf.d/*proxy* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
cp /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true
[ -f /etc/pip.conf ] && cp /etc/pip.conf "$root/etc/pip.conf"
for file in .npmrc .config/pip/pip.conf .pip/pip.conf; do
    if [ -f "$HOME/$file" ]; then install -D -m 0644 "$HOME/$file" "$root/root/$file"; fi
done
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
echo bare >"$root/etc/hostname"
git -c safe.directory='*' clone -q --no-hardlinks "$top" "$root/srv/panal"
say "clean clone of $(git -C "$root/srv/panal" log -1 --format='%h %s')"

cat >"$root/srv/prove" <<'TEXT'
#!/bin/bash
# Runs inside the bare root; one line a step, with seconds.
set -u
result=0
step() {
    local name=$1 began=$SECONDS; shift
    echo "---- $name"
    if "$@" </dev/null; then echo "PROVED $name ($((SECONDS - began)) s)"; else echo "FAILED $name: $? ($((SECONDS - began)) s)"; result=1; fi
}
cd /srv/panal
for part in "$@"; do
    case $part in
    demo)
        step "demo" ./demo
        step "demo, second run" ./demo
        step "demo status --json" sh -c './demo status --json | tee /tmp/status.json | /usr/bin/python3 -c "
import json, sys
found = json.load(sys.stdin)
assert found[\"nodes\"] and found[\"guests\"][0][\"status\"] == \"running\", found
assert all(found[key] for key in (\"url\", \"username\", \"password\"))"'
        step "demo down" ./demo down
        step "nothing runs on" sh -c '! ls -d /sys/class/net/pnldemo0 2>/dev/null && ! pgrep_ours'
        step "demo again after down" ./demo
        step "demo down --purge" ./demo down --purge
        step "nothing is left" sh -c '! ls -d /var/lib/panal-demo 2>/dev/null'
        ;;
    plain)
        id visitor >/dev/null 2>&1 || useradd -m visitor
        step "demo without root" setpriv --reuid visitor --regid visitor --init-groups env HOME=/home/visitor USER=visitor PANAL_DEMO_PLAIN=1 ./demo
        step "demo down without root" setpriv --reuid visitor --regid visitor --init-groups env HOME=/home/visitor USER=visitor PANAL_DEMO_PLAIN=1 ./demo down --purge
        ;;
    test) step "test" env CI=true ./test ${PANAL_PROVE_STAGES:-} ;;
    esac
done
exit $result
TEXT
sed -i 's/ && ! pgrep_ours//' "$root/srv/prove"
chmod 755 "$root/srv/prove"

say "running ${what[*]} in it"
# shellcheck disable=SC2016
unshare --mount --pid --uts --fork --kill-child --propagation private bash -c '
    set -e
    root=$1; shift
    hostname bare
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=755 run "$root/run"
    while IFS= read -r place; do
        [ -d "$place" ] || continue
        mkdir -p "$root$place"; mount --bind -o ro "$place" "$root$place"
    done < <(env | sed -n "s/^PIP_[A-Z_]*=\(file:\/\/\)\?\(\/[^ ]*\)$/\2/p"; python3 -m pip config list 2>/dev/null | grep -oE "(file://)?/[^ '"'"']+" | sed "s#^file://##" | cut -d/ -f1-3 | sort -u)
    keep=$(env | grep -E "^(PIP_|NPM_CONFIG_|npm_config_|SSL_CERT_|REQUESTS_CA|NODE_EXTRA_CA|CURL_CA|https?_proxy|HTTPS?_PROXY|no_proxy|NO_PROXY|PANAL_DEMO_PORT|PANAL_PROVE_STAGES)" || true)
    mapfile -t keep <<<"$keep"
    exec chroot "$root" /usr/bin/env -i "${keep[@]:-A=b}" HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb /srv/prove "$@"
' bash "$root" "${what[@]}"
