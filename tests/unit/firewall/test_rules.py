"""The language of rules, and changes of a firewall: every wrong value names its field, nothing loses its meaning."""

from __future__ import annotations

import ipaddress
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panal.core.errors import BadInput, Conflict, NotFound
from panal.firewall import GuestFirewall, edit, spec
from panal.firewall.addresses import resolve_set
from panal.firewall.model import Entry, IpSet, Rule, digest
from panal.firewall.names import MACROS

BASE: dict[str, Any] = {"type": "in", "action": "ACCEPT"}


def start() -> GuestFirewall:
    fw = edit.add_alias(GuestFirewall(), {"name": "Web", "cidr": "10.0.0.5"})
    fw = edit.add_alias(fw, {"name": "six", "cidr": "fd00::/64"})
    return edit.add_ipset(fw, {"name": "adm"})


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"type": "forward"}, "type"),
        ({"type": "group", "action": "mygroup"}, "type"),
        ({"action": "accept"}, "action"),
        ({"action": "mygroup"}, "action"),
        ({"iface": "eth0"}, "iface"),
        ({"iface": "net32"}, "iface"),
        ({"macro": "Nothing"}, "macro"),
        ({"macro": "SSH", "proto": "tcp"}, "proto"),
        ({"macro": "SSH", "dport": "22"}, "dport"),
        ({"proto": "nope"}, "proto"),
        ({"proto": "256"}, "proto"),
        ({"dport": "22"}, "dport"),
        ({"proto": "icmp", "dport": "22"}, "dport"),
        ({"proto": "tcp", "dport": "22-80"}, "dport"),
        ({"proto": "tcp", "dport": "80:22"}, "dport"),
        ({"proto": "tcp", "dport": "65536"}, "dport"),
        ({"proto": "tcp", "sport": "1,,2"}, "sport"),
        ({"proto": "tcp", "dport": "²2"}, "dport"),
        ({"proto": "tcp", "icmp-type": "any"}, "icmp-type"),
        ({"icmp-type": "any"}, "icmp-type"),
        ({"proto": "icmp", "icmp-type": "256"}, "icmp-type"),
        ({"proto": "icmp", "icmp-type": "neighbour-solicitation"}, "icmp-type"),
        ({"source": "10.0.0.1/33"}, "source"),
        ({"source": "10.0.0.9-10.0.0.1"}, "source"),
        ({"source": "10.0.0.1,fd00::1"}, "source"),
        ({"source": "fe80::1%eth0"}, "source"),
        ({"source": "nobody"}, "source"),
        ({"source": "+nothing"}, "source"),
        ({"source": "dc/Web"}, "source"),
        ({"source": "+dc/adm"}, "source"),
        ({"source": '10.0.0.1" drop'}, "source"),
        ({"source": "10.0.0.1; drop"}, "source"),
        ({"dest": "fd00::1", "source": "10.0.0.1"}, "dest"),
        ({"dest": "six", "source": "web"}, "dest"),
        ({"proto": "ipv6-icmp", "source": "10.0.0.1"}, "source"),
    ],
)
def test_a_wrong_rule_names_its_field(sent, field):
    with pytest.raises(BadInput) as refused:
        edit.add_rule(start(), {**BASE, **sent})
    assert refused.value.field == field and field in refused.value.message


@pytest.mark.parametrize(
    "sent",
    [
        {"source": "10.0.0.1,10.0.0.4-10.0.0.9, 10.2.0.0/16"},
        {"source": "+guest/adm", "dest": "guest/web"},
        {"source": "web"},
        {"macro": "ssh"},
        {"proto": "udp", "dport": "domain,67:68", "sport": "0:65535"},
        {"proto": "ipv6-icmp", "icmp-type": "135/0"},
        {"proto": "47", "iface": "net31", "log": "info", "comment": "naïve ünicode"},
    ],
)
def test_a_right_rule_is_kept_as_it_was_said(sent):
    fw = edit.add_rule(start(), {**BASE, **sent})
    value = fw.rules[0].value()
    assert {**sent, **({"macro": "SSH"} if "macro" in sent else {})}.items() <= value.items()
    assert value["enable"] == 0
    assert GuestFirewall.of(fw.value("b"), "b") == fw
    assert GuestFirewall.of(fw.value("b"), "another guest of this number") == GuestFirewall()


def test_every_macro_can_be_used():
    fw = start()
    for name in MACROS:
        fw = edit.add_rule(fw, {**BASE, "macro": name, "source": "10.0.0.1"})
    assert len(fw.rules) == len(MACROS)


def ports_of(fw: GuestFirewall) -> list[str | None]:
    return [rule.dport for rule in fw.rules]


def test_positions():
    """New ones come first; `moveto` counts in the order of before. Planted fault: insert(moveto) always."""
    fw = GuestFirewall()
    for port in "54321":
        fw = edit.add_rule(fw, {**BASE, "proto": "tcp", "dport": port})
    assert ports_of(fw) == list("12345")
    assert ports_of(edit.change_rule(fw, 3, {"moveto": 0})) == list("41235")
    assert ports_of(edit.change_rule(fw, 0, {"moveto": 3})) == list("23145")
    assert ports_of(edit.change_rule(fw, 0, {"moveto": 99})) == list("23451")
    assert ports_of(edit.change_rule(fw, 2, {"moveto": 2, "dport": "9"})) == list("12345")
    assert ports_of(edit.change_rule(fw, 1, {"dport": "9"})) == list("19345")
    assert ports_of(edit.delete_rule(fw, 0, {})) == list("2345")
    changed = edit.change_rule(fw, 0, {"delete": "dport,proto", "enable": 1}).rules[0]
    assert changed == Rule("in", "ACCEPT", True)
    for call in (lambda: edit.change_rule(fw, 5, {}), lambda: edit.delete_rule(fw, 5, {})):
        with pytest.raises(NotFound, match="no rule at position 5"):
            call()
    with pytest.raises(BadInput, match="delete"):
        edit.change_rule(fw, 0, {"delete": "type"})


def test_a_stale_digest_is_refused_everywhere():
    fw = edit.add_rule(edit.add_entry(start(), "adm", {"cidr": "web"}), BASE)
    stale = {"digest": "0" * 40}
    for call in (
        lambda: edit.add_rule(fw, {**BASE, **stale}),
        lambda: edit.change_rule(fw, 0, stale),
        lambda: edit.delete_rule(fw, 0, stale),
        lambda: edit.change_alias(fw, "web", {"cidr": "10.0.0.6", **stale}),
        lambda: edit.delete_alias(fw, "six", stale),
        lambda: edit.add_ipset(fw, {"name": "other", **stale}),
        lambda: edit.change_entry(fw, "adm", "web", stale),
        lambda: edit.delete_entry(fw, "adm", "web", stale),
        lambda: edit.set_options(fw, {"enable": True, **stale}),
    ):
        with pytest.raises(Conflict, match="detected modified configuration"):
            call()
    edit.delete_rule(fw, 0, {"digest": digest(edit.rule_rows(fw))})


def test_what_is_used_stays_and_renaming_is_followed():
    fw = edit.add_entry(start(), "adm", {"cidr": "guest/WEB"})
    fw = edit.add_rule(fw, {**BASE, "source": "+guest/adm", "dest": "web"})
    with pytest.raises(Conflict, match=r"rule 0 \(dest\), IPSet adm"):
        edit.delete_alias(fw, "web", {})
    with pytest.raises(Conflict, match=r"rule 0 \(source\)"):
        edit.delete_ipset(fw, "adm", force=True)
    with pytest.raises(BadInput, match="IP version"):
        edit.change_alias(fw, "web", {"cidr": "fd00::1"})
    fw = edit.change_alias(fw, "web", {"cidr": "10.0.0.6", "rename": "www"})
    fw = edit.add_ipset(fw, {"name": "staff", "rename": "adm"})
    assert (fw.rules[0].source, fw.rules[0].dest) == ("+guest/staff", "www")
    assert fw.ipsets[0].entries[0].cidr == "guest/www"
    fw = edit.delete_rule(fw, 0, {})
    with pytest.raises(Conflict, match="not empty"):
        edit.delete_ipset(fw, "staff", force=False)
    fw = edit.delete_ipset(fw, "staff", force=True)
    assert not edit.delete_alias(fw, "WWW", {}).alias("www")


def test_names_and_entries_are_unique():
    fw = edit.add_entry(start(), "adm", {"cidr": "10.0.0.1/32"})
    assert fw.ipsets[0].entries[0].cidr == "10.0.0.1"
    for call in (
        lambda: edit.add_alias(fw, {"name": "WEB", "cidr": "10.0.0.9"}),
        lambda: edit.add_ipset(fw, {"name": "adm"}),
        lambda: edit.add_entry(fw, "adm", {"cidr": "10.0.0.1"}),
        lambda: edit.change_alias(fw, "six", {"cidr": "fd00::/64", "rename": "web"}),
    ):
        with pytest.raises(Conflict, match="already exists"):
            call()
    for call in (
        lambda: edit.delete_entry(fw, "adm", "10.0.0.2", {}),
        lambda: edit.delete_alias(fw, "nope", {}),
        lambda: edit.add_ipset(fw, {"name": "a1", "rename": "nope"}),
    ):
        with pytest.raises(NotFound):
            call()


def test_options():
    fw = edit.set_options(GuestFirewall(), {"enable": True, "policy_in": "REJECT", "macfilter": False})
    assert fw.options == {"enable": "1", "policy_in": "REJECT", "macfilter": "0"}
    assert fw.enabled and not fw.flag("macfilter") and fw.flag("ndp") and fw.option("policy_out") == "ACCEPT"
    assert edit.set_options(fw, {"delete": "enable,policy_in"}).options == {"macfilter": "0"}
    with pytest.raises(BadInput, match="no option"):
        edit.set_options(fw, {"delete": "rules"})


networks = st.tuples(st.integers(0, 255), st.integers(24, 32)).map(
    lambda t: str(ipaddress.ip_network(f"10.0.0.{t[0]}/{t[1]}", strict=False))
)


@given(st.lists(st.tuples(networks, st.booleans()), max_size=12))
def test_a_set_means_what_its_narrowest_entry_says(entries):
    """Against a search through all 256 addresses. Planted fault: no sorting by width."""
    ipset = IpSet("x1", None, tuple(Entry(cidr, nomatch) for cidr, nomatch in entries))
    spans = resolve_set(GuestFirewall(ipsets=(ipset,)), ipset)
    for last in range(256):
        number = int(ipaddress.ip_address(f"10.0.0.{last}"))
        holding = [
            (net.prefixlen, nomatch)
            for net, nomatch in ((ipaddress.ip_network(c), n) for c, n in entries)
            if ipaddress.ip_address(number) in net
        ]
        wanted = bool(holding) and not max(holding)[1]
        assert any(s.first <= number <= s.last for s in spans) == wanted
    assert all(a.last + 1 < b.first for a, b in itertools.pairwise(spans))


@given(
    st.lists(
        st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda t: (min(t), max(t))), min_size=1, max_size=20
    )
)
def test_ports_round_trip(ranges):
    text = ",".join(f"{low}:{high}" for low, high in ranges)
    found = spec.ports("dport", text)
    assert found == spec.ports("dport", ",".join(f"{low}:{high}" for low, high in found))
    assert {p for p, _ in ranges} <= {n for low, high in found for n in (low, high)} | {
        p for p, _ in ranges if any(low < p < high for low, high in found)
    }


@given(st.text(max_size=40))
def test_no_text_gets_through_as_anything_but_numbers_and_names(text):
    for read in (spec.address, spec.entry, spec.cidr, spec.ports, spec.protocol):
        try:
            meaning = read("field", text)
        except BadInput as refused:
            assert refused.field == "field"
        else:
            if isinstance(meaning, spec.Reference):
                assert meaning.name.replace("-", "").replace("_", "").isalnum() and meaning.name.isascii()
