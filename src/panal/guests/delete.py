"""Delete a guest with everything that is its own. The lock is the point of no return: afterwards it only goes forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from panal.core.errors import Conflict
from panal.firewall import firewall_key
from panal.guests import claims
from panal.guests.config.drives import volume_owner
from panal.guests.context import Guests, queue_of
from panal.guests.in_use import named_by
from panal.guests.making import delete_keys, mark_step, marked
from panal.guests.model import Guest, claim_key, config_key, run_key, snapshot_key
from panal.guests.volumes import free_step
from panal.tasks.model import Task
from panal.tasks.steps import Args, Step

KIND: Final = "delete"


def volumes_of(guests: Guests, guest: Guest) -> list[str]:
    """Every volume that belongs to the guest and is named by its configuration, by what is pending or by a snapshot."""
    return sorted(v for v in named_by(guests, guest) if volume_owner(v) == guest.vmid)


async def plan_delete(guests: Guests, vmid: int, *, unreferenced: bool = False) -> Args:
    """What delete will do, as JSON. Conflict when it may not be deleted now."""
    guest = guests.get(vmid)
    if guest.protected:
        raise Conflict(f"can't remove VM {vmid} - protection mode enabled; switch 'protection' off first", vmid=vmid)
    claim = claims.read(guests.store, vmid)
    if (await guests.driver.info(vmid)).status != "stopped" or not (claim.free or claim.held_by(guests.incarnation)):
        raise Conflict(f"VM {vmid} is running - destroy failed; stop it first", vmid=vmid)
    if guests.readers[vmid]:
        raise Conflict(f"VM {vmid} is being cloned; delete it when that has ended", vmid=vmid)
    volids = volumes_of(guests, guest)
    if unreferenced:
        volids = sorted({*volids, *await unreferenced_volumes(guests, vmid)})
    names = [s.name for s in guests.snapshots(vmid)]
    return {"vmid": vmid, "birth": guest.birth, "op": guests.word(), "volumes": volids, "snapshots": names}


async def unreferenced_volumes(guests: Guests, vmid: int) -> list[str]:
    """Volumes of the guest's number on every storage of this node, named by a configuration or not."""
    found: list[str] = []
    for storage in guests.storages.image_storages():
        driver = await guests.storages.usable(storage)
        found += [f"{storage}:{v.name}" for v in await driver.list("images", vmid) if v.vmid == vmid]
    return found


def build_delete(guests: Guests, args: Args) -> Sequence[Step]:
    """The steps."""
    vmid, op = int(args["vmid"]), str(args["op"])
    still = marked(guests, vmid, op)

    async def forget() -> None:
        if not still():
            return
        for told in guests.on_removed:
            await told(vmid)
        await delete_keys(guests, [snapshot_key(vmid, name) for name in args["snapshots"]])
        await delete_keys(guests, [config_key(vmid), claim_key(vmid), run_key(vmid), firewall_key(vmid)])

    return [
        mark_step(guests, vmid, str(args["birth"]), "destroyed", op),
        *(free_step(guests, volid, still) for volid in args["volumes"]),
        Step("remove the configuration", forget),
    ]


async def delete(guests: Guests, vmid: int, user: str, *, unreferenced: bool = False) -> str:
    """Delete as a task; returns its UPID. What forbids it is told before the task begins."""
    await plan_delete(guests, vmid)

    async def body(task: Task) -> None:
        await guests.tasks.operate(task, KIND, await plan_delete(guests, vmid, unreferenced=unreferenced))

    return await guests.tasks.spawn("qmdestroy", str(vmid), user, body, queue=queue_of(vmid))
