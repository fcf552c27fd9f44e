"""Clone a guest or one of its snapshots: number → full copies of its disks → unlock. The clone has its own identity.

A guest that runs goes on running: whatever it has open is copied by its hypervisor, all disks as of one instant at the end. A
snapshot, and what no process has open, is read from the storage. (A TPM's state is read from the storage in either case.)
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from panal.cluster.options import mac_prefix
from panal.core.errors import BadInput, Conflict
from panal.guests import firewall
from panal.guests.config import Drive, format_drive, read_drives
from panal.guests.config.drives import drive_bus
from panal.guests.config.generate import fresh_identity, fresh_macs
from panal.guests.context import Guests, queue_of
from panal.guests.create import join_pool
from panal.guests.drivers.base import CopyTarget
from panal.guests.making import choose_format, image_driver, reserve_step, unlock_step
from panal.guests.model import Guest
from panal.guests.progress import Meter
from panal.guests.volumes import Namer, Planned, allocate_step, split
from panal.host.threads import whole
from panal.storage.drivers.base import StorageDriver
from panal.tasks.model import Task
from panal.tasks.steps import Args, Step

KIND: Final = "clone"
_NOT_CLONED: Final = frozenset({"template", "parent", "snaptime", "vmstate", "runningmachine", "runningcpu", "lock"})


@dataclass(frozen=True, slots=True)
class CloneRequest:
    """What the caller asked for."""

    newid: int
    name: str | None = None
    description: str | None = None
    snapshot: str | None = None
    storage: str | None = None
    fmt: str | None = None
    full: bool | None = None
    pool: str | None = None
    target: str | None = None
    limit_bytes_s: int = 0


def cloned_config(guests: Guests, guest: Guest, want: CloneRequest) -> dict[str, str]:
    """The source's configuration as the clone will have it, disks still the source's."""
    source: Mapping[str, str] = guest.config
    if want.snapshot is not None:
        source = guests.snapshot(guest.vmid, want.snapshot).config
    config = {k: v for k, v in source.items() if k not in _NOT_CLONED and drive_bus(k) != "unused"}
    config = fresh_identity(fresh_macs(config, guests.rng.randbytes, mac_prefix(guests.store)), guests.rng.randbytes)
    config["name"] = want.name or f"Copy-of-{'VM-' if 'name' not in config else ''}{config.get('name', guest.vmid)}"
    if want.description is not None:
        config["description"] = want.description
    config["meta"] = f"ctime={int(guests.clock.wall_s())}"
    return config


async def plan_clone(guests: Guests, vmid: int, want: CloneRequest) -> Args:
    """What clone will do, as JSON. BadInput naming the field, Conflict, NotFound."""
    guest = guests.get(vmid)
    if want.target not in (None, guests.node):
        raise BadInput("target", f"VM {vmid} can only be cloned on node '{guests.node}': its storage is not shared")
    if want.full is False:
        raise BadInput("full", "linked clones are not supported yet; leave 'full' out, or set it to 1, for a full copy")
    if guests.catalog.get(want.newid) is not None:
        raise Conflict(f"unable to create VM {want.newid}: config file already exists", vmid=want.newid)
    if guest.lock is not None:
        raise Conflict(f"VM is locked ({guest.lock}): wait for the task that does this; if it failed, run it again")
    config = cloned_config(guests, guest, want)
    live = await guests.driver.info(vmid)
    attached = {} if live.status == "stopped" or want.snapshot is not None else attached_drives(guests, vmid)
    copies: list[dict[str, object]] = []
    namer = Namer(guests, want.newid)
    for drive in read_drives(config):
        if drive.volid is None or drive.cdrom:
            continue
        planned = await _plan_copy(guests, namer, drive, want)
        config[drive.key] = format_drive(drive.on(planned.volid, size=planned.size))
        copies.append({"source": drive.volid, "volume": planned.json(), "attached": attached.get(drive.volid)})
    birth = guests.word()
    return {
        "vmid": vmid, "newid": want.newid, "config": config, "birth": birth, "copies": copies,
        "firewall": firewall.copied(guests, vmid, birth),
        "snapshot": want.snapshot, "limit_bytes_s": want.limit_bytes_s,
        "resume": live.status == "running" and any(c["attached"] for c in copies),
    }  # fmt: skip


def attached_drives(guests: Guests, vmid: int) -> dict[str, str]:
    """Volume → drive of everything that the guest's hypervisor has open for writing and can copy."""
    drives = read_drives(guests.run_record(vmid).config)
    return {d.volid: d.key for d in drives if d.volid is not None and d.bus != "tpmstate" and not d.read_only}


async def _plan_copy(guests: Guests, namer: Namer, drive: Drive, want: CloneRequest) -> Planned:
    storage, name = split(drive.volid or "")
    source = await guests.storages.usable(storage)
    target = source if want.storage is None else image_driver(guests, want.storage, "storage")
    wanted = "raw" if drive.bus == "tpmstate" else want.fmt  # swtpm takes nothing else
    fmt = choose_format(target, wanted, source.source(name).format, "format")
    size = (await source.info(name)).size
    return Planned(drive.key, target.id, await namer.disk(target.id, fmt), fmt, size)


def build_clone(guests: Guests, args: Args) -> Sequence[Step]:
    """The steps."""
    newid, birth = int(args["newid"]), str(args["birth"])
    made = []
    for c in args["copies"]:
        volume = Planned(**c["volume"])
        fill = None if c["attached"] else _reader(guests, str(c["source"]), volume, args)
        made.append(allocate_step(guests, newid, volume, fill, birth=birth))
    attached = {str(c["attached"]): Planned(**c["volume"]) for c in args["copies"] if c["attached"]}
    return [
        reserve_step(guests, newid, args["config"], birth, "clone"),
        firewall.copy_step(guests, int(args["vmid"]), newid, birth, args["firewall"]),
        *made,
        *([_copy_step(guests, attached, args)] if attached else []),
        unlock_step(guests, newid, birth),
    ]


def _reader(guests: Guests, source: str, volume: Planned, args: Args) -> Callable[[StorageDriver], Awaitable[None]]:
    """A copy by the storage, of a volume that nobody writes to or of a snapshot in it, which does not change."""

    async def fill(target: StorageDriver) -> None:
        storage, name = split(source)
        driver = await guests.storages.usable(storage)
        meter = Meter(guests.clock, volume.key, volume.size)
        await driver.copy(
            name, target, volume.name, volume.fmt, args["snapshot"], meter.share,
            shared=args["snapshot"] is not None, limit_bytes_s=int(args["limit_bytes_s"]),
        )  # fmt: skip

    return fill


def _copy_step(guests: Guests, volumes: Mapping[str, Planned], args: Args) -> Step:
    """The hypervisor copies its drives into volumes that are there, empty. Undo: a daemon that died left the guest paused."""
    vmid, newid, birth = int(args["vmid"]), int(args["newid"]), str(args["birth"])

    async def do() -> None:
        targets: dict[str, CopyTarget] = {}
        try:
            for key, volume in volumes.items():
                driver = await guests.storages.usable(volume.storage)
                targets[key] = await whole(
                    lambda d=driver, v=volume: CopyTarget(d.source(v.name).format, d.open(v.name, write=True)),  # type: ignore[misc]
                    lambda target: os.close(target.fd),
                )
        except BaseException:
            for target in targets.values():
                os.close(target.fd)
            raise
        meter = Meter(guests.clock, ", ".join(volumes))
        await guests.driver.copy_disks(vmid, targets, meter.count, limit_bytes_s=int(args["limit_bytes_s"]))

    async def undo() -> None:
        # the driver itself lets it run again unless the daemon died; without our record somebody else paused it, later
        made = guests.catalog.get(newid)
        ours = made is not None and made.birth == birth
        if args["resume"] and ours and (await guests.driver.info(vmid)).status == "paused":
            await guests.driver.resume(vmid)

    return Step(f"copy the disks of VM {vmid} while it runs", do, undo)


@asynccontextmanager
async def reading(guests: Guests, vmid: int, task: Task) -> AsyncIterator[None]:
    """Keep the source as it is: a template is shared by all that clone it, another guest is ours alone meanwhile."""
    if guests.get(vmid).template:
        guests.readers[vmid] += 1
        try:
            yield
        finally:
            guests.readers[vmid] -= 1
            if not guests.readers[vmid]:
                del guests.readers[vmid]
    else:
        waiting = lambda who: task.log(f"waiting for {who}")  # noqa: E731
        async with guests.tasks.queues.turn(queue_of(vmid), str(task.upid), waiting):
            with guests.locked(vmid, "clone"):
                yield


async def clone(guests: Guests, vmid: int, want: CloneRequest, user: str) -> str:
    """Clone as a task; returns its UPID. What is wrong is told before the task begins."""
    await plan_clone(guests, vmid, want)

    async def body(task: Task) -> None:
        async with reading(guests, vmid, task):
            await guests.tasks.operate(task, KIND, await plan_clone(guests, vmid, want))
        await join_pool(guests, want.newid, want.pool, user)

    return await guests.tasks.spawn("qmclone", str(vmid), user, body, queue=queue_of(want.newid))
