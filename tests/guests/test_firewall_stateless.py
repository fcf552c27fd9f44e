"""What of the rules needs no connection tracking, on this machine's own kernel: a bridge and two ends in namespaces.

The whole is proven in test_firewall_vm.py; this one is quick and shows that today's kernel takes today's rules. Planted
fault, seen red: no macfilter.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from panal.firewall import Card, GuestFirewall, Protected, compile_table, edit

_SCRIPT = """
set -e
mount -t sysfs none /sys
mount -t tmpfs none /run
ip link set lo up
ip link add br0 type bridge && ip link set br0 up && ip addr add 10.0.0.1/24 dev br0
ip netns add guest
ip link add tap100i0 type veth peer name eth0 netns guest
ip link set tap100i0 master br0 up
ip -n guest link set eth0 address bc:24:11:00:00:01
ip -n guest link set eth0 up && ip -n guest link set lo up
ip -n guest addr add 10.0.0.2/24 dev eth0
ip -n guest addr add 10.0.0.7/24 dev eth0
try() { if ip netns exec guest ping -c 1 -W 1 "$@" >/dev/null 2>&1; then echo yes; else echo no; fi; }
echo "before $(try 10.0.0.1)"
nft -j -f -
echo "own $(try -I 10.0.0.2 10.0.0.1)"
echo "foreign-ip $(try -I 10.0.0.7 10.0.0.1)"
ip addr add 10.0.0.3/24 dev br0
echo "not-in-set $(try -I 10.0.0.2 10.0.0.3)"
ip -n guest link set eth0 address bc:24:11:00:00:77
echo "foreign-mac $(try -I 10.0.0.2 10.0.0.1)"
"""


@pytest.mark.real
@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make network namespaces")
@pytest.mark.skipif(shutil.which("nft") is None or shutil.which("ping") is None, reason="nft or ping is not installed")
def test_addresses_and_rules_on_this_kernel():
    """Everything vanishes with the last process in it."""
    fw = edit.set_options(GuestFirewall(), {"enable": True, "ipfilter": True, "policy_out": "DROP"})
    for name, cidr in (("peers", "10.0.0.1"), ("ipfilter-net0", "10.0.0.2")):
        fw = edit.add_entry(edit.add_ipset(fw, {"name": name}), name, {"cidr": cidr})
    for rule in (
        {"type": "out", "action": "ACCEPT", "macro": "Ping", "dest": "+peers"},
        {"type": "in", "action": "ACCEPT", "proto": "icmp", "icmp-type": "echo-reply", "source": "+peers"},
    ):
        fw = edit.add_rule(fw, {**rule, "enable": 1})
    card = Card("net0", "tap100i0", "BC:24:11:00:00:01")
    commands = compile_table("panal-n1", [Protected(100, fw, (card,))], can_reject=False)
    stateless = [c for c in commands if '"ct"' not in json.dumps(c)]
    assert len(stateless) == len(commands) - 4
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--", "sh", "-c", _SCRIPT], input=json.dumps({"nftables": stateless}),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split("\n")[:-1] == [
        "before yes", "own yes", "foreign-ip no", "not-in-set no", "foreign-mac no",
    ]  # fmt: skip
