"""How many passwords may be tried: per user and address, per user cluster-wide, and with growing delay per address.

In the store, so that it survives restart and change of node (attack row 2): `access/lockout/<userid>`, and for names that
do not exist one of BUCKETS records, so that made-up names cost the same and fill nothing. Counted *before* the password is
looked at, taken back after a right one: a thousand tries at once are a thousand counts.

    pair (user, address)   PAIR_TRIES wrong ones → locked for PAIR_LOCK_S after the last
    user, all addresses    TOTAL_TRIES in TOTAL_WINDOW_S → locked until the window ends, except for known addresses
    known address          one from which this user logged in during KNOWN_S: keeps its own pair budget

So a stranger cannot lock root@pam out for good: the lock ends by itself, an administrator's usual address is not touched
by it, and the local command line never asks. IPv6 addresses count by their /64.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from panal.access.model import LOCKOUT
from panal.core.errors import Busy

if TYPE_CHECKING:
    from panal.cluster.store import Mirror
    from panal.core.clock import Clock

Json = dict[str, Any]
PAIR_TRIES: Final = 5
PAIR_LOCK_S: Final = 900
TOTAL_TRIES: Final = 50
TOTAL_WINDOW_S: Final = 3600
KNOWN_S: Final = 30 * 86400
KNOWN_MAX: Final = 16
PAIRS_MAX: Final = 64
BUCKETS: Final = 256
FREE_FAILURES: Final = 3
MAX_DELAY_S: Final = 16.0
ADDRESSES_MAX: Final = 10_000
WAITING_MAX: Final = 64
WAITING_PER_ADDRESS: Final = 8


def network_of(client: str) -> str:
    """What counts as one address."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def key_of(userid: str, exists: bool) -> str:
    """Where the counts of this name are kept."""
    if exists:
        return LOCKOUT + userid
    return f"{LOCKOUT}~{hashlib.sha256(userid.encode(errors='replace')).digest()[0] % BUCKETS}"


def charge(record: Json | None, address: str, now_s: float) -> Json | None:
    """Count one try. The new record, or None when no more tries are allowed now. Pure."""
    record = record or {}
    # what lies in the future was written while the clock was wrong: it must not lock for years
    pairs = {a: p for a, p in record.get("pairs", {}).items() if now_s - PAIR_LOCK_S < p[1] <= now_s + PAIR_LOCK_S}
    known = {a: t for a, t in record.get("known", {}).items() if t + KNOWN_S > now_s}
    total, since = record.get("total", [0, now_s])
    if not now_s - TOTAL_WINDOW_S < since <= now_s + TOTAL_WINDOW_S:
        total, since = 0, now_s
    count = pairs.get(address, [0, now_s])[0]
    if count >= PAIR_TRIES or (address not in known and total >= TOTAL_TRIES):
        return None
    pairs[address] = [count + 1, now_s]
    if len(pairs) > PAIRS_MAX:  # the cluster-wide count bounds whoever has that many addresses
        del pairs[min(pairs, key=lambda a: pairs[a][1])]
    if address not in known:
        total += 1
    return {"v": 1, "pairs": pairs, "known": known, "total": [total, since]}


def forgive(record: Json | None, address: str, now_s: float) -> Json:
    """After a right password: this address is known and owes nothing. Pure."""
    record = record or {}
    pairs = {a: p for a, p in record.get("pairs", {}).items() if a != address}
    known = dict(record.get("known", {}))
    total, since = record.get("total", [0, now_s])
    if address not in known:
        total = max(0, total - 1)
    known[address] = now_s
    newest = sorted(known.items(), key=lambda item: item[1])[-KNOWN_MAX:]
    return {"v": 1, "pairs": pairs, "known": dict(newest), "total": [total, since]}


class Doorman:
    """Counts in the store, delays in memory."""

    def __init__(self, store: Mirror, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting: dict[str, int] = {}

    def failures(self, address: str) -> int:
        """Recent failures from this address on this node."""
        count, last_s = self._failures.get(address, (0, 0.0))
        return count if last_s + PAIR_LOCK_S > self._clock.monotonic_s() else 0

    def delay_s(self, address: str) -> float:
        """How long the next try from there waits: 0 for the first ones, then 1, 2, 4, … seconds."""
        over = self.failures(address) - FREE_FAILURES
        return 0.0 if over < 0 else min(2.0 ** min(over, 10), MAX_DELAY_S)

    async def wait(self, address: str) -> None:
        """Keep the caller waiting as his failures deserve. Busy when too many wait already."""
        mine = self._waiting.get(address, 0)
        # those who failed before cannot fill the room for those who did not
        room = WAITING_MAX if self.failures(address) else 4 * WAITING_MAX
        if sum(self._waiting.values()) >= room or mine >= WAITING_PER_ADDRESS:
            raise Busy("too many logins at once; try again in a moment")
        self._waiting[address] = mine + 1
        try:
            if (delay := self.delay_s(address)) > 0:
                await self._clock.sleep(delay)
        except BaseException:
            self.leave(address)
            raise

    def leave(self, address: str) -> None:
        """The other end of `wait`."""
        self._waiting[address] -= 1
        if not self._waiting[address]:
            del self._waiting[address]

    async def may_try(self, userid: str, exists: bool, address: str) -> bool:
        """Count a try; False when there is none left."""
        allowed = True

        def change(record: Json | None) -> Json | None:
            nonlocal allowed
            new = charge(record, address, self._clock.wall_s())
            allowed = new is not None
            return new

        await self._store.update(key_of(userid, exists), change)
        return allowed

    async def right(self, userid: str, address: str) -> None:
        """The password was right."""
        self._failures.pop(address, None)
        await self._store.update(key_of(userid, True), lambda record: forgive(record, address, self._clock.wall_s()))

    def wrong(self, address: str) -> int:
        """It was not. Returns how many there were."""
        count = self.failures(address) + 1
        self._failures[address] = (count, self._clock.monotonic_s())
        self._failures.move_to_end(address)
        if len(self._failures) > ADDRESSES_MAX:
            self._failures.popitem(last=False)
        return count
