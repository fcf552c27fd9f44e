"""Remove a snapshot. Marking it is the point of no return: half a snapshot is worth nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from panal.cluster.store import Delete, Json
from panal.core.errors import Conflict, NotFound, PanalError
from panal.guests.context import Guests, queue_of
from panal.guests.model import config_key, snapshot_key
from panal.guests.snapshot import delete_disk_snapshot, snapshot_drives
from panal.guests.volumes import free_step
from panal.tasks.model import Task
from panal.tasks.steps import Args, Step

KIND: Final = "delsnapshot"


def plan_delsnapshot(guests: Guests, vmid: int, name: str, *, force: bool = False) -> Args:
    """What it will do, as JSON. NotFound, Conflict."""
    guest = guests.get(vmid)
    found = guests.snapshot(vmid, name)
    if guest.lock is not None:
        raise Conflict(f"VM is locked ({guest.lock}): wait for the task that does this; if it failed, run it again")
    disks = [d.volid for d in snapshot_drives(dict(found.config), vmid)]
    return {
        "vmid": vmid, "name": name, "birth": found.birth, "op": guests.word(), "disks": disks, "vmstate": found.vmstate,
        "parent": found.parent, "force": force,
    }  # fmt: skip


def build_delsnapshot(guests: Guests, args: Args) -> Sequence[Step]:
    """The steps."""
    vmid, name, op = int(args["vmid"]), str(args["name"]), str(args["op"])
    key = snapshot_key(vmid, name)
    parent: str | None = args["parent"]

    def still() -> bool:
        value = guests.store.value(key)
        return value is not None and value.get("op") == op

    async def mark() -> None:
        def change(old: Json | None) -> Json | None:
            if old is None or old.get("birth", "") != args["birth"]:
                raise NotFound(f"snapshot '{name}' was removed meanwhile", vmid=vmid)
            return {**old, "state": "delete", "op": op}

        await guests.store.update(key, change)

    async def unmark() -> None:
        if still():
            await guests.store.update(
                key, lambda old: None if old is None else {k: v for k, v in old.items() if k not in ("state", "op")}
            )

    def disk(volid: str) -> Step:
        async def do() -> None:
            if not still():
                return
            try:
                await delete_disk_snapshot(guests, vmid, volid, name)
            except NotFound:
                pass  # the disk itself is gone
            except PanalError:
                if not args["force"]:
                    raise

        return Step(f"remove the snapshot of {volid}", do)

    async def forget() -> None:
        if not still():
            return

        def reparent(old: Json | None) -> Json | None:
            if old is None or old.get("parent") != name:
                return None
            rest = {k: v for k, v in old.items() if k != "parent"}
            return {**rest, "parent": parent} if parent else rest

        for other in guests.snapshots(vmid):
            await guests.store.update(snapshot_key(vmid, other.name), reparent)
        await guests.store.update(config_key(vmid), reparent)
        await guests.store.txn([], [Delete(key)])

    return [
        Step("mark the snapshot as being removed", mark, unmark, point_of_no_return=True),
        *(disk(volid) for volid in args["disks"]),
        *([free_step(guests, args["vmstate"], still)] if args["vmstate"] else []),
        Step("remove the record", forget),
    ]


async def delsnapshot(guests: Guests, vmid: int, name: str, user: str, *, force: bool = False) -> str:
    """Remove as a task; returns its UPID. `force`: also when a disk's snapshot cannot be removed."""
    plan_delsnapshot(guests, vmid, name)

    async def body(task: Task) -> None:
        with guests.locked(vmid, "snapshot-delete"):
            await guests.tasks.operate(task, KIND, plan_delsnapshot(guests, vmid, name, force=force))

    return await guests.tasks.spawn("qmdelsnapshot", str(vmid), user, body, queue=queue_of(vmid))
