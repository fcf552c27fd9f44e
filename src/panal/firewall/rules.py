"""One rule: from what a caller sent to a checked `Rule`. Pure; every wrong value names its field.

Called by `edit.py`. Invariant: `compile.py` can express every rule that passes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from panal.core.errors import BadInput
from panal.firewall import spec
from panal.firewall.model import ACTIONS, GuestFirewall, Rule
from panal.firewall.names import ICMP, ICMPV6, WITH_PORTS

REMOVABLE: Final = (
    "macro",
    "proto",
    "source",
    "dest",
    "sport",
    "dport",
    "icmp-type",
    "iface",
    "log",
    "comment",
    "enable",
)
_LATER: Final = {
    "group": "security groups come with the firewall of the cluster; write the group's rules into the guest",
    "forward": "a guest forwards nothing; use in or out",
}


def build_rule(firewall: GuestFirewall, sent: Mapping[str, Any], old: Rule | None = None) -> Rule:
    """A rule from the wire's parameters, laid over `old` if given; `delete` names those to drop. BadInput naming the field."""
    values: dict[str, Any] = {} if old is None else old.value()
    for removed in re.split(r"[\s,;]+", str(sent.get("delete", ""))):
        if not removed:
            continue
        if removed not in REMOVABLE:
            raise BadInput("delete", f"delete: '{removed}' cannot be removed from a rule")
        values.pop(removed, None)
    names = ("type", "action", "enable", *REMOVABLE)
    values |= {name: sent[name] for name in names if sent.get(name) is not None}
    values = {name: value for name, value in values.items() if value != ""}
    rule = Rule.of(values)
    return check_rule(firewall, rule)


def check_rule(firewall: GuestFirewall, rule: Rule) -> Rule:
    """The rule with its macro's name as we write it. BadInput naming the field."""
    if rule.direction in _LATER:
        raise BadInput("type", f"type: {rule.direction} rules are not supported: {_LATER[rule.direction]}")
    if rule.direction not in ("in", "out"):
        raise BadInput("type", "type: a rule is for what comes `in` or goes `out`")
    if rule.action not in ACTIONS:
        raise BadInput("action", f"action: one of {', '.join(ACTIONS)}; security groups are not supported yet")
    if rule.iface is not None and not re.fullmatch(r"net([0-9]|[12][0-9]|3[01])", rule.iface):
        raise BadInput("iface", "iface: the key of one of the guest's network cards, like net0")
    families: set[int] = {4, 6}
    if rule.macro is not None:
        rule = _with_macro(rule)
    else:
        families &= _check_protocol(rule)
    for field, text in (("source", rule.source), ("dest", rule.dest)):
        if text is not None:
            families &= families_of(firewall, field, text)
            if not families:
                raise BadInput(field, f"{field}: IPv4 and IPv6 in one rule; no packet has both")
    return rule


def families_of(firewall: GuestFirewall, field: str, text: str) -> set[int]:
    """Which IP versions the text can match; BadInput when it names something that is not there."""
    meaning = spec.address(field, text)
    if not isinstance(meaning, spec.Reference):
        return {meaning[0].family}
    if meaning.kind == "ipset":
        if firewall.ipset(meaning.name) is None:
            raise BadInput(field, f"{field}: there is no set '{meaning.name}' in this guest's firewall; make it first")
        return {4, 6}
    alias = firewall.alias(meaning.name)
    if alias is None:
        raise BadInput(field, f"{field}: '{meaning.name}' is no address and no alias of this guest's firewall")
    return {spec.cidr(field, alias.cidr).family}


def ip_version(firewall: GuestFirewall, rule: Rule) -> int | None:
    """4 or 6 when the rule is for one of them alone (the wire's `ipversion`)."""
    families = {4, 6} if rule.macro is not None else _check_protocol(rule)
    for field, text in (("source", rule.source), ("dest", rule.dest)):
        if text is not None:
            families &= families_of(firewall, field, text)
    return families.pop() if len(families) == 1 else None


def _with_macro(rule: Rule) -> Rule:
    for field, value in (
        ("proto", rule.proto), ("sport", rule.sport), ("dport", rule.dport), ("icmp-type", rule.icmp_type),
    ):  # fmt: skip
        if value is not None:
            raise BadInput(field, f"{field}: the macro {rule.macro} says this already; leave one of them out")
    from dataclasses import replace

    return replace(rule, macro=spec.macro("macro", rule.macro or ""))


def _check_protocol(rule: Rule) -> set[int]:
    proto = None if rule.proto is None else spec.protocol("proto", rule.proto)
    for field, text in (("sport", rule.sport), ("dport", rule.dport)):
        if text is None:
            continue
        if proto is None:
            raise BadInput(field, f"{field}: missing 'proto' property; say which protocol's port")
        if proto not in WITH_PORTS:
            raise BadInput(field, f"{field}: protocol '{rule.proto}' has no ports")
        spec.ports(field, text)
    if rule.icmp_type is not None:
        if proto is None:
            raise BadInput("icmp-type", "icmp-type: missing 'proto' property; take icmp or ipv6-icmp")
        spec.icmp_type("icmp-type", proto, rule.icmp_type)
    return {4} if proto == ICMP else {6} if proto == ICMPV6 else {4, 6}
