"""After a restart of the daemon: find every QEMU of ours that still runs, clean up after those that do not.

Called by the driver's `adopt`. Invariant: afterwards every process whose messages go to our run directory is either held by the
driver or gone. A QEMU without a record never ran its vCPUs (records.py); one whose start did not come to its end did for a
moment at most, and the task that started it has failed: both are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from panal.core.errors import PanalError
from panal.guests.drivers.qemu import console, copies
from panal.guests.drivers.qemu.guest import Guest
from panal.guests.drivers.qemu.launch import Host
from panal.guests.drivers.qemu.qmp import Event, Monitor
from panal.guests.drivers.qemu.records import MONITORS
from panal.host import process, uids

_CONNECT_S: Final = 3
_DEATH_S: Final = 5.0
_REMOVALS: Final = 100


async def adopt(host: Host, handler: Callable[[int], Callable[[Event], None]]) -> list[Guest]:
    """All guests that run; those that hang too, without a monitor, so that they can be stopped."""
    found: list[Guest] = []
    uids_left: list[int] = []
    for vmid in host.places.vmids():
        record = host.places.read(vmid)
        held = process.find(record.pid, record.started) if record else None
        if record is None or held is None:
            continue
        if not record.begun:
            held.close()
            uids_left += [] if record.uid is None else [record.uid]
            continue
        found.append(Guest(record, held, None))
    kept = {g.vmid for g in found}
    await asyncio.to_thread(_kill_strays, host, kept)
    for uid in uids_left:
        uids.give_back(uid)
    for vmid in host.places.vmids():
        if vmid not in kept:
            host.places.remove(vmid)
    for name in host.cgroups.names():
        for _ in range(_REMOVALS):
            if name in map(str, kept) or name not in host.cgroups.names():
                break
            host.cgroups.remove(name)
            await asyncio.sleep(0.01)  # a process that is still dying keeps its group
    await asyncio.gather(*(connect(host, guest, handler(guest.vmid), _CONNECT_S) for guest in found))
    return found


async def connect(host: Host, guest: Guest, on_event: Callable[[Event], None], timeout_s: float) -> None:
    """(Re)connect to a guest's monitor; one that does not answer is left without, status `unknown`."""
    for name in MONITORS:  # the second one when a daemon that hangs still holds the first
        path = host.places.directory(guest.vmid) / name
        with contextlib.suppress(PanalError):
            guest.monitor = await Monitor.connect(path, on_event, timeout_s)
            guest.version = guest.monitor.version
            state = await guest.call("query-status")
            guest.status = str(state["status"])
            break
    else:
        guest.status = "unknown"
        return
    with contextlib.suppress(PanalError):
        await console.free_ports(host.places, guest)
    await copies.take_over(guest, host.places.directory(guest.vmid) / "agent", timeout_s)


def _kill_strays(host: Host, kept: set[int]) -> None:
    """Processes that write into our directory and that no record names: from a start that was cut off."""
    base = str(host.places.base) + "/"
    names = set(map(str, kept))
    dying: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            target = str((entry / "fd" / "2").readlink())
            pidfd = os.pidfd_open(int(entry.name))
        except OSError:
            continue
        try:
            # asked again under the pidfd: from here on the number means this process
            vmid = target.removeprefix(base).split("/", 1)[0]
            if target.startswith(base) and vmid not in names and str((entry / "fd" / "2").readlink()) == target:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                dying.append(os.dup(pidfd))
        except OSError:
            continue
        finally:
            os.close(pidfd)
    _wait_for(dying)


def _wait_for(dying: list[int]) -> None:
    """Until they have let go of their disks; what hangs in the kernel is not waited for long."""
    until = time.monotonic() + _DEATH_S
    for pidfd in dying:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(max(0.0, until - time.monotonic()) * 1000)
        os.close(pidfd)
