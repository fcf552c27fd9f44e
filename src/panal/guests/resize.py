"""Grow a disk, of a stopped or a running guest: the image first, then the size in the configuration.

Called by the API. Invariant: a disk never shrinks; after any end of the task the configuration shows the image's true size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final

from panal.cluster.store import Json
from panal.core.errors import BadInput, NotFound, Unsupported
from panal.guests.config.change import check_digest, check_lock
from panal.guests.config.drives import Drive, drive_bus, format_drive, format_size, parse_drive
from panal.guests.context import Guests, queue_of
from panal.guests.model import Guest, config_key
from panal.guests.volumes import split
from panal.tasks.model import Task
from panal.tasks.steps import Args, Step

KIND: Final = "resize"
MAX_SIZE: Final = 128 << 40
_SIZE: Final = re.compile(r"(\+?)(\d{1,18}(?:\.\d{1,9})?)([KMGT]?)")
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def wanted_size(text: str, current: int) -> int:
    """`+10G` or `32G` → bytes, rounded up to a KiB. BadInput on `size` when it shrinks or makes no sense. Pure."""
    m = _SIZE.fullmatch(text)
    if m is None:
        raise BadInput("size", f"'{text}' is not a size; write 32G, or +10G to add to it")
    size = Fraction(m[2]) * _UNITS[m[3]] + (current if m[1] else 0)
    rounded = -(-size.numerator // (size.denominator * 1024)) * 1024
    if rounded < current and size < current:
        raise BadInput("size", f"shrinking disks is not supported: it has {format_size(current)} now")
    if rounded > MAX_SIZE:
        raise BadInput("size", f"a disk has at most {format_size(MAX_SIZE)}")
    return max(rounded, current)


def resizable(guest: Guest, key: str, *, running: bool) -> Drive:
    """The drive that can grow. BadInput on `disk`. Pure."""
    if guest.template:
        raise BadInput("disk", "disks of a template do not change; clone it and resize the clone's disk")
    pending = guest.pending.get(key)
    text = pending if pending is not None and not running else guest.config.get(key)
    if text is None or drive_bus(key) is None:
        waits = " before the guest's next start" if pending is not None else ""
        raise BadInput("disk", f"disk '{key}' does not exist{waits}")
    drive = parse_drive(key, text)
    if drive.volid is None or drive.cdrom:
        raise BadInput("disk", f"you can't resize a cdrom: {key}")
    if drive.bus in ("efidisk", "tpmstate", "unused"):
        raise BadInput("disk", f"{key} cannot grow: its size is fixed")
    return drive


async def resize(
    guests: Guests, vmid: int, key: str, size: str, user: str, *, digest: str | None = None, skiplock: bool = False
) -> str:
    """Grow a drive as a task; returns its UPID. What can be seen at once to be wrong is told before."""
    await plan_resize(guests, vmid, key, size, digest, skiplock)

    async def body(task: Task) -> None:
        # looked at again in the guest's turn: two times +10G are 20G
        args = await plan_resize(guests, vmid, key, size, digest, skiplock)
        task.log(f"{key}: growing {args['volid']} from {format_size(args['from'])} to {format_size(args['size'])}")
        await guests.tasks.operate(task, KIND, args)

    return await guests.tasks.spawn("resize", str(vmid), user, body, queue=queue_of(vmid))


async def plan_resize(guests: Guests, vmid: int, key: str, size: str, digest: str | None, skiplock: bool) -> Args:
    """What it will do, as JSON. BadInput on `disk` or `size`, Conflict."""
    guest = guests.get(vmid)
    check_digest(digest, guest.config, guest.pending)
    check_lock(guest.lock, skiplock=skiplock)
    running = vmid in guests.live.running()
    drive = resizable(guest, key, running=running)
    storage, name = split(drive.volid or "")
    driver = await guests.storages.usable(storage)
    if not driver.capabilities.resize:
        raise Unsupported(f"storage '{storage}' cannot resize volumes; move the disk to one that can")
    try:
        current = (await driver.info(name)).size
    except NotFound as exc:
        raise BadInput("disk", f"volume '{drive.volid}' of {key} does not exist") from exc
    return {
        "vmid": vmid, "birth": guest.birth, "key": key, "volid": drive.volid, "from": current,
        "size": wanted_size(size, current),
    }  # fmt: skip


def build_resize(guests: Guests, args: Args) -> Sequence[Step]:
    """The steps."""
    vmid, key, volid, size = int(args["vmid"]), str(args["key"]), str(args["volid"]), int(args["size"])
    storage, name = split(volid)

    async def grow() -> None:
        if vmid in guests.live.running() and args["size"] > args["from"]:
            await guests.driver.resize_disk(vmid, key, size)
        elif args["size"] > args["from"]:
            await (await guests.storages.usable(storage)).resize(name, size)

    async def record() -> None:
        await _record(guests, vmid, str(args["birth"]), volid, size)

    async def look() -> None:
        # an image does not shrink again: what is left to undo is a configuration that would lie about it
        try:
            actual = (await (await guests.storages.usable(storage)).info(name)).size
        except NotFound:
            return
        await _record(guests, vmid, str(args["birth"]), volid, actual)

    return [Step(f"grow {volid}", grow, look, point_of_no_return=True), Step("write the configuration", record)]


async def _record(guests: Guests, vmid: int, birth: str, volid: str, size: int) -> None:
    def sized(key: str, text: str | None) -> str | None:
        if text is None or drive_bus(key) in (None, "unused"):
            return text
        drive = parse_drive(key, text)
        return format_drive(replace(drive, size=size)) if drive.volid == volid else text

    def change(old: Json | None) -> Json | None:
        if old is None or old.get("birth", "") != birth:
            return None
        new = {**old, **{p: {k: sized(k, t) for k, t in old.get(p, {}).items()} for p in ("config", "pending")}}
        return None if new == old else new

    await guests.store.update(config_key(vmid), change)
