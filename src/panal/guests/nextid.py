"""The next free number, kept for the one who asked for a short time, so that many clients at once do not get the same one.

A reservation hinders only other answers of `next_id`: creating a guest under a reserved number is allowed as long as no guest
has it. Reservations are in the store (all nodes see them), expire by this node's monotonic clock, and are bounded per user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from panal.cluster.options import vmid_range
from panal.cluster.store import Absent, Delete, Put
from panal.core.errors import BadInput, Busy
from panal.guests.context import Guests
from panal.guests.model import config_key, reservation_key

KEEP_S: Final = 60.0
PER_USER: Final = 200
_PREFIX: Final = "vmid/"


@dataclass(slots=True)
class NextIds:
    """This node's reservations. `start` forgets those of an earlier run of the daemon."""

    guests: Guests
    _mine: dict[int, tuple[str, float]] = field(default_factory=dict)
    """number → (user, monotonic second of its end), oldest first"""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self) -> None:
        """Nobody waits for reservations of before the restart."""
        guests = self.guests
        old = [item.key for item in guests.store.list(_PREFIX) if item.value.get("node") == guests.node]
        for at in range(0, len(old), 100):
            await guests.store.txn([], [Delete(key) for key in old[at : at + 100]])

    async def next_id(self, user: str, check: Callable[[int], None] | None = None) -> int:
        """Reserve and return the lowest free number of the datacenter's `next-id` range (upper end excluded).

        `check` gets the number before anything is written; what it raises goes to the caller and nothing was reserved.
        Busy when there is none or the user has too many.
        """
        guests = self.guests
        lower, upper = vmid_range(guests.store)
        async with self._lock:
            await self._expire()
            if sum(1 for owner, _ in self._mine.values() if owner == user) >= PER_USER:
                raise Busy(f"{PER_USER} numbers are reserved for you already; use them or wait a minute")
            taken = set(guests.catalog.numbers())
            taken.update(int(item.key[len(_PREFIX) :]) for item in guests.store.list(_PREFIX))
            number = lower
            while True:
                number = next((n for n in range(number, upper) if n not in taken), -1)
                if number < 0:
                    raise Busy(
                        f"no free number between {lower} and {upper}; widen 'next-id' in the datacenter's options"
                    )
                if check is not None:
                    check(number)
                value = {"v": 1, "node": guests.node, "incarnation": guests.incarnation.id, "user": user}
                key = reservation_key(number)
                done = await guests.store.txn([Absent(key), Absent(config_key(number))], [Put(key, value)])
                if done.ok:
                    self._mine[number] = (user, guests.clock.monotonic_s() + KEEP_S)
                    return number
                taken.add(number)

    async def give_back(self, number: int) -> None:
        """Nobody wants it any more; nothing happens when it is not reserved here."""
        async with self._lock:
            if self._mine.pop(number, None) is not None:
                await self.guests.store.txn([], [Delete(reservation_key(number))])

    async def _expire(self) -> None:
        now = self.guests.clock.monotonic_s()
        in_use = self.guests.catalog
        over = [n for n, (_, end) in self._mine.items() if end <= now or in_use.get(n) is not None][:100]
        if over:
            await self.guests.store.txn([], [Delete(reservation_key(n)) for n in over])
            for number in over:
                del self._mine[number]


def check_free(guests: Guests, vmid: int) -> int:
    """The number itself; BadInput on `vmid` when a guest has it."""
    if guests.catalog.get(vmid) is not None:
        raise BadInput("vmid", f"VM {vmid} already exists")
    return vmid
