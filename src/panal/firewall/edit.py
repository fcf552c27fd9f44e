"""Changes of a guest's firewall: each takes the present one and gives the new one. Pure.

Called by `api/qemu_firewall.py` through `guests/firewall.py`, which writes and enforces the result. Errors: BadInput naming the
field, NotFound, Conflict (exists, in use, stale digest). Invariant: no rule and no set names an alias or set that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from panal.core.errors import BadInput, Conflict, NotFound
from panal.firewall import spec
from panal.firewall.model import (
    DEFAULTS,
    MAX_ALIASES,
    MAX_ENTRIES,
    MAX_IPSETS,
    MAX_RULES,
    Alias,
    Entry,
    GuestFirewall,
    IpSet,
    Json,
    Rule,
    check_digest,
)
from panal.firewall.rules import build_rule

Sent = Mapping[str, Any]


# what lists show, and what their digests are made of
def rule_rows(fw: GuestFirewall) -> list[Json]:
    """Rules with their positions."""
    return [{**rule.value(), "pos": pos} for pos, rule in enumerate(fw.rules)]


def alias_rows(fw: GuestFirewall) -> list[Json]:
    """Aliases by name."""
    return [a.value() for a in sorted(fw.aliases, key=lambda a: a.name.lower())]


def ipset_rows(fw: GuestFirewall) -> list[Json]:
    """Sets without their entries, by name."""
    rows = [s.value() for s in sorted(fw.ipsets, key=lambda s: s.name)]
    return [{k: v for k, v in row.items() if k != "entries"} for row in rows]


def entry_rows(ipset: IpSet) -> list[Json]:
    """Entries of a set."""
    return [e.value() for e in ipset.entries]


def options_row(fw: GuestFirewall) -> Json:
    """Options that are set."""
    return dict(fw.options)


def set_options(fw: GuestFirewall, sent: Sent) -> GuestFirewall:
    """Set and remove options."""
    check_digest(sent.get("digest"), options_row(fw))
    options = dict(fw.options)
    for removed in re.split(r"[\s,;]+", str(sent.get("delete", ""))):
        if removed and removed not in DEFAULTS:
            raise BadInput("delete", f"delete: '{removed}' is no option of the firewall")
        options.pop(removed, None)
    for name in DEFAULTS:
        if sent.get(name) is not None:
            value = sent[name]
            options[name] = str(int(value)) if isinstance(value, bool) else str(value)
    return replace(fw, options=options)


def rule_at(fw: GuestFirewall, pos: int) -> Rule:
    """One rule. NotFound."""
    if not 0 <= pos < len(fw.rules):
        raise NotFound(f"no rule at position {pos}")
    return fw.rules[pos]


def add_rule(fw: GuestFirewall, sent: Sent) -> GuestFirewall:
    """A new rule comes first, as everywhere in this API; it is off unless `enable` is 1."""
    check_digest(sent.get("digest"), rule_rows(fw))
    if len(fw.rules) >= MAX_RULES:
        raise Conflict(f"a guest has at most {MAX_RULES} rules; use sets of addresses and lists of ports")
    return replace(fw, rules=(build_rule(fw, sent), *fw.rules))


def change_rule(fw: GuestFirewall, pos: int, sent: Sent) -> GuestFirewall:
    """Change one rule; with `moveto` it is put before the rule that stands there now, and nothing else changes."""
    check_digest(sent.get("digest"), rule_rows(fw))
    old = rule_at(fw, pos)
    moveto = sent.get("moveto")
    if moveto is None:
        new = build_rule(fw, sent, old)
        return replace(fw, rules=(*fw.rules[:pos], new, *fw.rules[pos + 1 :]))
    rest = [rule for at, rule in enumerate(fw.rules) if at != pos]
    rest.insert(moveto - 1 if moveto > pos else moveto, old)
    return replace(fw, rules=tuple(rest))


def delete_rule(fw: GuestFirewall, pos: int, sent: Sent) -> GuestFirewall:
    """Remove one rule; those after it move up."""
    check_digest(sent.get("digest"), rule_rows(fw))
    rule_at(fw, pos)
    return replace(fw, rules=(*fw.rules[:pos], *fw.rules[pos + 1 :]))


def alias_named(fw: GuestFirewall, name: str) -> Alias:
    """One alias. NotFound."""
    alias = fw.alias(name)
    if alias is None:
        raise NotFound(f"no such alias '{name}'")
    return alias


def add_alias(fw: GuestFirewall, sent: Sent) -> GuestFirewall:
    """A new alias."""
    name = spec.name("name", sent["name"])
    spec.cidr("cidr", sent["cidr"])
    if fw.alias(name) is not None:
        raise Conflict(f"alias '{name}' already exists")
    if len(fw.aliases) >= MAX_ALIASES:
        raise Conflict(f"a guest has at most {MAX_ALIASES} aliases")
    return replace(fw, aliases=(*fw.aliases, Alias(name, tidy(sent["cidr"]), sent.get("comment") or None)))


def change_alias(fw: GuestFirewall, name: str, sent: Sent) -> GuestFirewall:
    """Another address, comment or name; rules and sets that use it follow the name."""
    check_digest(sent.get("digest"), alias_rows(fw))
    old = alias_named(fw, name)
    spec.cidr("cidr", sent["cidr"])
    new_name = spec.name("rename", sent.get("rename") or old.name)
    taken = fw.alias(new_name)
    if taken is not None and taken != old:
        raise Conflict(f"alias '{new_name}' already exists")
    new = Alias(new_name, tidy(sent["cidr"]), sent.get("comment", old.comment) or None)
    fw = replace(fw, aliases=tuple(new if a == old else a for a in fw.aliases))
    if spec.cidr("cidr", old.cidr).family != spec.cidr("cidr", new.cidr).family and used_by(fw, "alias", old.name):
        raise BadInput("cidr", f"cidr: the alias is used ({used_by(fw, 'alias', old.name)}); it keeps its IP version")
    return _renamed(fw, "alias", old.name, new_name) if new_name != old.name else fw


def delete_alias(fw: GuestFirewall, name: str, sent: Sent) -> GuestFirewall:
    """Remove an alias that nothing uses."""
    check_digest(sent.get("digest"), alias_rows(fw))
    old = alias_named(fw, name)
    used = used_by(fw, "alias", old.name)
    if used:
        raise Conflict(f"alias '{old.name}' is used by {used}; change that first")
    return replace(fw, aliases=tuple(a for a in fw.aliases if a != old))


def ipset_named(fw: GuestFirewall, name: str) -> IpSet:
    """One set. NotFound."""
    found = fw.ipset(name)
    if found is None:
        raise NotFound(f"no such IPSet '{name}'")
    return found


def add_ipset(fw: GuestFirewall, sent: Sent) -> GuestFirewall:
    """A new set; with `rename` an existing one gets another name or comment."""
    check_digest(sent.get("digest"), ipset_rows(fw))
    name = spec.name("name", sent["name"], "name of a set")
    old_name = sent.get("rename")
    if old_name is None:
        if fw.ipset(name) is not None:
            raise Conflict(f"IPSet '{name}' already exists")
        if len(fw.ipsets) >= MAX_IPSETS:
            raise Conflict(f"a guest has at most {MAX_IPSETS} sets")
        return replace(fw, ipsets=(*fw.ipsets, IpSet(name, sent.get("comment") or None)))
    old = ipset_named(fw, old_name)
    if name != old.name and fw.ipset(name) is not None:
        raise Conflict(f"IPSet '{name}' already exists")
    new = replace(old, name=name, comment=sent.get("comment", old.comment) or None)
    fw = _with_set(fw, old, new)
    return _renamed(fw, "ipset", old.name, name) if name != old.name else fw


def delete_ipset(fw: GuestFirewall, name: str, *, force: bool) -> GuestFirewall:
    """Remove a set that no rule uses; one with entries only with `force`."""
    old = ipset_named(fw, name)
    used = used_by(fw, "ipset", name)
    if used:
        raise Conflict(f"IPSet '{name}' is used by {used}; change that first")
    if old.entries and not force:
        raise Conflict(f"IPSet '{name}' is not empty; remove its entries, or give 'force'")
    return replace(fw, ipsets=tuple(s for s in fw.ipsets if s != old))


def entry_named(ipset: IpSet, cidr: str) -> Entry:
    """One entry. NotFound."""
    wanted = tidy(cidr)
    found = next((e for e in ipset.entries if e.cidr == wanted), None)
    if found is None:
        raise NotFound(f"no such IP/Network '{cidr}' in IPSet '{ipset.name}'")
    return found


def add_entry(fw: GuestFirewall, name: str, sent: Sent) -> GuestFirewall:
    """A new entry, first in the set."""
    old = ipset_named(fw, name)
    cidr = tidy(sent["cidr"])
    meaning = spec.entry("cidr", cidr)
    if isinstance(meaning, spec.Reference) and fw.alias(meaning.name) is None:
        raise BadInput("cidr", f"cidr: '{meaning.name}' is no address and no alias of this guest's firewall")
    if any(e.cidr == cidr for e in old.entries):
        raise Conflict(f"address '{cidr}' already exists in IPSet '{name}'")
    if len(old.entries) >= MAX_ENTRIES:
        raise Conflict(f"a set has at most {MAX_ENTRIES} entries; use networks instead of addresses")
    entry = Entry(cidr, bool(sent.get("nomatch")), sent.get("comment") or None)
    return _with_set(fw, old, replace(old, entries=(entry, *old.entries)))


def change_entry(fw: GuestFirewall, name: str, cidr: str, sent: Sent) -> GuestFirewall:
    """Another comment, or nomatch."""
    old = ipset_named(fw, name)
    check_digest(sent.get("digest"), entry_rows(old))
    entry = entry_named(old, cidr)
    new = replace(
        entry, nomatch=bool(sent.get("nomatch", entry.nomatch)), comment=sent.get("comment", entry.comment) or None
    )
    return _with_set(fw, old, replace(old, entries=tuple(new if e == entry else e for e in old.entries)))


def delete_entry(fw: GuestFirewall, name: str, cidr: str, sent: Sent) -> GuestFirewall:
    """Remove an entry."""
    old = ipset_named(fw, name)
    check_digest(sent.get("digest"), entry_rows(old))
    entry = entry_named(old, cidr)
    return _with_set(fw, old, replace(old, entries=tuple(e for e in old.entries if e != entry)))


def tidy(text: str) -> str:
    """Addresses in one spelling; names as they are."""
    return text if re.fullmatch(rf"([A-Za-z]+/)?{spec.NAME}", text) else spec.tidy_cidr(text)


def used_by(fw: GuestFirewall, kind: str, name: str) -> str:
    """Where an alias or set is used, as words; empty when nowhere."""
    places = [
        f"rule {pos} ({field})"
        for pos, rule in enumerate(fw.rules)
        for field, text in (("source", rule.source), ("dest", rule.dest))
        if text is not None and _names(spec.address, field, text, kind, name)
    ]
    places += [
        f"IPSet {s.name}" for s in fw.ipsets if any(_names(spec.entry, "cidr", e.cidr, kind, name) for e in s.entries)
    ]
    return ", ".join(places[:5]) + (" and more" if len(places) > 5 else "")


Reader = Callable[[str, str], "Sequence[spec.Span] | spec.Span | spec.Reference"]


def _names(read: Reader, field: str, text: str, kind: str, name: str) -> bool:
    meaning = read(field, text)
    if not isinstance(meaning, spec.Reference) or meaning.kind != kind:
        return False
    return meaning.name.lower() == name.lower() if kind == "alias" else meaning.name == name


def _renamed(fw: GuestFirewall, kind: str, old: str, new: str) -> GuestFirewall:
    def follow(read: Reader, text: str) -> str:
        return text[: -len(old)] + new if _names(read, "name", text, kind, old) else text

    rules = tuple(
        replace(
            r, source=None if r.source is None else follow(spec.address, r.source),
            dest=None if r.dest is None else follow(spec.address, r.dest),
        )
        for r in fw.rules
    )  # fmt: skip
    sets = tuple(
        replace(s, entries=tuple(replace(e, cidr=follow(spec.entry, e.cidr)) for e in s.entries)) for s in fw.ipsets
    )
    return replace(fw, rules=rules, ipsets=sets)


def _with_set(fw: GuestFirewall, old: IpSet, new: IpSet) -> GuestFirewall:
    return replace(fw, ipsets=tuple(new if s == old else s for s in fw.ipsets))
