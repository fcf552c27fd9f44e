"""Who may ask how often, and how many refused callers are kept waiting. All tables are bounded.

Invariant: an address cannot make panal-web hold more than a fixed number of its requests, nor fill our memory with its names.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

MAX_ADDRESSES: Final = 10_000
MAX_HELD: Final = 400
MAX_HELD_PER_ADDRESS: Final = 50


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, then `per_s`."""

    burst: float
    per_s: float


LOGINS: Final = Rate(30, 3)
REQUESTS: Final = Rate(2000, 1000)


class Buckets:
    """Token buckets by address (IPv6: by /64, which is one customer)."""

    def __init__(self, rate: Rate, now_s: Callable[[], float]) -> None:
        self._rate = rate
        self._now_s = now_s
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Whether one more is allowed now."""
        key = group(address)
        now = self._now_s()
        tokens, since = self._known.pop(key, (self._rate.burst, now))
        tokens = min(self._rate.burst, tokens + (now - since) * self._rate.per_s)
        allowed = tokens >= 1
        self._known[key] = (tokens - 1 if allowed else tokens, now)
        if len(self._known) > MAX_ADDRESSES:
            self._known.popitem(last=False)
        return allowed


class Held:
    """Counts what is being kept waiting, or open."""

    def __init__(self, most: int = MAX_HELD, most_per_address: int = MAX_HELD_PER_ADDRESS) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._by_address: dict[str, int] = {}
        self.count = 0

    def enter(self, address: str) -> bool:
        """Whether there is a place; `leave` gives it back."""
        key = group(address)
        if self.count >= self._most or self._by_address.get(key, 0) >= self._most_per_address:
            return False
        self.count += 1
        self._by_address[key] = self._by_address.get(key, 0) + 1
        return True

    def leave(self, address: str) -> None:
        """Give the place back."""
        key = group(address)
        self.count -= 1
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]


class Refusals:
    """Sends every 401 off at the same time after its request came, whatever was looked up meanwhile; a bounded number waits.

    Invariant: nobody is told 401 sooner; who finds no place is told to wait instead.
    """

    def __init__(self, now_s: Callable[[], float], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._now_s = now_s
        self._sleep = sleep
        self._held = Held()

    @property
    def count(self) -> int:
        """How many wait now."""
        return self._held.count

    async def late(self, address: str, began_s: float, hold_s: float) -> bool:
        """Return True `hold_s` after `began_s` (at once when that is past), or False at once when too many wait already."""
        if not self._held.enter(address):
            return False
        try:
            left = began_s + hold_s - self._now_s()
            if left > 0:
                await self._sleep(left)
        finally:
            self._held.leave(address)
        return True


def group(address: str) -> str:
    """The address, or the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return str(parsed)
