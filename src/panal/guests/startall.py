"""Start the guests of this node that want to run, in their order, when somebody asks (at boot it is `boot.autostart`)."""

from __future__ import annotations

from collections.abc import Collection

from panal.guests.boot import plan_autostart, start_in_turn
from panal.guests.context import Guests
from panal.tasks.model import Task


async def startall(guests: Guests, user: str, *, vmids: Collection[int] | None = None, force: bool = False) -> str:
    """As a task; returns its UPID. Guests with `onboot` (with `force`, the others too), of `vmids` if given."""

    async def body(task: Task) -> None:
        turns = plan_autostart(guests.list(), guests.node, force=force)
        await start_in_turn(guests, [t for t in turns if vmids is None or t.vmid in vmids], task)

    return await guests.tasks.spawn("startall", "", user, body)
