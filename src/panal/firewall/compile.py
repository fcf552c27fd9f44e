"""All protected cards of this node → one table for nftables (`bridge panal-NODE`), as the JSON that `nft -j -f -` takes. Pure.

    prerouting, by iifname:   from the guest → chain `NETn-out`:  addresses of its own? → known connection → rules → policy_out
    postrouting, by oifname:  to the guest   → chain `NETn-in`:   known connection → rules → policy_in

Called by `guests/firewall.py`. The table is replaced in one transaction, so there is never a moment without it. Taps are
matched by name: rules can be there before the tap is. Invariant: every path through a card's chain ends in a verdict; what is
neither IPv4, IPv6 nor ARP meets the rules without addresses and ports, then the policy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from panal.firewall import spec
from panal.firewall.addresses import joined, resolve, resolve_set
from panal.firewall.model import GuestFirewall, Rule
from panal.firewall.names import ICMP, ICMPV6, MACROS, Part

Json = dict[str, Any]
Expressions = list[Json]

FAMILY: Final = "bridge"
# after connection tracking, which sees packets of bridges at -200
PRIORITY: Final = 0
LOG_PREFIX: Final = "panal-fw"
_NFT_LEVEL: Final = {"warning": "warn"}
_ACCEPT: Final[Json] = {"accept": None}
_DROP: Final[Json] = {"drop": None}
_NDP_OUT: Final = ("nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert", 131, 132, 143)
_NDP_IN: Final = ("nd-router-advert", "nd-neighbor-solicit", "nd-neighbor-advert", 130)
_ALL: Final = {4: (0, (1 << 32) - 1), 6: (0, (1 << 128) - 1)}


@dataclass(frozen=True, slots=True)
class Card:
    """A network card that is to be filtered: its key (net0), the name of its tap, its address."""

    key: str
    tap: str
    mac: str


@dataclass(frozen=True, slots=True)
class Protected:
    """A guest that runs, or is about to, with its firewall on."""

    vmid: int
    firewall: GuestFirewall
    cards: tuple[Card, ...]


def remove_table(name: str) -> list[Json]:
    """Take everything of ours away, also when there is nothing."""
    table: Json = {"table": {"family": FAMILY, "name": name}}
    return [{"add": table}, {"delete": table}]


def compile_table(table: str, guests: Sequence[Protected], *, can_reject: bool = True) -> list[Json]:
    """Commands for nft that replace this table. Without a card to filter: only its removal.

    Failed when a stored firewall has lost its sense.
    """
    pairs = [(guest, card) for guest in guests for card in guest.cards]
    commands = remove_table(table)
    if not pairs:
        return commands
    commands.append({"add": {"table": {"family": FAMILY, "name": table}}})
    for guest, card in pairs:
        for direction in ("out", "in"):
            chain = _Chain(guest, card, direction, can_reject)
            commands.append(_add(table, "chain", name=chain.name))
            commands += [_add(table, "rule", chain=chain.name, expr=expr) for expr in chain.rules()]
    for name, hook, key, direction in (
        ("from-guests", "prerouting", "iifname", "out"), ("to-guests", "postrouting", "oifname", "in"),
    ):  # fmt: skip
        commands.append(_add(table, "chain", name=name, type="filter", hook=hook, prio=PRIORITY, policy="accept"))
        targets = [[card.tap, {"goto": {"target": f"{card.tap}-{direction}"}}] for _, card in pairs]
        vmap = {"vmap": {"key": {"meta": {"key": key}}, "data": {"set": targets}}}
        commands.append(_add(table, "rule", chain=name, expr=[vmap]))
    return commands


def _add(table: str, kind: str, **rest: Any) -> Json:
    return {"add": {kind: {"family": FAMILY, "table": table, **rest}}}


class _Chain:
    """The rules of one card in one direction."""

    def __init__(self, guest: Protected, card: Card, direction: str, can_reject: bool) -> None:
        self.fw, self.card, self.direction = guest.firewall, card, direction
        self.vmid, self.can_reject = guest.vmid, can_reject
        self.name = f"{card.tap}-{direction}"

    def rules(self) -> Iterable[Expressions]:
        fw, out = self.fw, self.direction == "out"
        if out:
            yield from self._own_addresses_only()
        yield [_match(_ct("state"), ["established", "related"], op="in"), _ACCEPT]
        if not out and self.can_reject:
            # what the kernel answers for a REJECT belongs to no connection; frames from others are never of type `host` here
            own = [_match(_meta("pkttype"), "host"), _match(_ct("state"), ["invalid"], op="in")]
            yield [*own, _match(_meta("l4proto"), 6), _match(_field("tcp", "flags"), ["rst"], op="in"), _ACCEPT]
            yield [*own, _protocol(4), _match(_field("icmp", "type"), "destination-unreachable"), _ACCEPT]
            yield [*own, _protocol(6), _match(_field("icmpv6", "type"), "destination-unreachable"), _ACCEPT]
        # ARP and others have no state, and count as invalid
        yield [_is_ip(), _match(_ct("state"), ["invalid"], op="in"), _DROP]
        yield [_match(_meta("protocol"), "arp"), _ACCEPT]
        if fw.flag("dhcp") and not out:
            yield [*_ports_of(4, 67, 68), _ACCEPT]
            yield [*_ports_of(6, 547, 546), _ACCEPT]
        if fw.flag("ndp"):
            # with the reports and queries of multicast listeners: a bridge that snoops would keep solicitations away
            types = _NDP_OUT if out else _NDP_IN
            yield [_protocol(6), _match(_field("icmpv6", "type"), {"set": list(types)}), _ACCEPT]
        for pos, rule in enumerate(fw.rules):
            if rule.enabled and rule.direction == self.direction and rule.iface in (None, self.card.key):
                yield from self._rule(pos, rule)
        yield from self._policy()

    def _own_addresses_only(self) -> Iterable[Expressions]:
        """What the guest may not send whatever the rules say, even in a known connection; and its DHCP requests."""
        fw, mac = self.fw, self.card.mac.lower()
        if fw.flag("macfilter"):
            yield from self._refuse("macfilter", [_match(_field("ether", "saddr"), mac, op="!=")])
            yield from self._refuse("macfilter", [
                _match(_meta("protocol"), "arp"), _match(_field("arp", "saddr ether"), mac, op="!="),
            ])  # fmt: skip
        if not fw.flag("radv"):
            yield from self._refuse("radv", [_protocol(6), _match(_field("icmpv6", "type"), "nd-router-advert")])
        if fw.flag("dhcp"):
            yield [*_ports_of(4, 68, 67), _ACCEPT]
            yield [*_ports_of(6, 546, 547), _ACCEPT]
        own = fw.ipset(f"ipfilter-{self.card.key}")
        if not fw.flag("ipfilter") and own is None:
            return
        spans = [] if own is None else resolve_set(fw, own)
        link_local = spec.cidr("mac", str(eui64(mac)))
        unspecified = spec.cidr("source", "::")  # a guest that checks whether an address is free, or joins a group
        v4 = [s for s in spans if s.family == 4]
        v6 = [link_local, *(s for s in spans if s.family == 6)]
        arp = [*v4, spec.cidr("source", "0.0.0.0")]  # noqa: S104  (an ARP probe comes from nowhere)
        yield from self._refuse("ipfilter", [_protocol(4), *_outside("ip", "saddr", v4)])
        yield from self._refuse("ipfilter", [
            _match(_meta("protocol"), "arp"), *_outside("arp", "saddr ip", arp),
        ])  # fmt: skip
        yield from self._refuse("ipfilter", [_protocol(6), *_outside("ip6", "saddr", [*v6, unspecified])])
        yield from self._refuse("ipfilter", [
            _protocol(6), *_inside("ip6", "saddr", [unspecified]), _match(_meta("l4proto"), ICMPV6, op="!="),
        ])  # fmt: skip

    def _refuse(self, why: str, matches: Expressions) -> Iterable[Expressions]:
        yield from self._log(why, self.fw.option("log_level_out"), "DROP", matches)
        yield [*matches, _DROP]

    def _rule(self, pos: int, rule: Rule) -> Iterable[Expressions]:
        for matches, proto in rule_matches(self.fw, rule):
            yield from self._log(f"rule {pos}", rule.log or "nolog", rule.action, matches)
            yield [*matches, self._verdict(rule.action, proto)]

    def _policy(self) -> Iterable[Expressions]:
        policy = self.fw.option(f"policy_{self.direction}")
        if policy != "ACCEPT":
            yield from self._log("policy", self.fw.option(f"log_level_{self.direction}"), policy, [])
        yield [self._verdict(policy, None)]

    def _log(self, why: str, level: str, action: str, matches: Expressions) -> Iterable[Expressions]:
        """A rule that only writes into the kernel's log, seldom enough that a guest cannot fill it."""
        if level == "nolog":
            return
        prefix = f"{LOG_PREFIX} {self.vmid} {self.card.key} {self.direction} {why} {action}: "
        yield [
            *matches, {"limit": {"rate": 1, "burst": 5, "per": "second"}},
            {"log": {"prefix": prefix, "level": _NFT_LEVEL.get(level, level)}},
        ]  # fmt: skip

    def _verdict(self, action: str, proto: int | None) -> Json:
        if action == "ACCEPT":
            return _ACCEPT
        # the kernel can answer only where packets come into the bridge, which is on their way out of the guest
        if action == "REJECT" and self.direction == "out" and self.can_reject:
            if proto == 6:
                return {"reject": {"type": "tcp reset"}}
            return {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
        return _DROP


def rule_matches(fw: GuestFirewall, rule: Rule) -> list[tuple[Expressions, int | None]]:
    """What a rule stands for: lists of matches, each with its protocol; one for every part and IP version needed."""
    parts = MACROS[rule.macro] if rule.macro else (None,)
    sides = [
        _side(fw, field, text) for field, text in (("saddr", rule.source), ("daddr", rule.dest)) if text is not None
    ]
    out: list[tuple[Expressions, int | None]] = []
    for part in parts:
        proto_text = part.proto if part is not None else rule.proto
        proto = None if proto_text is None else spec.protocol("proto", proto_text)
        fixed = {ICMP: 4, ICMPV6: 6}.get(-1 if proto is None else proto)
        transport = _transport(rule, part, proto)
        if not sides:
            out.append(([*([_protocol(fixed)] if fixed else []), *transport], proto))
            continue
        for family in (fixed,) if fixed else (4, 6):
            groups = [(field, [s for s in spans if s.family == family]) for field, spans in sides]
            if all(spans for _, spans in groups):  # an empty set holds nobody
                name = "ip" if family == 4 else "ip6"
                matches = [m for field, spans in groups for m in _inside(name, field, spans)]
                out.append(([_protocol(family), *matches, *transport], proto))
    return out


def _side(fw: GuestFirewall, field: str, text: str) -> tuple[str, list[spec.Span]]:
    return field, resolve(fw, text)


def _transport(rule: Rule, part: Part | None, proto: int | None) -> Expressions:
    if proto is None:
        return []
    sport = None if part is not None else rule.sport
    dport = rule.dport if part is None else part.dport
    icmp = rule.icmp_type if part is None else part.icmp_type
    out = [_match(_meta("l4proto"), proto)]
    out += [
        _match(_field("th", field), _numbers(spec.ports(field, text)))
        for field, text in (("sport", sport), ("dport", dport)) if text is not None
    ]  # fmt: skip
    kind = None if icmp is None else spec.icmp_type("icmp-type", proto, icmp)
    if kind is not None:
        name = "icmp" if proto == ICMP else "icmpv6"
        out.append(_match(_field(name, "type"), kind[0]))
        if kind[1] is not None:
            out.append(_match(_field(name, "code"), kind[1]))
    return out


def eui64(mac: str) -> ipaddress.IPv6Address:
    """The link-local IPv6 address that belongs to a card's address."""
    raw = bytearray.fromhex(mac.replace(":", ""))
    raw[0] ^= 2
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(raw[:3]) + b"\xff\xfe" + bytes(raw[3:]))


def _match(left: Json, right: Any, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def _meta(key: str) -> Json:
    return {"meta": {"key": key}}


def _ct(key: str) -> Json:
    return {"ct": {"key": key}}


def _field(protocol: str, field: str) -> Json:
    return {"payload": {"protocol": protocol, "field": field}}


def _protocol(family: int) -> Json:
    # by the frame's protocol, not its header: behind a VLAN tag that says 802.1Q
    return _match(_meta("protocol"), "ip" if family == 4 else "ip6")


def _is_ip() -> Json:
    return _match(_meta("protocol"), {"set": ["ip", "ip6"]})


def _ports_of(family: int, sport: int, dport: int) -> Expressions:
    return [
        _protocol(family), _match(_meta("l4proto"), 17), _match(_field("th", "sport"), sport),
        _match(_field("th", "dport"), dport),
    ]  # fmt: skip


def _numbers(ranges: Sequence[tuple[int, int]]) -> Json | int:
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return ranges[0][0]
    return {"set": [low if low == high else {"range": [low, high]} for low, high in ranges]}


def _addresses(spans: Sequence[spec.Span]) -> Json:
    pairs = [span.texts() for span in joined(spans)]
    return {"set": [low if low == high else {"range": [low, high]} for low, high in pairs]}


def _inside(protocol: str, field: str, spans: Sequence[spec.Span]) -> Expressions:
    return [] if _everything(spans) else [_match(_field(protocol, field), _addresses(spans))]


def _outside(protocol: str, field: str, spans: Sequence[spec.Span]) -> Expressions:
    """Matches every address that is in none of them: all, when there are none."""
    return [_match(_field(protocol, field), _addresses(spans), op="!=")] if spans else []


def _everything(spans: Sequence[spec.Span]) -> bool:
    return bool(spans) and all((s.first, s.last) == _ALL[s.family] for s in spans)
