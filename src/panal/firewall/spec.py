"""The small languages of rules: addresses, ports, protocols, ICMP types, names. Pure: text → values, or BadInput.

Called by `rules.py` (checking what a caller sent), `edit.py` and `compile.py` (giving it meaning). Invariant: what passes here
holds nothing but numbers and known names by the time it reaches nftables.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from panal.core.errors import BadInput
from panal.firewall.names import ICMP, ICMP_TYPES, ICMPV6, ICMPV6_TYPES, MACROS, PORTS, PROTOCOLS

NAME: Final = r"[A-Za-z][A-Za-z0-9\-\_]+"
MAX_PARTS: Final = 64
_T = TypeVar("_T", int, tuple[int, int])


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The addresses from `first` to `last`, as numbers; `family` 4 or 6."""

    family: int
    first: int
    last: int

    def texts(self) -> tuple[str, str]:
        """Both ends, written."""
        kind = ipaddress.IPv4Address if self.family == 4 else ipaddress.IPv6Address
        return str(kind(self.first)), str(kind(self.last))


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of an alias or a set of this guest."""

    kind: str
    name: str


def name(field: str, text: str, what: str = "name") -> str:
    """A name of ours: letters, digits, - and _, a letter first, 2 to 64 of them."""
    if not 2 <= len(text) <= 64 or not re.fullmatch(NAME, text):
        raise BadInput(
            field, f"{field}: '{_shown(text)}' is no {what}: a letter, then letters, digits, - or _ (2 to 64)"
        )
    return text


def cidr(field: str, text: str) -> Span:
    """One address or network (bits behind the prefix do not count)."""
    try:
        if "%" in text or not text.isascii():
            raise ValueError
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadInput(
            field, f"{field}: '{_shown(text)}' is no IP address or network; write it like 10.0.0.1 or 10.0.0.0/24"
        ) from None
    return Span(network.version, int(network.network_address), int(network.broadcast_address))


def tidy_cidr(text: str) -> str:
    """The one way an entry is written: lower case, a single address without prefix length."""
    out = text.strip().lower()
    return out.removesuffix("/128") if ":" in out else out.removesuffix("/32")


def entry(field: str, text: str) -> Span | Reference:
    """What may stand in a set: an address, a network or an alias."""
    return _alias(field, text) or cidr(field, text)


def address(field: str, text: str) -> tuple[Span, ...] | Reference:
    """Source or destination of a rule: an alias, `+SET`, or addresses, networks and ranges (A-B) divided by commas."""
    if text.startswith("+"):
        return Reference("ipset", name(field, _scoped(field, text[1:]), "name of a set"))
    alias = _alias(field, text)
    if alias is not None:
        return alias
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_PARTS:
        raise BadInput(field, f"{field}: at most {MAX_PARTS} addresses; make a set of them")
    spans = tuple(_range(field, part) for part in parts)
    if len({span.family for span in spans}) > 1:
        raise BadInput(field, f"{field}: IPv4 and IPv6 addresses in one list; make a rule for each")
    return spans


def _range(field: str, text: str) -> Span:
    first, dash, last = text.partition("-")
    if not dash:
        return cidr(field, text)
    a, b = cidr(field, first), cidr(field, last)
    if "/" in text or a.family != b.family or a.first > b.first:
        raise BadInput(
            field, f"{field}: '{_shown(text)}' is no range; write it like 10.0.0.1-10.0.0.9, lower end first"
        )
    return Span(a.family, a.first, b.first)


def _alias(field: str, text: str) -> Reference | None:
    if "/" in text and re.match(r"[A-Za-z]+/", text):
        return Reference("alias", name(field, _scoped(field, text), "name of an alias"))
    # `fe80` could be either, but an address has a colon
    return Reference("alias", text) if re.fullmatch(NAME, text) and len(text) <= 64 else None


def _scoped(field: str, text: str) -> str:
    scope, slash, rest = text.partition("/")
    if not slash:
        return text
    if scope != "guest":
        raise BadInput(
            field, f"{field}: '{_shown(text)}': only names of the guest itself ('guest/…') exist in this version"
        )
    return rest


def protocol(field: str, text: str) -> int:
    """Number of a protocol by name or number."""
    number = PROTOCOLS.get(text.lower())
    if number is None and re.fullmatch(r"[0-9]{1,3}", text) and int(text) <= 255:
        number = int(text)
    if number is None:
        raise BadInput(field, f"{field}: '{_shown(text)}' is no protocol; take tcp, udp, icmp, ipv6-icmp … or a number")
    return number


def ports(field: str, text: str) -> tuple[tuple[int, int], ...]:
    """Ranges of ports from `80`, `ssh`, `8000:8010` or several, divided by commas; merged and sorted."""
    parts = text.split(",")
    if len(parts) > MAX_PARTS:
        raise BadInput(field, f"{field}: at most {MAX_PARTS} ports and ranges in one rule")
    found: list[tuple[int, int]] = []
    for part in parts:
        first, colon, last = part.strip().partition(":")
        low = _port(field, first)
        high = _port(field, last) if colon else low
        if low > high:
            raise BadInput(field, f"{field}: '{_shown(part)}' is no range; the lower port comes first")
        found.append((low, high))
    return merged(found)


def _port(field: str, text: str) -> int:
    if re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= 65535:
        return int(text)
    port = PORTS.get(text.lower())
    if port is None:
        raise BadInput(field, f"{field}: '{_shown(text)}' is no port (0 to 65535) and no name of a service known here")
    return port


def merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same numbers in as few ranges as possible, sorted."""
    out: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], high))
        else:
            out.append((low, high))
    return tuple(out)


def icmp_type(field: str, proto: int, text: str) -> tuple[int, int | None] | None:
    """Type and code of a name, `TYPE` or `TYPE/CODE` for protocol ICMP or ICMPv6; None for `any`."""
    known: Mapping[str, tuple[int, int | None]] = {ICMP: ICMP_TYPES, ICMPV6: ICMPV6_TYPES}.get(proto, {})
    if not known:
        raise BadInput(field, f"{field}: only with proto icmp or ipv6-icmp")
    if text == "any":
        return None
    if text in known:
        return known[text]
    numbers = re.fullmatch(r"([0-9]{1,3})(?:/([0-9]{1,3}))?", text)
    if numbers is None or any(int(n) > 255 for n in numbers.groups() if n is not None):
        raise BadInput(field, f"{field}: '{_shown(text)}' is no type of ICMP; take one like echo-request, or a number")
    return int(numbers[1]), None if numbers[2] is None else int(numbers[2])


def macro(field: str, text: str) -> str:
    """The macro's name, as it is written here (any case is taken)."""
    found = next((m for m in MACROS if m.lower() == text.lower()), None)
    if found is None:
        raise BadInput(field, f"{field}: there is no macro '{_shown(text)}'; give proto and dport instead")
    return found


def _shown(text: str) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean[:60]
