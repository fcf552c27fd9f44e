"""Ask the guest to switch itself off (ACPI), wait, and start it again when it is a reboot."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from panal.core.errors import Conflict, Failed, NotFound, PanalError
from panal.guests.config.read import startup
from panal.guests.context import Guests, queue_of
from panal.guests.start import run_guest
from panal.guests.stop import stop_guest
from panal.tasks.model import Task

DEFAULT_S: Final = 180.0
PRESS_AGAIN_S: Final = 5.0


def timeout_of(guests: Guests, vmid: int, timeout_s: float | None) -> float:
    """The caller's, or `down=` of the guest's `startup`, or DEFAULT_S."""
    if timeout_s is not None:
        return timeout_s
    down_s = startup(guests.get(vmid).config).down_s
    return DEFAULT_S if down_s is None else float(down_s)


async def shutdown_guest(
    guests: Guests, vmid: int, timeout_s: float, log: Callable[[str], None], *, force_stop: bool = False
) -> None:
    """Until it is off and its claim is free; call it with the guest's queue held. Conflict, Failed after the time."""
    live = await guests.driver.info(vmid)
    if live.status == "paused" and not force_stop:
        raise Conflict("VM is paused - cannot shutdown; resume it, or stop it")
    if live.status == "running" and not await _press_until_off(guests, vmid, timeout_s):
        if not force_stop:
            raise Failed(f"VM quit/powerdown failed - got timeout: it did not switch off within {timeout_s:g} s")
        log(f"it did not switch off within {timeout_s:g} s: stopping it")
    await stop_guest(guests, vmid)


async def _press_until_off(guests: Guests, vmid: int, timeout_s: float) -> bool:
    # A guest that has not booted far enough does not hear the button; one that is shutting down does not mind another press.
    end_s = guests.clock.monotonic_s() + timeout_s
    harmless: type[PanalError] = NotFound  # it went off since we looked
    while True:
        with suppress(harmless):
            await guests.driver.shutdown(vmid)
        harmless = PanalError  # pressed at the moment the process ends: the wait below tells
        left_s = end_s - guests.clock.monotonic_s()
        if await guests.driver.wait_stopped(vmid, max(0.0, min(PRESS_AGAIN_S, left_s))):
            return True
        if guests.clock.monotonic_s() >= end_s:
            return False


async def shutdown(
    guests: Guests, vmid: int, user: str, *, timeout_s: float | None = None, force_stop: bool = False
) -> str:
    """Shut down as a task; returns its UPID. An already stopped guest is fine."""
    wait_s = timeout_of(guests, vmid, timeout_s)

    async def body(task: Task) -> None:
        await shutdown_guest(guests, vmid, wait_s, task.log, force_stop=force_stop)

    return await guests.tasks.spawn("qmshutdown", str(vmid), user, body, queue=queue_of(vmid))


async def reboot(guests: Guests, vmid: int, user: str, *, timeout_s: float | None = None) -> str:
    """Shut down and start again, with pending changes applied. Conflict when it does not run."""
    wait_s = timeout_of(guests, vmid, timeout_s)
    require_running(guests, vmid)

    async def body(task: Task) -> None:
        await shutdown_guest(guests, vmid, wait_s, task.log)
        await run_guest(guests, vmid, task.log)

    return await guests.tasks.spawn("qmreboot", str(vmid), user, body, queue=queue_of(vmid))


def require_running(guests: Guests, vmid: int) -> None:
    """Conflict with PVE's sentence unless it runs or is paused. NotFound."""
    guests.get(vmid)
    if vmid not in guests.live.running():
        raise Conflict(f"VM {vmid} not running", vmid=vmid)
