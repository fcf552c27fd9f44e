"""What nftables is told. The kernel itself is asked in tests/guests/test_firewall_vm.py and test_firewall_stateless.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from panal.core.errors import Failed
from panal.firewall import Card, GuestFirewall, Protected, compile_table, edit, remove_table
from panal.firewall.compile import eui64
from panal.firewall.names import MACROS

NET0 = Card("net0", "tap100i0", "BC:24:11:00:00:01")
NET1 = Card("net1", "tap100i1", "BC:24:11:00:00:02")


def firewall(*rules: dict, **options: object) -> GuestFirewall:  # type: ignore[type-arg]
    fw = edit.set_options(GuestFirewall(), {"enable": True, **options})
    for rule in rules:
        fw = edit.add_rule(fw, {"type": "in", "action": "ACCEPT", "enable": 1, **rule})
    return fw


def chain(fw: GuestFirewall, name: str, *cards: Card, can_reject: bool = True) -> list[str]:
    commands = compile_table("t", [Protected(100, fw, cards or (NET0,))], can_reject=can_reject)
    return [
        json.dumps(c["add"]["rule"]["expr"])
        for c in commands
        if "rule" in c.get("add", {}) and c["add"]["rule"]["chain"] == name
    ]


def test_nothing_to_filter_leaves_no_table():
    assert compile_table("t", []) == remove_table("t")
    assert compile_table("t", [Protected(100, firewall(), ())]) == remove_table("t")


@pytest.mark.parametrize("policy", ["ACCEPT", "DROP", "REJECT"])
@pytest.mark.parametrize("can_reject", [True, False])
def test_every_chain_ends_in_the_policy(policy, can_reject):
    fw = firewall(policy_in=policy, policy_out=policy)
    last_in, last_out = (chain(fw, f"tap100i0-{way}", can_reject=can_reject)[-1] for way in ("in", "out"))
    assert last_in == ('[{"accept": null}]' if policy == "ACCEPT" else '[{"drop": null}]')
    rejects = policy == "REJECT" and can_reject
    assert last_out == last_in if not rejects else "reject" in last_out
    assert rejects or "reject" not in json.dumps(chain(fw, "tap100i0-out", can_reject=can_reject))


def test_a_rule_counts_where_it_should():
    """Off ones, the other direction and other cards do not. Planted fault: iface ignored."""
    fw = firewall(
        {"proto": "tcp", "dport": "1001"}, {"proto": "tcp", "dport": "1002", "enable": 0},
        {"proto": "tcp", "dport": "1003", "iface": "net1"}, {"proto": "tcp", "dport": "1004", "type": "out"},
    )  # fmt: skip
    have = {
        f"{card.key}-{way}": {
            p for p in range(1001, 1005) if str(p) in "".join(chain(fw, f"{card.tap}-{way}", NET0, NET1))
        }
        for card in (NET0, NET1)
        for way in ("in", "out")
    }
    assert have == {"net0-in": {1001}, "net0-out": {1004}, "net1-in": {1001, 1003}, "net1-out": {1004}}


def test_own_addresses_come_before_known_connections():
    """A guest must not borrow another's address within a connection. Planted fault: established first."""
    texts = chain(firewall(ipfilter=True), "tap100i0-out")
    known = next(i for i, t in enumerate(texts) if "established" in t)
    for word in ("bc:24:11:00:00:01", "saddr ip", '"ip6", "field": "saddr"', "nd-router-advert"):
        assert next(i for i, t in enumerate(texts) if word in t) < known, word
    assert str(eui64("BC:24:11:00:00:01")) == "fe80::be24:11ff:fe00:1" and "fe80::be24:11ff:fe00:1" in "".join(texts)


def test_switches():
    everything = firewall(macfilter=False, radv=True, ndp=False, dhcp=False)
    texts = "".join(chain(everything, "tap100i0-out") + chain(everything, "tap100i0-in"))
    for word in ("bc:24", "nd-", "67", "saddr"):
        assert word not in texts
    texts = "".join(chain(firewall(dhcp=True), "tap100i0-in"))
    assert "67" in texts and "547" in texts and "nd-neighbor-solicit" in texts


def test_families_and_empty_sets():
    fw = edit.add_ipset(firewall(), {"name": "both"})
    fw = edit.add_rule(
        fw, {"type": "in", "action": "ACCEPT", "enable": 1, "source": "+both", "proto": "tcp", "dport": "7777"}
    )
    assert not any("7777" in t for t in chain(fw, "tap100i0-in"))
    fw = edit.add_entry(edit.add_entry(fw, "both", {"cidr": "10.0.0.0/8"}), "both", {"cidr": "fd00::1"})
    found = [t for t in chain(fw, "tap100i0-in") if "7777" in t]
    assert len(found) == 2 and "10.255.255.255" in found[0] and "fd00::1" in found[1]
    assert len([t for t in chain(firewall({"macro": "Ping"}), "tap100i0-in") if '"right": 8}' in t]) == 1


def test_logging_never_decides():
    texts = chain(firewall({"macro": "SSH", "log": "warning"}, log_level_in="debug"), "tap100i0-in")
    logs = [t for t in texts if '"log"' in t]
    assert len(logs) == 2 and all("limit" in t and "accept" not in t and "drop" not in t for t in logs)
    assert '"warn"' in logs[0] and "panal-fw 100 net0 in policy DROP: " in logs[1]


def test_a_firewall_that_lost_its_sense_is_not_applied():
    from dataclasses import replace

    fw = edit.add_ipset(firewall(), {"name": "gone"})
    fw = edit.add_rule(fw, {"type": "in", "action": "DROP", "enable": 1, "source": "+gone"})
    with pytest.raises(Failed, match="gone"):
        chain(replace(fw, ipsets=()), "tap100i0-in")


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft")
def test_the_kernel_takes_every_macro_and_option():
    """In a namespace of its own; what this kernel lacks (connection tracking on bridges) is left out of the rules."""
    rules = [{"macro": name, "source": "10.0.0.1-10.0.0.7", "log": "info"} for name in MACROS]
    rules += [{"macro": name} for name in MACROS] + [
        {"proto": "icmp", "icmp-type": "3/4", "dest": "::/0"[:0] or "0.0.0.0/0"}
    ]
    fw = firewall(*rules, dhcp=True, ipfilter=True, log_level_in="info", log_level_out="emerg", policy_out="DROP")
    commands = compile_table("panal-n1", [Protected(100, fw, (NET0, NET1))], can_reject=False)
    commands = [c for c in commands if '"ct"' not in json.dumps(c)]
    done = subprocess.run(
        ["unshare", "--net", "nft", "-j", "-f", "-"], input=json.dumps({"nftables": commands}), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:500]
