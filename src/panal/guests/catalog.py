"""All guests of the cluster as typed records, kept by the store's change feed: lists of 10,000 without parsing them again.

Read through `Guests.get` and `Guests.list`. `version` moves on every change of a configuration record or a claim.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from panal.cluster.store import Event, Mirror
from panal.guests.model import Guest


class Catalog:
    """vmid → Guest."""

    def __init__(self, store: Mirror) -> None:
        self._guests: dict[int, Guest] = {}
        self._order: list[int] = []
        self.version = 0
        for item in store.list("guest/"):
            vmid = _vmid_of_config(item.key)
            if vmid is not None:
                self._guests[vmid] = Guest.of(vmid, item)
        self._order = sorted(self._guests)
        store.listen("guest/", self._follow)

    def _follow(self, events: tuple[Event, ...]) -> None:
        self.version += 1
        for event in events:
            vmid = _vmid_of_config(event.key)
            if vmid is None:
                continue
            if event.item is None:
                if self._guests.pop(vmid, None) is not None:
                    del self._order[bisect.bisect_left(self._order, vmid)]
                continue
            if vmid not in self._guests:
                bisect.insort(self._order, vmid)
            self._guests[vmid] = Guest.of(vmid, event.item)

    def get(self, vmid: int) -> Guest | None:
        """One guest, or None."""
        return self._guests.get(vmid)

    def numbers(self) -> Sequence[int]:
        """All numbers in use, ascending. Do not change it."""
        return self._order

    def list(self) -> list[Guest]:
        """All, by number."""
        return [self._guests[vmid] for vmid in self._order]


def _vmid_of_config(key: str) -> int | None:
    _, _, rest = key.partition("/")
    number, _, kind = rest.partition("/")
    return int(number) if kind == "config" and number.isdigit() else None
