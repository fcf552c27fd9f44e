"""A guest's firewall as it is stored: options, rules, aliases, sets of addresses. Pure.

Stored under `guest/<vmid>/firewall` together with the guest's `birth`: a record of an earlier guest of the same number counts
for nothing. Texts are kept as the caller wrote them (checked by `spec.py` and `rules.py`); `compile.py` gives them meaning.
Invariant: `GuestFirewall.of(fw.value(birth), birth) == fw`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from panal.core.errors import Conflict

Json = dict[str, Any]

DIGEST_MISMATCH: Final = "detected modified configuration - file changed by other user? Try again."
MAX_RULES: Final = 1000
MAX_ALIASES: Final = 1000
MAX_IPSETS: Final = 500
MAX_ENTRIES: Final = 5000
"""of one set"""
BOOLEANS: Final = ("dhcp", "enable", "ipfilter", "macfilter", "ndp", "radv")
LOG_LEVELS: Final = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug", "nolog")
ACTIONS: Final = ("ACCEPT", "REJECT", "DROP")
DEFAULTS: Final[Mapping[str, str]] = {
    "dhcp": "0", "enable": "0", "ipfilter": "0", "macfilter": "1", "ndp": "1", "radv": "0", "policy_in": "DROP",
    "policy_out": "ACCEPT", "log_level_in": "nolog", "log_level_out": "nolog",
}  # fmt: skip


def firewall_key(vmid: int) -> str:
    """Where it is stored."""
    return f"guest/{vmid}/firewall"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `direction` is in or out; `iface` a network key (net0); `enabled` False: it is skipped."""

    direction: str
    action: str
    enabled: bool = False
    macro: str | None = None
    proto: str | None = None
    source: str | None = None
    dest: str | None = None
    sport: str | None = None
    dport: str | None = None
    icmp_type: str | None = None
    iface: str | None = None
    log: str | None = None
    comment: str | None = None

    def value(self) -> Json:
        """As JSON, with the wire's names."""
        rest = {_wire(f.name): getattr(self, f.name) for f in fields(self) if f.name not in ("direction", "enabled")}
        kept = {name: value for name, value in rest.items() if value is not None}
        return {"type": self.direction, "enable": int(self.enabled), **kept}

    @staticmethod
    def of(value: Mapping[str, Any]) -> Rule:
        """From what `value` gave."""
        texts = {f.name: value.get(_wire(f.name)) for f in fields(Rule)[3:]}
        return Rule(str(value["type"]), str(value["action"]), bool(value.get("enable")), **texts)


def _wire(name: str) -> str:
    return name.replace("_", "-") if name == "icmp_type" else name


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for an address or a network. Names are the same in upper and lower case."""

    name: str
    cidr: str
    comment: str | None = None

    def value(self) -> Json:
        """As JSON."""
        return _kept({"name": self.name, "cidr": self.cidr, "comment": self.comment})


@dataclass(frozen=True, slots=True)
class Entry:
    """An address, network or alias in a set; `nomatch` takes it out again."""

    cidr: str
    nomatch: bool = False
    comment: str | None = None

    def value(self) -> Json:
        """As JSON."""
        return _kept({"cidr": self.cidr, "nomatch": 1 if self.nomatch else None, "comment": self.comment})


@dataclass(frozen=True, slots=True)
class IpSet:
    """A named set of addresses. One named `ipfilter-netN` says which addresses card netN may use."""

    name: str
    comment: str | None = None
    entries: tuple[Entry, ...] = ()

    def value(self) -> Json:
        """As JSON."""
        return {**_kept({"name": self.name, "comment": self.comment}), "entries": [e.value() for e in self.entries]}


@dataclass(frozen=True, slots=True)
class GuestFirewall:
    """All of it. `options` holds what was set, booleans as 0 and 1."""

    options: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    aliases: tuple[Alias, ...] = ()
    ipsets: tuple[IpSet, ...] = ()

    @property
    def enabled(self) -> bool:
        """Whether it filters at all."""
        return self.flag("enable")

    def option(self, name: str) -> str:
        """An option or its default."""
        return self.options.get(name, DEFAULTS[name])

    def flag(self, name: str) -> bool:
        """A boolean option or its default."""
        return self.option(name) == "1"

    def alias(self, name: str) -> Alias | None:
        """By name, in any case."""
        return next((a for a in self.aliases if a.name.lower() == name.lower()), None)

    def ipset(self, name: str) -> IpSet | None:
        """By name."""
        return next((s for s in self.ipsets if s.name == name), None)

    def value(self, birth: str) -> Json:
        """As stored."""
        return {
            "v": 1, "birth": birth, "options": dict(self.options), "rules": [r.value() for r in self.rules],
            "aliases": [a.value() for a in self.aliases], "ipset": [s.value() for s in self.ipsets],
        }  # fmt: skip

    @staticmethod
    def of(value: Mapping[str, Any] | None, birth: str) -> GuestFirewall:
        """From the store; empty when there is none, or when it was another guest's of this number."""
        if value is None or value.get("birth") != birth:
            return GuestFirewall()
        return GuestFirewall(
            dict(value.get("options", {})),
            tuple(Rule.of(r) for r in value.get("rules", ())),
            tuple(Alias(a["name"], a["cidr"], a.get("comment")) for a in value.get("aliases", ())),
            tuple(_ipset(s) for s in value.get("ipset", ())),
        )


def _ipset(value: Mapping[str, Any]) -> IpSet:
    entries = tuple(Entry(e["cidr"], bool(e.get("nomatch")), e.get("comment")) for e in value.get("entries", ()))
    return IpSet(value["name"], value.get("comment"), entries)


def _kept(value: Json) -> Json:
    return {k: v for k, v in value.items() if v is not None}


def digest(listed: Sequence[Json] | Json) -> str:
    """40 hex digits that change with the list or object."""
    text = json.dumps(listed, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def check_digest(given: str | None, present: Sequence[Json] | Json) -> None:
    """Conflict, in the words that clients know, when the caller saw another state."""
    if given and given != digest(present):
        raise Conflict(DIGEST_MISMATCH)
