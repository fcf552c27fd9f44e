"""Pause, resume, reset: what a running guest's processors do. Also its keys and its screen."""

from __future__ import annotations

import re
from typing import Final

from panal.core.errors import BadInput
from panal.guests.context import Guests, queue_of
from panal.guests.shutdown import require_running
from panal.tasks.model import Task

_KEYS: Final = re.compile(r"[a-z0-9_]{1,24}(?:-[a-z0-9_]{1,24}){0,5}")


async def pause(guests: Guests, vmid: int, user: str) -> str:
    """Stop its processors; UPID. Conflict when it does not run."""
    require_running(guests, vmid)

    async def body(task: Task) -> None:
        await guests.driver.pause(vmid)
        await guests.live.refresh(vmid)

    return await guests.tasks.spawn("qmpause", str(vmid), user, body, queue=queue_of(vmid))


async def resume(guests: Guests, vmid: int, user: str) -> str:
    """Let its processors go on; UPID. Conflict when it does not run."""
    require_running(guests, vmid)

    async def body(task: Task) -> None:
        await guests.driver.resume(vmid)
        await guests.live.refresh(vmid)

    return await guests.tasks.spawn("qmresume", str(vmid), user, body, queue=queue_of(vmid))


async def reset(guests: Guests, vmid: int, user: str) -> str:
    """Press the reset button; UPID. Conflict when it does not run."""
    require_running(guests, vmid)

    async def body(task: Task) -> None:
        await guests.driver.reset(vmid)

    return await guests.tasks.spawn("qmreset", str(vmid), user, body, queue=queue_of(vmid))


async def send_key(guests: Guests, vmid: int, key: str, user: str) -> None:
    """Press keys together, `ctrl-alt-delete` as QEMU names them. BadInput on `key`."""
    if not _KEYS.fullmatch(key):
        raise BadInput("key", "value is not a key or keys joined by '-', like ctrl-alt-delete")
    require_running(guests, vmid)
    async with guests.turn(vmid, f"sendkey by {user}"):
        await guests.driver.send_keys(vmid, key.split("-"))


async def screenshot(guests: Guests, vmid: int) -> bytes:
    """A PNG of its screen. Conflict when it does not run."""
    require_running(guests, vmid)
    return await guests.driver.screenshot(vmid)
