"""Which addresses a source, a destination or a set stands for, as spans of numbers. Pure.

Called by `compile.py`. Invariant: spans that leave here are sorted, apart from each other, and of one IP version each.
"""

from __future__ import annotations

from collections.abc import Iterable

from panal.core.errors import Failed
from panal.firewall import spec
from panal.firewall.model import GuestFirewall, IpSet


def resolve(fw: GuestFirewall, text: str) -> list[spec.Span]:
    """Addresses that a source or destination stands for, sorted, none twice."""
    meaning = spec.address("source", text)
    if not isinstance(meaning, spec.Reference):
        return joined(meaning)
    if meaning.kind == "alias":
        return [_alias(fw, meaning.name)]
    found = fw.ipset(meaning.name)
    if found is None:
        raise Failed(f"the firewall names a set '{meaning.name}' that is not there")
    return resolve_set(fw, found)


def resolve_set(fw: GuestFirewall, ipset: IpSet) -> list[spec.Span]:
    """Addresses of a set: of all entries that an address lies in, the narrowest decides; at equal width `nomatch` wins."""
    entries = []
    for item in ipset.entries:
        meaning = spec.entry("cidr", item.cidr)
        span = _alias(fw, meaning.name) if isinstance(meaning, spec.Reference) else meaning
        entries.append((span, item.nomatch))
    have: list[spec.Span] = []
    for span, nomatch in sorted(entries, key=lambda e: (e[0].first - e[0].last, e[1])):
        have = [piece for old in have for piece in _without(old, span)] + ([] if nomatch else [span])
    return joined(have)


def _alias(fw: GuestFirewall, name: str) -> spec.Span:
    alias = fw.alias(name)
    if alias is None:
        raise Failed(f"the firewall names an alias '{name}' that is not there")
    return spec.cidr("cidr", alias.cidr)


def _without(old: spec.Span, cut: spec.Span) -> list[spec.Span]:
    if old.family != cut.family or cut.last < old.first or cut.first > old.last:
        return [old]
    pieces = [(old.first, cut.first - 1), (cut.last + 1, old.last)]
    return [spec.Span(old.family, low, high) for low, high in pieces if low <= high]


def joined(spans: Iterable[spec.Span]) -> list[spec.Span]:
    """The same addresses in as few spans as possible."""
    all_spans = list(spans)
    return [
        spec.Span(family, low, high)
        for family in (4, 6)
        for low, high in spec.merged((s.first, s.last) for s in all_spans if s.family == family)
    ]
