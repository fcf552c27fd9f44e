"""Back to a snapshot: stop, disks back, configuration back; then start from its RAM, or afresh if asked.

The lock is the point of no return: with one disk back and another not, forward is the only way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from panal.cluster.store import Json
from panal.core.errors import Conflict, NotFound
from panal.guests.config import read_drives
from panal.guests.config.drives import UNUSED_COUNT, volume_owner
from panal.guests.context import Guests, queue_of
from panal.guests.making import change_marked, mark_step, marked, unmark
from panal.guests.model import Snapshot
from panal.guests.snapshot import snapshot_drives
from panal.guests.start import Resume, run_guest
from panal.guests.stop import stop_guest
from panal.guests.volumes import split
from panal.tasks.model import Task
from panal.tasks.steps import Args, Step

KIND: Final = "rollback"


async def plan_rollback(guests: Guests, vmid: int, name: str) -> Args:
    """What it will do, as JSON. NotFound; Conflict when the snapshot or a disk of it is not whole."""
    guest = guests.get(vmid)
    found = guests.snapshot(vmid, name)
    if found.state is not None:
        raise Conflict(f"unable to rollback to incomplete snapshot (snapshot state is '{found.state}')", vmid=vmid)
    if guest.lock not in (None, "rollback"):  # its own: an earlier rollback that failed on the way
        raise Conflict(f"VM is locked ({guest.lock}): wait for the task that does this; if it failed, run it again")
    if guest.template:
        raise Conflict("a template cannot be rolled back", vmid=vmid)
    disks = [d.volid for d in snapshot_drives(dict(found.config), vmid) if d.volid]
    for volid in disks:
        storage, volume = split(volid)
        try:
            await (await guests.storages.usable(storage)).info(volume)
        except NotFound as exc:
            raise Conflict(f"the snapshot's disk {volid} does not exist any more: {exc}", vmid=vmid) from exc
    return {"vmid": vmid, "name": name, "birth": guest.birth, "op": guests.word(), "disks": disks}


def rolled_back(present: Mapping[str, str], found: Snapshot, vmid: int) -> dict[str, str]:
    """Pure: the snapshot's configuration, with disks that are newer than it kept as `unused`."""
    config = dict(found.config)
    known = {d.volid for d in read_drives(config, unused=True)}
    free = (f"unused{n}" for n in range(UNUSED_COUNT) if f"unused{n}" not in config)
    for drive in read_drives(present, unused=True):
        if drive.volid and drive.volid not in known and volume_owner(drive.volid) == vmid:
            config[next(free)] = drive.volid
            known.add(drive.volid)
    return config


def build_rollback(guests: Guests, args: Args) -> Sequence[Step]:
    """The steps."""
    vmid, name, op = int(args["vmid"]), str(args["name"]), str(args["op"])
    still = marked(guests, vmid, op)

    async def stop() -> None:
        if still():
            await stop_guest(guests, vmid)

    def disk(volid: str) -> Step:
        async def do() -> None:
            if still():
                storage, volume = split(volid)
                await (await guests.storages.usable(storage)).rollback(volume, name)

        return Step(f"roll {volid} back", do)

    async def config() -> None:
        def change(old: Json) -> Json:
            found = guests.snapshot(vmid, name)
            present = {**old["config"], **{k: v for k, v in old.get("pending", {}).items() if v is not None}}
            return unmark({**old, "config": rolled_back(present, found, vmid), "pending": {}, "parent": name})

        await change_marked(guests, vmid, op, change)

    return [
        mark_step(guests, vmid, str(args["birth"]), "rollback", op),
        Step("stop the guest", stop),
        *(disk(volid) for volid in args["disks"]),
        Step("put the configuration back", config),
    ]


async def rollback(guests: Guests, vmid: int, name: str, user: str, *, start: bool = False) -> str:
    """Roll back as a task; returns its UPID. A snapshot with RAM runs afterwards; others only with `start`."""
    await plan_rollback(guests, vmid, name)

    async def body(task: Task) -> None:
        found = guests.snapshot(vmid, name)
        with guests.locked(vmid, "rollback"):
            await guests.tasks.operate(task, KIND, await plan_rollback(guests, vmid, name))
        await _start_again(guests, vmid, found, task.log, start=start)

    return await guests.tasks.spawn("qmrollback", str(vmid), user, body, queue=queue_of(vmid))


async def _start_again(guests: Guests, vmid: int, found: Snapshot, log: Callable[[str], None], *, start: bool) -> None:
    if found.vmstate is not None:
        await run_guest(guests, vmid, log, resume=Resume(found.hardware, found.vmstate), paused=True)
        await guests.driver.resume(vmid)
        await guests.live.refresh(vmid)
    elif start:
        await run_guest(guests, vmid, log)
