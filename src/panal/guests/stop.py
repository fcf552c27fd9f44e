"""Stop a guest at once; and what follows when it ends by itself. Both let the claim go, after the process is reaped."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from panal.core.errors import Busy, PanalError
from panal.guests import claims
from panal.guests.context import Guests, queue_of
from panal.guests.drivers.base import GuestEvent
from panal.tasks.index import Filter
from panal.tasks.model import Task

STOP_TIMEOUT_S: Final = 30.0
RETRY_S: Final = 1.0
ENDED: Final = frozenset({"stopped", "crashed"})


async def stop_guest(guests: Guests, vmid: int, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Power off and let the claim go; nothing happens when it does not run. Call it with the guest's queue held."""
    claim = claims.read(guests.store, vmid)
    await guests.driver.stop(vmid, timeout_s)
    guests.live.put(await guests.driver.info(vmid))
    await claims.release(guests.store, vmid, guests.incarnation, claim.epoch)


async def stop(
    guests: Guests, vmid: int, user: str, *, timeout_s: float | None = None, overrule_shutdown: bool = False
) -> str:
    """Stop as a task; returns its UPID. `overrule_shutdown` ends a shutdown task that is waiting for the guest."""
    guests.get(vmid)
    if overrule_shutdown:
        await _end_shutdowns(guests, vmid, user)

    async def body(task: Task) -> None:
        await stop_guest(guests, vmid, STOP_TIMEOUT_S if timeout_s is None else timeout_s)

    return await guests.tasks.spawn("qmstop", str(vmid), user, body, queue=queue_of(vmid))


async def _end_shutdowns(guests: Guests, vmid: int, user: str) -> None:
    for kind in ("qmshutdown", "qmreboot"):
        found, _ = await guests.tasks.list(Filter(running=True, id=str(vmid), type=kind))
        for record in found:
            await guests.tasks.stop(str(record.upid))


class Reaper:
    """Keeps the live table and the claims true to what guests do by themselves: listens to the driver's events."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests
        self._ending: dict[int, asyncio.Task[None]] = {}
        guests.driver.watch(self.saw)

    async def saw(self, event: GuestEvent) -> None:
        """One event. Quick: the release waits for the guest's turn in a task of its own."""
        with suppress(PanalError):  # the next sample will show it
            await self._guests.live.refresh(event.vmid)
        if event.kind in ENDED and event.vmid not in self._ending:
            task = asyncio.create_task(self._ended(event.vmid), name=f"reap {event.vmid}")
            self._ending[event.vmid] = task
            task.add_done_callback(lambda _, vmid=event.vmid: self._ending.pop(vmid, None))  # type: ignore[misc]

    async def _ended(self, vmid: int) -> None:
        # The queue matters: a start that has taken the claim but not begun the process yet holds it, and is not to be robbed.
        guests = self._guests
        while True:
            try:
                async with guests.turn(vmid, "the end of the guest", timeout_s=3600):
                    claim = claims.read(guests.store, vmid)
                    if claim.held_by(guests.incarnation) and (await guests.driver.info(vmid)).status == "stopped":
                        await claims.release(guests.store, vmid, guests.incarnation, claim.epoch)
                return
            except (Busy, PanalError):
                await guests.clock.sleep(RETRY_S)

    async def close(self) -> None:
        """Forget what waits: the next boot settles it."""
        for task in list(self._ending.values()):
            task.cancel()
        await asyncio.gather(*self._ending.values(), return_exceptions=True)
