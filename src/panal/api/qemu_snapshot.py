"""Snapshots of a virtual machine."""

from __future__ import annotations

from typing import Any

from panal.api.call import Call
from panal.api.params import NODE, SNAPNAME, VMID
from panal.api.permission import AnyUser, perm
from panal.api.table import Param, Routes
from panal.guests import delsnapshot, rollback, snapshot
from panal.guests.config.change import digest
from panal.guests.config.show import show_value

routes = Routes("vm")

_PATH = "/nodes/{node}/qemu/{vmid}/snapshot"
_NOTE = Param("description", "string", "A note for people.", format="comment", max_length=8192)


@routes.get(
    _PATH,
    "List a virtual machine's snapshots, and where its present state stands among them (`current`).",
    permission=perm("/vms/{vmid}", "VM.Audit"),
    forward="node",
    params=[NODE, VMID],
    returns="[{description:string name:string parent?:string snaptime?:integer vmstate?:boolean}]",
)
async def list_snapshots(call: Call) -> list[dict[str, Any]]:
    """Oldest first, `current` last."""
    guests = call.services.guests
    guest = guests.get(call.params["vmid"])
    rows: list[dict[str, Any]] = []
    for found in guests.snapshots(guest.vmid):
        row = {
            "name": found.name, "description": found.description or "", "snaptime": found.snaptime,
            "vmstate": int(found.vmstate is not None),
        }  # fmt: skip
        rows.append({
            **row, **({"parent": found.parent} if found.parent else {}),
            **({"snapstate": found.state} if found.state else {}),
        })  # fmt: skip
    current: dict[str, Any] = {
        "name": "current", "description": "You are here!", "digest": digest(guest.config, guest.pending),
        "running": int(guest.vmid in guests.live.running()),
    }  # fmt: skip
    return [*rows, {**current, **({"parent": guest.parent} if guest.parent else {})}]


@routes.post(
    _PATH,
    "Take a snapshot of a virtual machine.",
    permission=perm("/vms/{vmid}", "VM.Snapshot"),
    forward="node",
    params=[NODE, VMID, SNAPNAME, _NOTE, Param("vmstate", "boolean", "With its memory, when it runs.")],
    returns="string",
)
async def take_snapshot(call: Call) -> str:
    """As a task."""
    params = call.params
    return await snapshot.snapshot(
        call.services.guests, params["vmid"], params["snapname"], call.rights.userid,
        description=params.get("description"), vmstate=bool(params.get("vmstate")),
    )  # fmt: skip


@routes.get(
    _PATH + "/{snapname}",
    "What stands below a snapshot.",
    permission=AnyUser(),
    forward="node",
    params=[NODE, VMID, SNAPNAME],
    returns="[{}]",
)
async def snapshot_index(call: Call) -> list[dict[str, str]]:
    """Fixed."""
    return [{"cmd": "config"}, {"cmd": "rollback"}]


@routes.delete(
    _PATH + "/{snapname}",
    "Remove a snapshot; what was taken after it stays.",
    permission=perm("/vms/{vmid}", "VM.Snapshot"),
    forward="node",
    params=[NODE, VMID, SNAPNAME, Param("force", "boolean", "Also when a disk's snapshot cannot be removed.")],
    returns="string",
)
async def delete_snapshot(call: Call) -> str:
    """As a task."""
    params = call.params
    return await delsnapshot.delsnapshot(
        call.services.guests, params["vmid"], params["snapname"], call.rights.userid, force=bool(params.get("force"))
    )


@routes.get(
    _PATH + "/{snapname}/config",
    "The configuration that a snapshot holds.",
    permission=perm("/vms/{vmid}", "VM.Snapshot", "VM.Snapshot.Rollback", "VM.Audit", any_of=True),
    forward="node",
    params=[NODE, VMID, SNAPNAME],
    returns="{}",
)
async def read_snapshot(call: Call) -> dict[str, Any]:
    """With the types that GET config has."""
    guests = call.services.guests
    guests.get(call.params["vmid"])
    found = guests.snapshot(call.params["vmid"], call.params["snapname"])
    out: dict[str, Any] = {name: show_value(name, text) for name, text in found.config.items()}
    extra = {
        "snaptime": found.snaptime, "description": found.description, "parent": found.parent, "vmstate": found.vmstate,
        "runningmachine": found.raw.get("runningmachine"), "snapstate": found.state,
    }  # fmt: skip
    return {**out, **{k: v for k, v in extra.items() if v is not None}, "digest": digest(found.config, {})}


@routes.put(
    _PATH + "/{snapname}/config",
    "Change a snapshot's note.",
    permission=perm("/vms/{vmid}", "VM.Snapshot"),
    forward="node",
    params=[NODE, VMID, SNAPNAME, _NOTE],
    returns="null",
)
async def change_snapshot(call: Call) -> None:
    """At once."""
    params = call.params
    await snapshot.describe(call.services.guests, params["vmid"], params["snapname"], params.get("description"))


@routes.post(
    _PATH + "/{snapname}/rollback",
    "Put a virtual machine back to a snapshot; it runs on when the snapshot has its memory.",
    permission=perm("/vms/{vmid}", "VM.Snapshot", "VM.Snapshot.Rollback", any_of=True),
    forward="node",
    params=[NODE, VMID, SNAPNAME,
            Param("start", "boolean", "Start it afterwards in any case; this needs VM.PowerMgmt.", default=False)],
    returns="string",
)  # fmt: skip
async def roll_back(call: Call) -> str:
    """As a task. Starting is a right of its own, by whatever route (attack row 13)."""
    params = call.params
    if params.get("start"):
        call.require(f"/vms/{params['vmid']}", "VM.PowerMgmt")
    return await rollback.rollback(
        call.services.guests, params["vmid"], params["snapname"], call.rights.userid, start=bool(params.get("start"))
    )
