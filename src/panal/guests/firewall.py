"""Where guests and their firewalls meet: reading, changing, and the one table in the kernel for all that run on this node.

`protect` is called by start.py before anything of a guest exists, `begin` by boot.py, `change` by the API. Invariant: a guest
whose firewall is on has its rules in the kernel from before its first packet until its claim is let go; a start or a change
that cannot make that true is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from panal.cluster.store import Delete, Event, Json, Mirror, Op, Put
from panal.core.errors import Conflict, Failed, PanalError, Unsupported
from panal.firewall import (
    Backend,
    Card,
    FakeBackend,
    GuestFirewall,
    Protected,
    compile_table,
    firewall_key,
    remove_table,
)
from panal.guests import claims
from panal.guests.config.nics import read_nics
from panal.guests.context import Guests
from panal.guests.model import Guest, claim_key
from panal.tasks.steps import Step

RENEW_S: Final = 30.0
"""how soon a table is back that somebody flushed (a restart of nftables.service does)"""
_log = structlog.get_logger("firewall")


class Filtering:
    """State of this node's table. `backend` is the fake one until `daemon/` gives another."""

    def __init__(self, store: Mirror, table: str) -> None:
        self.backend: Backend = FakeBackend()
        self.table = table
        self.lock = asyncio.Lock()
        self.enabled = {_vmid(i.key) for i in store.list("guest/") if i.key.endswith("/firewall") and _on(i.value)}
        self.covered: frozenset[int] = frozenset()
        """guests that the table in the kernel has rules for"""
        self.stale = asyncio.Event()
        self.worker: asyncio.Task[None] | None = None
        store.listen("guest/", self._follow)

    def _follow(self, events: tuple[Event, ...]) -> None:
        for event in events:
            vmid = _vmid(event.key)
            if event.key == firewall_key(vmid):
                on = event.item is not None and _on(event.item.value)
                (self.enabled.add if on else self.enabled.discard)(vmid)
            elif event.key == claim_key(vmid) and vmid in self.covered:
                self.stale.set()


def _vmid(key: str) -> int:
    number = key.split("/", 2)[1]
    return int(number) if number.isdigit() else -1


def _on(value: Mapping[str, Any]) -> bool:
    return bool(value.get("options", {}).get("enable") == "1")


def read(guests: Guests, vmid: int) -> GuestFirewall:
    """A guest's firewall. NotFound when there is no such guest."""
    guest = guests.get(vmid)
    return GuestFirewall.of(guests.store.value(firewall_key(vmid)), guest.birth)


async def change(guests: Guests, vmid: int, edit: Callable[[GuestFirewall], GuestFirewall]) -> None:
    """Change it; when the guest runs, the kernel has the change before this returns. Errors of `edit`, Unsupported, Failed."""
    before = guests.store.value(firewall_key(vmid))
    after: Json | None = None
    guest = guests.get(vmid)
    planned = edit(read(guests, vmid))
    if planned.enabled and not read(guests, vmid).enabled:
        await _check(guests, guest.config, "enable: ")

    def apply(old: Json | None) -> Json | None:
        nonlocal before, after
        guest = guests.get(vmid)
        present = GuestFirewall.of(old, guest.birth)
        new = edit(present)
        before = old
        after = None if new == present else new.value(guest.birth)
        return after

    await guests.store.update(firewall_key(vmid), apply)
    if after is None or not _may_run(guests, vmid):
        return
    try:
        await load(guests)
    except PanalError as exc:
        await _take_back(guests, vmid, before, after)
        raise Failed(f"the kernel did not take the change, so it was not made: {exc}") from exc


async def _take_back(guests: Guests, vmid: int, before: Json | None, after: Json) -> None:
    def undo(now: Json | None) -> Json | Op | None:
        if now != after:
            return None
        return Delete(firewall_key(vmid)) if before is None else before

    await guests.store.update(firewall_key(vmid), undo)


async def protect(guests: Guests, vmid: int, config: Mapping[str, str]) -> None:
    """Put a guest's rules in place; call it with the claim and the run record written. Unsupported, Failed: do not start."""
    if read(guests, vmid).enabled:
        await _check(guests, config, "")
        try:
            await load(guests)
        except PanalError as exc:
            raise Failed(
                f"VM {vmid} is not started: its firewall cannot be put in place: {exc}. Switch it off, or put this right"
            ) from exc
    elif vmid in guests.filtering.covered:
        await load(guests)  # rules of its earlier run must not meet this one


async def _check(guests: Guests, config: Mapping[str, str], where: str) -> None:
    cards = [nic for nic in read_nics(config) if nic.firewall]
    for nic in cards:
        if nic.bridge is None:
            raise Unsupported(
                f"{where}{nic.key} has user-mode networking, which cannot be filtered; put it on a bridge, or take "
                f"firewall=1 off it", field=nic.key,
            )  # fmt: skip
    missing = (await guests.filtering.backend.abilities()).missing if cards or where else None
    if missing is not None:
        raise Unsupported(
            f"{where}guests cannot be filtered here: {missing}. Switch the guest's firewall off, or add that"
        )


async def load(guests: Guests) -> None:
    """Make the table anew from what the store says now. Failed: the one before is still there."""
    filtering = guests.filtering
    async with filtering.lock:
        protected = protected_guests(guests)
        if not protected and not filtering.covered:
            return
        reject = bool(protected) and (await filtering.backend.abilities()).reject
        await filtering.backend.load(compile_table(filtering.table, protected, can_reject=reject))
        filtering.covered = frozenset(p.vmid for p in protected if p.cards)


def protected_guests(guests: Guests) -> list[Protected]:
    """Every guest that may run here and whose firewall is on, with the cards it was started with."""
    found = []
    for vmid in sorted(guests.filtering.enabled):
        guest = guests.catalog.get(vmid)
        if guest is None or not _may_run(guests, vmid):
            continue
        firewall = GuestFirewall.of(guests.store.value(firewall_key(vmid)), guest.birth)
        if firewall.enabled:
            found.append(Protected(vmid, firewall, cards_of(vmid, guests.run_record(vmid).config)))
    return found


def cards_of(vmid: int, config: Mapping[str, str]) -> tuple[Card, ...]:
    """The cards that ask to be filtered."""
    return tuple(
        Card(nic.key, f"tap{vmid}i{nic.index}", nic.mac)
        for nic in read_nics(config)
        if nic.firewall and nic.bridge is not None and nic.mac is not None
    )


def _may_run(guests: Guests, vmid: int) -> bool:
    return claims.read(guests.store, vmid).held_by(guests.incarnation)


async def begin(guests: Guests, log: Callable[[str], None]) -> None:
    """At the daemon's start, before it serves: the kernel has exactly the rules of the guests that were adopted."""
    filtering = guests.filtering
    try:
        if protected_guests(guests):
            await load(guests)
        else:
            await filtering.backend.load(remove_table(filtering.table))
    except PanalError as exc:
        # no reason to end guests that run behind the rules of before; who needs rules is refused at its start
        if protected_guests(guests):
            log(f"the firewalls of running guests could not be renewed: {exc}")
    filtering.worker = asyncio.create_task(_keep(guests), name="firewall")


async def end(guests: Guests) -> None:
    """Stop looking after the table; it stays, as the guests do."""
    if guests.filtering.worker is not None:
        guests.filtering.worker.cancel()
        await asyncio.gather(guests.filtering.worker, return_exceptions=True)


async def _keep(guests: Guests) -> None:
    filtering = guests.filtering
    while True:
        try:
            async with asyncio.timeout(RENEW_S):
                await filtering.stale.wait()
        except TimeoutError:
            pass
        filtering.stale.clear()
        try:
            await load(guests)
        except PanalError as exc:
            _log.error("the firewalls' table could not be renewed", reason=str(exc))


def copy_step(guests: Guests, vmid: int, newid: int, birth: str, value: Json | None) -> Step:
    """Give a clone the firewall of its source, before anybody can start it. Taken back with the clone's record."""

    async def do() -> None:
        present: Guest | None = guests.catalog.get(newid)
        if value is None:
            return
        if present is None or present.birth != birth:
            raise Conflict(f"VM {newid} was removed while it was cloned from VM {vmid}")
        await guests.store.txn([], [Put(firewall_key(newid), value)])

    return Step("copy the firewall", do)


def copied(guests: Guests, vmid: int, birth: str) -> Json | None:
    """What `copy_step` writes: the guest's firewall in another guest's name, as JSON."""
    firewall = read(guests, vmid)
    return None if firewall == GuestFirewall() else firewall.value(birth)
