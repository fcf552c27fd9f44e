"""Move a disk to another storage (or format): copy, then the drive names the copy; the source stays unused or is removed.

Called by the API; for stopped guests. Invariant: at every moment the guest's drive names one whole volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from panal.core.errors import BadInput, Conflict, NotFound, Unsupported
from panal.guests.config.change import Change, State, check_digest, check_lock, plan_change
from panal.guests.config.drives import UNUSED_COUNT, Drive, drive_bus, format_drive, parse_drive, volume_owner
from panal.guests.config.wish import Wish
from panal.guests.context import Guests, queue_of
from panal.guests.making import choose_format, image_driver
from panal.guests.model import Guest
from panal.guests.progress import Meter
from panal.guests.record import diff, state_of, store_step, unnamed
from panal.guests.volumes import Namer, Planned, allocate_step, free_step, split
from panal.storage.drivers.base import StorageDriver
from panal.tasks.model import Task
from panal.tasks.steps import Args, Step

KIND: Final = "move_disk"


async def move_disk(
    guests: Guests, vmid: int, key: str, storage: str, user: str, *,
    fmt: str | None = None, delete: bool = False, digest: str | None = None, limit_bytes_s: int = 0,
) -> str:  # fmt: skip
    """Move as a task; returns its UPID. BadInput on `disk`, `storage`, `format`; Unsupported for a running guest's disk."""
    await plan_move(guests, vmid, key, storage, fmt, delete, digest)

    async def body(task: Task) -> None:
        plan = await plan_move(guests, vmid, key, storage, fmt, delete, digest)
        args = {**plan, "limit_bytes_s": limit_bytes_s}
        task.log(f"{key}: copying {args['source']} to {args['target']['storage']}:{args['target']['name']}")
        await guests.tasks.operate(task, KIND, args)

    return await guests.tasks.spawn("qmmove", str(vmid), user, body, queue=queue_of(vmid))


def movable(guests: Guests, guest: Guest, key: str) -> Drive:
    """The drive that can be moved now."""
    if drive_bus(key) is None or key not in guest.config:
        raise BadInput("disk", f"disk '{key}' does not exist")
    drive = parse_drive(key, guest.config[key])
    if drive.volid is None or drive.cdrom:
        raise BadInput("disk", f"you can't move a cdrom: {key}")
    if volume_owner(drive.volid) != guest.vmid:
        raise BadInput("disk", f"volume '{drive.volid}' belongs to another guest; move it there")
    if guest.template:
        raise Unsupported("disks of a template cannot be moved; clone it to the other storage")
    if guest.vmid in guests.live.running() and drive.bus != "unused":
        raise Unsupported(
            f"VM {guest.vmid} is running: stop it first, then move {key}; moving a disk in use comes later"
        )
    if guest.pending:
        # what is pending happens with the next change; moving must not guess which volume the drive will name
        raise Conflict(f"VM {guest.vmid} has pending changes: start it once, or revert them, then move {key}")
    return drive


async def plan_move(
    guests: Guests, vmid: int, key: str, storage: str, fmt: str | None, delete: bool, digest: str | None
) -> Args:
    """What it will do, as JSON."""
    guest = guests.get(vmid)
    check_digest(digest, guest.config, guest.pending)
    check_lock(guest.lock)
    drive = movable(guests, guest, key)
    source_storage, source_name = split(drive.volid or "")
    source = await guests.storages.usable(source_storage)
    try:
        size = (await source.info(source_name)).size
    except NotFound as exc:
        raise BadInput("disk", f"volume '{drive.volid}' of {key} does not exist") from exc
    present = source.source(source_name).format
    target = image_driver(guests, storage, "storage")
    chosen = choose_format(target, "raw" if drive.bus == "tpmstate" else fmt, present, "format")
    if storage == source_storage and chosen == present:
        raise BadInput("storage", "you can't move to the same storage with same format")
    state = state_of(guests, guest)
    if delete and drive.volid in (state.held or {}):
        raise Conflict("you can't move a disk with snapshots and delete the source")
    name = await Namer(guests, vmid).disk(storage, chosen)
    planned = Planned(key, storage, name, chosen, size)
    moved = drive.on(planned.volid, size=None if drive.bus == "unused" else size)
    change = plan_switch(state, drive, moved, delete=delete)
    return {
        "vmid": vmid, "birth": guest.birth, "source": drive.volid, "target": planned.json(),
        "diff": diff(guest, change), "free": list(change.free),
    }  # fmt: skip


def plan_switch(state: State, drive: Drive, moved: Drive, *, delete: bool) -> Change:
    """The record with the drive on its new volume; the old one unused, or to be removed. Pure."""
    # a running guest does not have an unused volume open, and every other drive moves while the guest is off
    state = replace(state, running=False)
    if moved.bus == "unused":
        config = {**state.config, moved.key: moved.file}
        if delete:
            return Change(config, dict(state.pending), state.lock, (drive.file,))
        slot = next((n for n in range(UNUSED_COUNT) if f"unused{n}" not in config), None)
        if slot is None:
            raise Conflict(f"VM {state.vmid} has {UNUSED_COUNT} unused volumes; remove some first")
        return Change({**config, f"unused{slot}": drive.file}, dict(state.pending), state.lock)
    switched = plan_change(state, Wish({moved.key: format_drive(moved)}))
    if not delete:
        return switched
    slots = tuple(k for k, v in switched.config.items() if drive_bus(k) == "unused" and v == drive.volid)
    return plan_change(replace(state, config=switched.config), Wish(delete=slots))


def build_move(guests: Guests, args: Args) -> Sequence[Step]:
    """The steps."""
    vmid, birth = int(args["vmid"]), str(args["birth"])
    target = Planned(**args["target"])
    storage, name = split(str(args["source"]))

    async def fill(driver: StorageDriver) -> None:
        source, meter = await guests.storages.usable(storage), Meter(guests.clock, target.key, target.size)
        limit = int(args.get("limit_bytes_s", 0))
        await source.copy(name, driver, target.name, target.fmt, None, meter.share, limit_bytes_s=limit)

    return [
        allocate_step(guests, vmid, target, fill),
        store_step(guests, vmid, birth, args["diff"]),
        *(free_step(guests, volid, unnamed(guests, vmid, birth, volid)) for volid in args["free"]),
    ]
