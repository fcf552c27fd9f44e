#!/bin/sh
# First process of the virtual machine of test_firewall_vm.py: a bridge, a guest and a stranger in namespaces, our rules between.
# Says one line a check on the console: `check NAME ok` or `check NAME WRONG`.
export PATH=/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
# busybox's shell would take its own
ip() { /sbin/ip "$@"; }
while read -r module; do insmod "/modules/$module.ko" || echo "no module $module"; done </modules/order

ip link set lo up
ip link add br0 type bridge
for n in guest:tap100i0:bc:24:11:00:00:01:2 other:out0:bc:24:11:00:00:09:3; do
    name=${n%%:*}; rest=${n#*:}; port=${rest%%:*}; rest=${rest#*:}; mac=${rest%:*}; last=${rest##*:}
    ip netns add "$name"
    ip link add "$port" type veth peer name eth0 netns "$name"
    ip link set "$port" master br0 up
    ip -n "$name" link set lo up
    ip -n "$name" link set eth0 address "$mac"
    ip netns exec "$name" sysctl -qw net.ipv6.conf.eth0.accept_dad=0
    ip -n "$name" addr add "10.0.0.$last/24" dev eth0
    ip -n "$name" link set eth0 up
    ip -n "$name" addr add "fd00::$last/64" dev eth0
done
ip addr add 10.0.0.1/24 dev br0; ip link set br0 up
for name in guest other; do
    for port in 22 25 80; do ip netns exec "$name" nc -ll -p $port -e /bin/echo hello & done
done
sleep 1

reach() { ip netns exec "$1" nc -w 2 "$2" "$3" </dev/null 2>/dev/null | grep -q hello; }
udp_rejected() {
    ip netns exec "$1" traceroute -n -m 1 -q 1 -w 1 "$2" >/dev/null 2>&1
    [ "$(ip netns exec "$1" awk '/^Icmp: [0-9]/ {print $5}' /proc/net/snmp)" -gt 0 ]
}
ping_() { ip netns exec "$1" ping -c 1 -W 2 "$2" >/dev/null 2>&1; }
yes_() { name=$1; shift; if "$@"; then echo "check $name ok"; else echo "check $name WRONG"; fi; }
no_() { name=$1; shift; if "$@"; then echo "check $name WRONG"; else echo "check $name ok"; fi; }
host_reach() { nc -w 2 "$1" "$2" </dev/null 2>/dev/null | grep -q hello; }
# refused by an answer, not by silence: nc says so at once
rejected() { ip netns exec "$1" nc -w 2 "$2" "$3" </dev/null 2>&1 | grep -q refused; }

yes_ open-before reach other 10.0.0.2 80
yes_ probe nft -j -f /probe.json
yes_ load nft -j -f /rules.json
yes_ in-allowed reach other 10.0.0.2 22
no_ in-blocked reach other 10.0.0.2 80
no_ in-from-host-not-in-set host_reach 10.0.0.2 22
yes_ out-and-reply reach guest 10.0.0.3 80
yes_ out-to-host ping_ guest 10.0.0.1
yes_ out-rejected rejected guest 10.0.0.3 25
yes_ out-rejected-udp udp_rejected guest 10.0.0.3
no_ in-ping-blocked ping_ other 10.0.0.2
yes_ out-ping ping_ guest 10.0.0.3
yes_ out-ping6 ping_ guest fd00::3
no_ in-ping6-blocked ping_ other fd00::2
yes_ in-ping6-allowed-source /sbin/ip netns exec other sh -c '/sbin/ip addr add fd00::33/64 dev eth0; ping -c 1 -W 2 -I fd00::33 fd00::2 >/dev/null 2>&1'
ip -n guest addr add 10.0.0.7/24 dev eth0
no_ foreign-address /sbin/ip netns exec guest ping -c 1 -W 2 -I 10.0.0.7 10.0.0.3
ip -n other neigh flush dev eth0
ip -n guest link set eth0 address bc:24:11:00:00:77
no_ foreign-mac ping_ guest 10.0.0.3
ip -n guest link set eth0 address bc:24:11:00:00:01
ip -n guest neigh flush dev eth0; ip -n other neigh flush dev eth0
yes_ own-mac-again ping_ guest 10.0.0.3
yes_ reload nft -j -f /rules.json
yes_ logged sh -c 'dmesg | grep -q "panal-fw 100 net0 in policy DROP"'
yes_ remove nft -j -f /remove.json
yes_ open-after reach other 10.0.0.2 80
echo "checks done"
poweroff -f
