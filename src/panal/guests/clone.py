"""Clone a guest or one of its snapshots: number → full copies of its disks → unlock. The clone has its own identity."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from panal.cluster.options import mac_prefix
from panal.core.errors import BadInput, Conflict
from panal.guests.config import Drive, format_drive, read_drives
from panal.guests.config.drives import drive_bus
from panal.guests.config.generate import fresh_identity, fresh_macs
from panal.guests.context import Guests, queue_of
from panal.guests.create import join_pool
from panal.guests.making import choose_format, image_driver, reserve_step, unlock_step
from panal.guests.model import Guest
from panal.guests.volumes import Namer, Planned, allocate_step, split
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
    copies: list[dict[str, object]] = []
    namer = Namer(guests, want.newid)
    for drive in read_drives(config):
        if drive.volid is None or drive.cdrom:
            continue
        planned = await _plan_copy(guests, namer, drive, want)
        config[drive.key] = format_drive(drive.on(planned.volid, size=planned.size))
        copies.append({"source": drive.volid, "volume": planned.json()})
    # of a snapshot, too: the image that holds it must not change while it is read
    running = (await guests.driver.info(vmid)).status == "running"
    return {
        "vmid": vmid, "newid": want.newid, "config": config, "birth": guests.word(), "copies": copies,
        "snapshot": want.snapshot, "pause": running and bool(copies),
    }  # fmt: skip


async def _plan_copy(guests: Guests, namer: Namer, drive: Drive, want: CloneRequest) -> Planned:
    storage, name = split(drive.volid or "")
    source = await guests.storages.usable(storage)
    target = source if want.storage is None else image_driver(guests, want.storage, "storage")
    fmt = choose_format(target, want.fmt, source.source(name).format, "format")
    size = (await source.info(name)).size
    return Planned(drive.key, target.id, await namer.disk(target.id, fmt), fmt, size)


def build_clone(guests: Guests, args: Args) -> Sequence[Step]:
    """The steps."""
    vmid, newid, birth = int(args["vmid"]), int(args["newid"]), str(args["birth"])
    snapshot: str | None = args["snapshot"]

    async def pause() -> None:
        if args["pause"] and (await guests.driver.info(vmid)).status == "running":
            await guests.driver.pause(vmid)  # its disks are quiet and complete while they are read

    async def resume() -> None:
        if args["pause"] and (await guests.driver.info(vmid)).status == "paused":
            await guests.driver.resume(vmid)

    def copy(source: str, volume: Planned) -> Step:
        async def fill(target: StorageDriver) -> None:
            storage, name = split(source)
            driver = await guests.storages.usable(storage)
            open_now = (await guests.driver.info(vmid)).status == "paused"
            await driver.copy(name, target, volume.name, volume.fmt, snapshot, paused=open_now)

        return allocate_step(guests, newid, volume, fill, birth=birth)

    return [
        reserve_step(guests, newid, args["config"], birth, "clone"),
        Step("pause the source", pause, resume),
        *(copy(str(c["source"]), Planned(**c["volume"])) for c in args["copies"]),
        Step("resume the source", resume),
        unlock_step(guests, newid, birth),
    ]


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
