"""Copies of a running guest's drives: one mirror job a drive, all ended at one instant. Called by the driver's `copy_disks`.

Mirrors, not backup jobs: a backup makes the guest's writes wait for the target, and until QEMU 10.1 a target that fails or is
full becomes an I/O error inside the guest. A mirror harms nobody; the price is a pause for the last dirty blocks. So the copies
are of the moment in which they end.

Invariant: afterwards, whatever happened, no job, node or descriptor set of ours is left in QEMU, and the vCPUs run if they ran
before. A daemon that dies in the middle leaves them to the next one: `clear` is part of every (re)connection; a QEMU that hangs
is cleared when it answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from panal.core.errors import Failed, NotFound, PanalError, Unavailable
from panal.guests.config import read
from panal.guests.drivers.base import CopyTarget
from panal.guests.drivers.qemu import agent
from panal.guests.drivers.qemu.argv import is_block_device
from panal.guests.drivers.qemu.blockdev import node_of
from panal.guests.drivers.qemu.guest import Guest
from panal.host.threads import whole

MARK: Final = "panal-copy"
_DISK_S: Final = 60
_QMP_S: Final = 5
_POLL_S: Final = 0.2
_STALL_S: Final = 60
"""so long no progress: the storage hangs, or the guest writes faster than the copy"""
_START_S: Final = 3600
"""so long for making the targets empty, which QEMU does before it counts"""
_PIECE: Final = 4 << 20
"""bytes that QEMU may copy at once: under a limit the next ones come much later"""
_TAIL: Final = 256 << 20
"""bytes that may be left to copy while the guest is paused, when they do not get fewer while it runs"""
_SOON: Final = 16 << 20
"""bytes that are worth waiting for before it is paused"""
_SOON_S: Final = 30
_PAUSE_S: Final = 60
_AGAIN_S: Final = 10

Progress = Callable[[int, int], None]


async def copy(
    guest: Guest, targets: Mapping[str, CopyTarget], progress: Progress, limit_bytes_s: int, door: Path
) -> None:
    """Copy these drives into the targets. Failed; `door` is the socket of the guest's agent. The descriptors stay open."""
    if not targets:
        return
    async with guest.copying:
        await _surely(clear(guest))
        try:
            for key, target in targets.items():
                await _begin(guest, key, target, limit_bytes_s and max(1, limit_bytes_s // len(targets)))
            stall_s = _STALL_S + (_PIECE * len(targets) / limit_bytes_s if limit_bytes_s else 0)
            await _converge(guest, targets, progress, stall_s)
            await _end(guest, targets, door)
        except (Unavailable, NotFound) as exc:
            if guest.leaving or guest.ended.is_set():
                raise Failed(f"VM {guest.vmid} ended while its disks were copied; try again") from exc
            raise
        finally:
            await _surely(clear_or_later(guest))
    # QEMU itself did not flush: gigabytes in the page cache would have been written out while the guest stood still
    for target in targets.values():
        await _synced(target.fd)


async def _synced(fd: int) -> None:
    try:
        await whole(lambda: os.fdatasync(fd), lambda _: None)
    except OSError as exc:
        raise Failed(f"a copied disk could not be written: {exc.strerror}") from exc


async def clear_or_later(guest: Guest, timeout_s: float | None = None) -> None:
    """Remove what is ours; from a QEMU that hangs (or is not done within the time) as soon as it answers."""
    try:
        async with asyncio.timeout(timeout_s):
            await clear(guest)
    except (PanalError, TimeoutError):
        if guest.monitor is None or guest.monitor.closed.is_set():
            return  # the next connection does it
        guest.cleaner = asyncio.create_task(_clear_later(guest), name=f"copies of {guest.vmid}")


async def _clear_later(guest: Guest) -> None:
    while guest.monitor is not None and not guest.monitor.closed.is_set():
        await asyncio.sleep(_AGAIN_S)
        with contextlib.suppress(PanalError):
            async with guest.copying:
                await clear(guest)
            return


async def _begin(guest: Guest, key: str, target: CopyTarget, limit_bytes_s: int) -> None:
    opened = await guest.speaking().call_with_fd(target.fd, "add-fd", {"opaque": MARK})
    # zeros become holes: the job first discards the whole target, then copies what is not zero
    sparse: dict[str, object] = {"discard": "unmap", "detect-zeroes": "unmap"}
    protocol: dict[str, object] = {
        "driver": "host_device" if is_block_device(target.fd) else "file", "node-name": f"{MARK}-file-{key}",
        "filename": f"/dev/fdset/{opened['fdset-id']}", "cache": {"direct": False, "no-flush": True},
    }  # fmt: skip
    image = {"driver": target.fmt, "node-name": f"{MARK}-image-{key}", "file": f"{MARK}-file-{key}"}
    await guest.call("blockdev-add", protocol | {"discard": "unmap"}, _DISK_S)
    backing: dict[str, object] = {"backing": None} if target.fmt == "qcow2" else {}
    await guest.call("blockdev-add", image | sparse | backing, _DISK_S)
    # both must have one size: a flash chip, for one, is smaller than its volume
    size = await _size(guest, node_of(key))
    window = {"driver": "raw", "node-name": f"{MARK}-{key}", "file": f"{MARK}-image-{key}", "size": size}
    await guest.call("blockdev-add", window | sparse, _DISK_S)
    await guest.call(
        "blockdev-mirror",
        {
            "job-id": f"{MARK}-{key}", "device": node_of(key), "target": f"{MARK}-{key}", "sync": "full",
            "speed": limit_bytes_s, "on-source-error": "report", "on-target-error": "report", "auto-dismiss": False,
        },
        _DISK_S,
    )  # fmt: skip


async def _size(guest: Guest, node: str) -> int:
    """Bytes. Failed when there is no such drive."""
    for found in await guest.call("query-named-block-nodes", {"flat": True}, _DISK_S):
        if found["node-name"] == node:
            return int(found["image"]["virtual-size"])
    raise Failed(f"VM {guest.vmid} has no drive {node.removeprefix('drive-')}")


async def _jobs(guest: Guest, keys: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Our jobs. Failed unless they are those of these drives: one that is gone must not count as one that is done."""
    found = await guest.call("query-block-jobs", timeout_s=_QMP_S if keys is None else _DISK_S)
    jobs = [job for job in found if str(job["device"]).startswith(MARK)]
    if keys is not None and {str(job["device"]) for job in jobs} != {f"{MARK}-{key}" for key in keys}:
        raise Failed(f"the copy of the disks of VM {guest.vmid} was ended by somebody else; try again")
    return jobs


def _complain(jobs: list[dict[str, Any]]) -> None:
    """Failed for a job that ended with an error."""
    for job in jobs:
        if job.get("error"):
            key, why = str(job["device"]).removeprefix(f"{MARK}-"), str(job["error"])
            if "No space left" in why:
                why = "no space left on the storage; free some or choose another one"
            raise Failed(f"{key} could not be copied: {why}")
        if job["status"] in ("concluded", "null", "aborting"):
            raise Failed(f"copying {job['device']} ended early; look at the storage")


async def _converge(guest: Guest, keys: Iterable[str], progress: Progress, stall_s: float) -> None:
    """Until all drives are copied but for what the guest has just written."""
    clock = asyncio.get_running_loop().time
    best, moved_at = None, clock()
    while True:
        jobs = await _jobs(guest, keys)
        _complain(jobs)
        done, total = sum(int(j["offset"]) for j in jobs), sum(int(j["len"]) for j in jobs)
        progress(done, total)
        if all(job["ready"] for job in jobs):
            return
        left = total - done
        if best is None or left < best or (left and not best):
            best, moved_at = left, clock()
        elif clock() - moved_at > (stall_s if left else _START_S):
            if left > _TAIL:
                raise Failed(
                    f"VM {guest.vmid} writes faster than its disks can be copied, or the storage hangs;"
                    " try again when it is quieter, or shut it down first"
                )
            return
        await asyncio.sleep(_POLL_S)


async def _end(guest: Guest, keys: Iterable[str], door: Path) -> None:
    """The instant: everything written is copied, nothing more is written until all copies are cut off."""
    for job in await _jobs(guest, keys):
        await guest.call("block-job-set-speed", {"device": job["device"], "speed": 0})
    await _nearly(guest, keys)
    state = await guest.call("query-status")
    async with agent.frozen(door, read.agent(guest.record.config)):
        if state["status"] != "running":  # paused, or asleep: its vCPUs stand still already
            await _cut(guest, keys)
            return
        try:
            await guest.call("stop", timeout_s=_DISK_S)
            await _cut(guest, keys)
        finally:
            await _surely(guest.call("cont", timeout_s=_DISK_S))


async def _nearly(guest: Guest, keys: Iterable[str]) -> None:
    """Drives that were ready long ago may have been written to since, faster than a limit allowed."""
    end = asyncio.get_running_loop().time() + _SOON_S
    while asyncio.get_running_loop().time() < end:
        jobs = await _jobs(guest, keys)
        _complain(jobs)
        if sum(int(j["len"]) - int(j["offset"]) for j in jobs) <= _SOON:
            return
        await asyncio.sleep(_POLL_S)


async def _cut(guest: Guest, keys: Iterable[str]) -> None:
    """End the jobs, the last writes copied: of a ready mirror, cancelling is the way to a whole copy."""
    late = f"the last changes of VM {guest.vmid} could not be copied within {_PAUSE_S} s; look at the storage"

    def ready(jobs: list[dict[str, Any]]) -> bool:
        _complain(jobs)
        return all(job["ready"] for job in jobs)

    await _until(guest, ready, late, keys)
    for job in await _jobs(guest, keys):
        await guest.call("block-job-cancel", {"device": job["device"]})
    await _until(guest, _over, late, keys)
    _complain([job for job in await _jobs(guest, keys) if job.get("error")])


def _over(jobs: list[dict[str, Any]]) -> bool:
    return all(job["status"] == "concluded" for job in jobs)


async def _until(
    guest: Guest, done: Callable[[list[dict[str, Any]]], bool], late: str, keys: Iterable[str] | None = None
) -> None:
    end = asyncio.get_running_loop().time() + _PAUSE_S
    while not done(await _jobs(guest, keys)):
        if asyncio.get_running_loop().time() > end:
            raise Failed(late)
        await asyncio.sleep(0.02)


async def take_over(guest: Guest, door: Path, timeout_s: float) -> None:
    """At a new connection: what a daemon that died left. Its guest may be frozen, which only the agent can end."""
    try:
        left = bool(await _jobs(guest))
    except PanalError:
        return
    await clear_or_later(guest, timeout_s)
    if left and guest.thawer is None:
        guest.thawer = asyncio.create_task(agent.thaw(door, read.agent(guest.record.config)), name=f"thaw {guest.vmid}")


async def clear(guest: Guest) -> None:
    """Remove every job, node and descriptor set of ours. Failed when a job does not end."""
    jobs = [str(job["id"]) for job in await guest.call("query-jobs") if str(job["id"]).startswith(MARK)]
    for job in jobs:
        with contextlib.suppress(Failed):  # it has ended just now
            await guest.call("job-cancel", {"id": job})
    if jobs:
        await _until(guest, _over, f"a copy of a disk of VM {guest.vmid} does not end; look at the storage")
    for job in jobs:
        with contextlib.suppress(Failed):
            await guest.call("job-dismiss", {"id": job})
    nodes = await guest.call("query-named-block-nodes", {"flat": True}, _DISK_S)
    names = [str(node["node-name"]) for node in nodes if str(node["node-name"]).startswith(f"{MARK}-")]
    layers = (f"{MARK}-image-", f"{MARK}-file-")  # from the top down
    for name in sorted(names, key=lambda n: next((i for i, p in enumerate(layers, 1) if n.startswith(p)), 0)):
        await guest.call("blockdev-del", {"node-name": name}, _DISK_S)
    for fdset in await guest.call("query-fdsets"):
        if any(fd.get("opaque") == MARK for fd in fdset["fds"]):
            await guest.call("remove-fd", {"fdset-id": fdset["fdset-id"]})


async def _surely(work: Coroutine[Any, Any, object]) -> None:
    """To its end, also when the caller is cancelled meanwhile."""
    running = asyncio.ensure_future(work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await running
        raise
