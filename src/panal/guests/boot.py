"""The daemon's start: settle who runs what before anything is served, then start what is wanted.

Called by `daemon/`: `begin` before `tasks.start()` and before the API listens; `autostart` after. Invariant (design 6.3,
6.11): when `settle` returns, every process here is backed by a claim of this incarnation and its epoch, and every claim of this
node is backed by a process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from panal.cluster.incarnation import mark_started
from panal.cluster.store import MAX_OPERATIONS, Check, Op, Put
from panal.core.errors import Conflict, PanalError
from panal.guests import claims, firewall, operations
from panal.guests.config.read import startup
from panal.guests.context import Guests, queue_of
from panal.guests.drivers.base import Running
from panal.guests.model import Guest, RunRecord, claim_key, run_key
from panal.guests.start import run_guest
from panal.guests.stop import Reaper
from panal.tasks.model import Task

ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Settled:
    """What was found."""

    adopted: tuple[int, ...]
    killed: tuple[int, ...]
    released: tuple[int, ...]


async def begin(guests: Guests, log: Callable[[str], None]) -> Settled:
    """Everything that comes before `tasks.start()`: operations known, events heard, right to run settled, samples taken."""
    operations.register(guests)
    guests.reaper = Reaper(guests)
    await guests.nextids.start()
    settled = await settle(guests, log)
    await firewall.begin(guests, log)
    guests.live.start()
    return settled


async def end(guests: Guests) -> None:
    """Let go; the guests run on. Call it after the tasks have ended."""
    if guests.reaper is not None:
        await guests.reaper.close()
    await firewall.end(guests)
    await guests.live.close()
    await guests.driver.close()


async def settle(guests: Guests, log: Callable[[str], None]) -> Settled:
    """Adopt the guests we hold, kill the others, let the claims of dead ones go. Idempotent."""
    adopted: list[int] = []
    killed: list[int] = []
    for running in await guests.driver.adopt():
        claim = claims.read(guests.store, running.vmid)
        if claim.held_by(guests.incarnation, running.epoch) and guests.catalog.get(running.vmid) is not None:
            await _pin(guests, running)
            adopted.append(running.vmid)
        else:
            # another boot's, another epoch's, or of a guest that is gone: it has no right to run
            log(f"VM {running.vmid} runs without the right to (epoch {running.epoch}): stopping it")
            await guests.driver.stop(running.vmid)
            killed.append(running.vmid)
    released = await _release_dead(guests, frozenset(adopted), log)
    await guests.live.sample()
    return Settled(tuple(adopted), tuple(killed), tuple(released))


async def _pin(guests: Guests, running: Running) -> None:
    # the daemon may have died between the start and the moment the hardware was written down
    record = guests.run_record(running.vmid)
    if record.epoch == running.epoch and dict(record.hardware) == dict(running.hardware):
        return
    value = RunRecord(running.epoch, running.hardware, running.config).value()
    await guests.store.txn([], [Put(run_key(running.vmid), value)])


async def _release_dead(guests: Guests, alive: frozenset[int], log: Callable[[str], None]) -> list[int]:
    released: list[int] = []
    for batch in _batches([v for v in guests.catalog.numbers() if v not in alive]):
        for _ in range(ATTEMPTS):
            freed = await _free(guests, batch)
            if freed is not None:
                released += freed
                break
        else:
            raise Conflict("the claims of this node's guests keep changing while it starts; start the daemon again")
    if released:
        log(f"not running any more, free to be started again: VM {', '.join(map(str, released))}")
    return released


async def _free(guests: Guests, batch: list[int]) -> list[int] | None:
    """One try, all of the batch or nothing: None when a claim changed meanwhile (our own reaper may have been quicker)."""
    checks: list[Check] = []
    ops: list[Op] = []
    freed: list[int] = []
    for vmid in batch:
        claim = claims.read(guests.store, vmid)
        if claim.free or claim.node != guests.node:
            continue
        await guests.driver.stop(vmid)  # reaps what is left of it: sockets, taps, cgroup
        new = claims.decide_takeover(claim, guests.incarnation)
        new = new or claims.decide_release(claim, guests.incarnation, claim.epoch)
        if new is not None:
            checks.append(claim.check(vmid))
            ops.append(Put(claim_key(vmid), new.value()))
            freed.append(vmid)
    return freed if not ops or (await guests.store.txn(checks, ops)).ok else None


def _batches(numbers: list[int]) -> list[list[int]]:
    return [numbers[at : at + MAX_OPERATIONS] for at in range(0, len(numbers), MAX_OPERATIONS)]


@dataclass(frozen=True, slots=True)
class Turn:
    """When to start a guest: `order` (None comes last), seconds to wait after it was started."""

    order: int | None
    vmid: int
    up_s: float


def plan_autostart(listed: list[Guest], node: str, *, force: bool = False) -> list[Turn]:
    """Pure: the guests with `onboot` (with `force`, the others too), in their order."""
    turns = []
    for guest in listed:
        if guest.node != node or guest.template or guest.lock:
            continue
        if not force and guest.config.get("onboot") != "1":
            continue
        when = startup(guest.config)
        turns.append(Turn(when.order, guest.vmid, float(when.up_s or 0)))
    return sorted(turns, key=lambda t: (t.order is None, t.order or 0, t.vmid))


async def autostart(guests: Guests, user: str = "root@pam") -> str | None:
    """After the node's boot (not after a mere restart of the daemon): start what wants to run. UPID, or None for nothing."""
    if not guests.incarnation.fresh:
        return None
    turns = plan_autostart(guests.list(), guests.node)
    if not turns:
        await mark_started(guests.store, guests.incarnation)
        return None

    async def body(task: Task) -> None:
        await start_in_turn(guests, turns, task)
        await mark_started(guests.store, guests.incarnation)

    return await guests.tasks.spawn("startall", "", user, body)


async def start_in_turn(guests: Guests, turns: list[Turn], task: Task) -> None:
    """One after the other; what runs already is passed over, what fails is a warning."""
    for turn in turns:
        if turn.vmid in guests.live.running():
            continue
        task.log(f"Starting VM {turn.vmid}")
        try:
            async with guests.tasks.queues.turn(queue_of(turn.vmid), str(task.upid), timeout_s=3600):
                await run_guest(guests, turn.vmid, task.log)
        except PanalError as exc:  # the others must start all the same
            task.warn(f"VM {turn.vmid} was not started: {exc}")
            continue
        if turn.up_s:
            await guests.clock.sleep(turn.up_s)
