"""RAM and device state to a descriptor and back. Called by the driver's `save_ram` and by `launch.py`.

QEMU speaks into a pipe and a thread moves the bytes in the kernel (splice): so any descriptor will do (file, block device), the
volume never gets into QEMU's hands, and later versions that refuse plain files behave alike. `migrate exec:` is out: with the
sandbox it kills QEMU (recipe pitfall 4).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from panal.core.errors import Failed, Unavailable
from panal.guests.config import read_drives
from panal.guests.drivers.qemu.blockdev import node_of
from panal.guests.drivers.qemu.guest import Guest
from panal.guests.drivers.qemu.qmp import CommandFailed

_PIPE: Final = 1 << 20
_POLL_S: Final = 0.1
_STALL_S: Final = 120
"""no byte moved for so long: the storage hangs, give up"""
_DONE: Final = frozenset({"completed", "failed", "cancelled"})
_UNLIMITED: Final = 1 << 50


async def save(guest: Guest, fd: int, progress: Callable[[int, int], None]) -> None:
    """Write the state of a paused guest; its drives stay usable. Failed with QEMU's reason; the guest stays paused."""
    await guest.call("migrate-set-parameters", {"max-bandwidth": _UNLIMITED})
    reading, writing = _pipe()
    target = os.dup(fd)
    mover: asyncio.Future[int] | None = None
    try:
        try:
            await guest.speaking().call_with_fd(writing, "getfd", {"fdname": "state"})
        finally:
            os.close(writing)
        mover = asyncio.ensure_future(asyncio.to_thread(_move, reading, target))
        await guest.call("migrate", {"uri": "fd:state"})
        await _follow(guest, mover, progress)
        await mover
        await asyncio.to_thread(_sync, target)
        await _take_drives_back(guest)
    except BaseException as exc:
        with contextlib.suppress(Exception):
            await asyncio.shield(guest.call("migrate_cancel"))
        if isinstance(exc, OSError):
            raise Failed(f"the RAM of VM {guest.vmid} cannot be written: {exc.strerror}") from exc
        raise
    finally:
        if mover is not None:
            with contextlib.suppress(BaseException):
                await asyncio.wait_for(asyncio.shield(mover), 5)
        os.close(target)


async def load(guest: Guest, fd: int) -> None:
    """Load the state into a QEMU that was started with `-incoming defer`. Failed with QEMU's reason."""
    reading, writing = _pipe()
    source = os.dup(fd)
    mover: asyncio.Future[int] | None = None
    try:
        os.lseek(source, 0, os.SEEK_SET)
        try:
            await guest.speaking().call_with_fd(reading, "getfd", {"fdname": "state"})
        finally:
            os.close(reading)
        mover = asyncio.ensure_future(asyncio.to_thread(_move, source, writing, close=(writing,)))
        try:
            await guest.call("migrate-incoming", {"uri": "fd:state"})
            await _follow(guest, mover, lambda done, total: None)
        except (Unavailable, CommandFailed) as exc:
            raise Failed(f"the saved RAM does not fit this machine or is damaged: {exc}") from exc
    finally:
        if mover is not None:
            with contextlib.suppress(BaseException):
                await asyncio.wait_for(asyncio.shield(mover), 5)
        os.close(source)


async def _follow(guest: Guest, mover: asyncio.Future[int], progress: Callable[[int, int], None]) -> None:
    """Wait for the end. `progress(done, total)` in bytes."""
    last, moved_at = -1, asyncio.get_running_loop().time()
    while True:
        state: Any = await guest.call("query-migrate", timeout_s=30)
        ram = state.get("ram") or {}
        done = int(ram.get("transferred", 0))
        status = state.get("status", "active")
        progress(int(ram.get("total", 0)) - int(ram.get("remaining", 0)), int(ram.get("total", 0)))
        if status in _DONE:
            if status != "completed":
                if mover.done() and mover.exception() is not None:
                    await mover
                raise Failed(f"QEMU could not move the RAM: {state.get('error-desc') or status}")
            return
        now = asyncio.get_running_loop().time()
        if done != last:
            last, moved_at = done, now
        elif now - moved_at > _STALL_S:
            raise Failed(f"the RAM did not move for {_STALL_S} s; look at the storage")
        await asyncio.sleep(_POLL_S if done else 0.01)


async def _take_drives_back(guest: Guest) -> None:
    """After a migration QEMU gives its images up for the other side; here there is none, and snapshots are to follow.

    QEMU 10 has a command for it. Before, the only door beside resuming is an export, which takes the image it exports back.
    """
    wanted = {node_of(drive.key) for drive in read_drives(guest.record.config) if not drive.read_only}
    found = await guest.call("query-named-block-nodes", {"flat": True})
    nodes = [node["node-name"] for node in found if node["node-name"] in wanted]
    if not nodes:
        return
    try:
        await guest.call("block-set-active", {"active": True})
        return
    except CommandFailed as exc:
        if exc.kind != "CommandNotFound":
            raise
    directory = tempfile.mkdtemp(prefix="pnl")
    path = Path(directory) / "nbd"
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            await guest.speaking().call_with_fd(listener.fileno(), "getfd", {"fdname": "door"})
        await guest.call("nbd-server-start", {"addr": {"type": "fd", "data": {"str": "door"}}})
        try:
            for n, node in enumerate(nodes):
                await guest.call("block-export-add", {"type": "nbd", "id": f"back{n}", "node-name": node})
        finally:
            await guest.call("nbd-server-stop")
    finally:
        shutil.rmtree(directory)


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    with contextlib.suppress(OSError):  # a user's limit of pipe memory: slower, not wrong
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE)
    return reading, writing


def _move(source: int, target: int, close: tuple[int, ...] = ()) -> int:
    """Move all bytes in the kernel; closes the pipe's end it got. Runs in a thread."""
    moved = 0
    pipe_end = source if not close else target
    try:
        while count := _step(source, target):
            moved += count
    except BrokenPipeError:
        pass  # QEMU has all it wants: what follows in the volume is padding
    finally:
        os.close(pipe_end)
    return moved


def _step(source: int, target: int) -> int:
    try:
        return os.splice(source, target, _PIPE)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
    data = os.read(source, _PIPE)  # not every kind of file can be spliced
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]
    return len(data)


def _sync(fd: int) -> None:
    with contextlib.suppress(OSError):  # a pipe or socket cannot be synced
        os.fdatasync(fd)
