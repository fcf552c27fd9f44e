"""Turn a guest into a template: its disks become read-only bases. There is no way back; a clone is a new guest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from panal.cluster.store import Json
from panal.core.errors import Conflict
from panal.guests.config import format_drive, parse_drive, read_drives
from panal.guests.config.drives import volume_owner
from panal.guests.context import Guests, queue_of
from panal.guests.making import change_marked, mark_step, marked, unmark
from panal.guests.volumes import split
from panal.tasks.model import Task
from panal.tasks.steps import Args, Step

KIND: Final = "template"


async def plan_template(guests: Guests, vmid: int) -> Args:
    """What it will do, as JSON. Conflict when it cannot become one."""
    guest = guests.get(vmid)
    if guest.lock not in (None, "create"):  # its own: an earlier conversion that failed on the way
        raise Conflict(f"VM is locked ({guest.lock}): wait for the task that does this; if it failed, run it again")
    if guest.template:
        raise Conflict("you can't convert a template to a template", vmid=vmid)
    if guests.snapshots(vmid):
        raise Conflict("unable to create template, because VM contains snapshots; delete them first", vmid=vmid)
    if guest.pending:
        raise Conflict("changes are pending; start and stop the VM, or revert them, before it becomes a template")
    if (await guests.driver.info(vmid)).status != "stopped":
        raise Conflict(f"you can't convert a VM to template if VM {vmid} is running; stop it first", vmid=vmid)
    drives = [d for d in read_drives(guest.config) if d.volid and not d.cdrom and volume_owner(d.volid) == vmid]
    return {"vmid": vmid, "birth": guest.birth, "op": guests.word(), "drives": {d.key: d.volid for d in drives}}


def build_template(guests: Guests, args: Args) -> Sequence[Step]:
    """The steps."""
    vmid, op = int(args["vmid"]), str(args["op"])
    still = marked(guests, vmid, op)

    def base(key: str, volid: str) -> Step:
        async def do() -> None:
            if not still():
                return
            storage, name = split(volid)
            new = await (await guests.storages.usable(storage)).make_base(name)

            def change(old: Json) -> Json:
                drive = parse_drive(key, old["config"][key])
                text = format_drive(drive.on(f"{storage}:{new}", fmt=drive.fmt, size=drive.size))
                return {**old, "config": {**old["config"], key: text}}

            await change_marked(guests, vmid, op, change)

        return Step(f"make {volid} a base", do)

    async def finish() -> None:
        await change_marked(guests, vmid, op, lambda old: unmark({**old, "config": {**old["config"], "template": "1"}}))

    return [
        mark_step(guests, vmid, str(args["birth"]), "create", op),
        *(base(key, volid) for key, volid in args["drives"].items()),
        Step("mark it as a template", finish),
    ]


async def template(guests: Guests, vmid: int, user: str) -> str:
    """Convert as a task; returns its UPID."""
    await plan_template(guests, vmid)

    async def body(task: Task) -> None:
        await guests.tasks.operate(task, KIND, await plan_template(guests, vmid))

    return await guests.tasks.spawn("qmtemplate", str(vmid), user, body, queue=queue_of(vmid))
