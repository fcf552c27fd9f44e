"""Shut the guests of this node down in the order opposite to their start, a group of equal `startup` order at a time.

Called by the API and, before the machine goes down, by `packaging/systemd/panal-guests.service` (through the API). Invariant:
a group is begun when every guest of the one before has ended or was given up with a warning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from panal.cluster.incarnation import mark_started
from panal.core.errors import NotFound, PanalError
from panal.guests.config.read import startup
from panal.guests.context import Guests, queue_of
from panal.guests.model import Guest
from panal.guests.shutdown import DEFAULT_S, shutdown_guest
from panal.tasks.index import Filter
from panal.tasks.model import Task

WORKERS: Final = 8
TURN_S: Final = 60.0
"""how long a guest that is busy with something else (a snapshot, say) is waited for, at least"""


@dataclass(frozen=True, slots=True)
class Ending:
    """One guest to shut down, and the seconds it gets for it."""

    vmid: int
    timeout_s: float


def plan_stop(
    listed: Collection[Guest], running: Collection[int], timeout_s: float | None = None
) -> list[tuple[Ending, ...]]:
    """Pure: groups, the first to be shut down first. `timeout_s` counts for all; else `down=` of each, or DEFAULT_S."""
    ends: list[tuple[float, Ending]] = []
    for guest in listed:
        if guest.vmid not in running:
            continue
        when = startup(guest.config)
        down_s = DEFAULT_S if when.down_s is None else float(when.down_s)
        # without an order it starts last, so it ends first
        order = float("inf") if when.order is None else float(when.order)
        ends.append((order, Ending(guest.vmid, down_s if timeout_s is None else timeout_s)))
    ends.sort(key=lambda e: (-e[0], -e[1].vmid))
    return [tuple(ending for _, ending in group) for _, group in groupby(ends, key=lambda e: e[0])]


async def stopall(
    guests: Guests, user: str, *, vmids: Collection[int] | None = None, timeout_s: float | None = None,
    force_stop: bool = True, workers: int = WORKERS, then: Callable[[Task], Awaitable[None]] | None = None,
) -> str:  # fmt: skip
    """Shut down what runs here (of `vmids`, if given) as a task; returns its UPID.

    A guest that fails is a warning, the others go on. `then` is what comes after (the machine's own end); not when stopped.
    """

    async def body(task: Task) -> None:
        await _end_startall(guests, user, task)
        here = [g for g in guests.list() if g.node == guests.node and (vmids is None or g.vmid in vmids)]
        groups = plan_stop(here, guests.live.running(), timeout_s)
        if not groups:
            task.log("no guest runs")
        for group in groups:
            await _end_group(guests, group, task, force_stop, workers)
        if then is not None:
            await then(task)

    return await guests.tasks.spawn("stopall", "", user, body)


async def _end_startall(guests: Guests, user: str, task: Task) -> None:
    # what starts guests in turn would go on behind our back; nor must the next start of the daemon take it up again
    found, _ = await guests.tasks.list(Filter(running=True, type="startall"))
    for record in found:
        task.log("ending the task that starts guests")
        with suppress(NotFound, TimeoutError):  # it has ended by itself
            await guests.tasks.stop(str(record.upid))
            await guests.tasks.wait(str(record.upid), TURN_S)
    if found:
        await mark_started(guests.store, guests.incarnation)


async def _end_group(guests: Guests, group: tuple[Ending, ...], task: Task, force_stop: bool, workers: int) -> None:
    places = asyncio.Semaphore(workers)

    async def end(ending: Ending) -> None:
        async with places:
            await _end_one(guests, ending, task, force_stop)

    async with asyncio.TaskGroup() as together:  # when this task is stopped, so are these
        for ending in group:
            together.create_task(end(ending))


async def _end_one(guests: Guests, ending: Ending, task: Task, force_stop: bool) -> None:
    vmid = ending.vmid
    log: Callable[[str], None] = lambda line: task.log(f"VM {vmid}: {line}")  # noqa: E731
    try:
        wait_s = max(ending.timeout_s, TURN_S)
        async with guests.tasks.queues.turn(
            queue_of(vmid), str(task.upid), lambda who: log(f"waiting for {who}"), wait_s
        ):
            log(f"shutting down ({ending.timeout_s:g} s at most)")
            await shutdown_guest(guests, vmid, ending.timeout_s, log, force_stop=force_stop)
            log("is off")
    except PanalError as exc:  # the others must go down all the same
        task.warn(f"VM {vmid} was not shut down: {exc}")
