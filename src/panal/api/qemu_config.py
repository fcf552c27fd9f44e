"""Configuration of a virtual machine: read, change, resize, unlink and move its disks.

Declarations and translation only; what a change means is in `guests/config`, how it is made true in `guests/configure.py`.
"""

from __future__ import annotations

from typing import Any, Final

from panal.api.call import Call
from panal.api.params import NODE, SKIPLOCK, VMID
from panal.api.permission import perm
from panal.api.qemu_params import CHANGE_PARAMS, CONFIG_DIGEST, CONFIG_PARAMS, DRIVE_NAMES, IMPORT_STORAGE, UNUSED_NAMES
from panal.api.qemu_rights import authorizer
from panal.api.table import Param, Routes
from panal.core.errors import BadInput, Failed, Forbidden, Unsupported
from panal.guests.config.keys import KEYS
from panal.guests.config.show import show_config, show_pending
from panal.guests.config.wish import read_wish
from panal.guests.configure import configure, configure_task
from panal.guests.model import Guest
from panal.guests.move_disk import move_disk as move
from panal.guests.resize import resize as grow
from panal.storage.limits import copy_limit_bytes_s

routes = Routes("vm")

CHANGE: Final = perm(
    "/vms/{vmid}", "VM.Config.Disk", "VM.Config.CDROM", "VM.Config.CPU", "VM.Config.Memory", "VM.Config.Network",
    "VM.Config.HWType", "VM.Config.Options", "VM.Config.Cloudinit", any_of=True,
)  # fmt: skip
# what the answer of GET config may hold besides the keys that can be set
_SHOWN: Final = (
    "digest:string", "meta?:string", "parent?:string", "running-nets-host-mtu?:string", "runningcpu?:string",
    "runningmachine?:string", "snaptime?:integer", "vmstate?:string",
)  # fmt: skip


def _returns() -> str:
    rows = [f"{k.shown}?:{k.type}" + (f"={'|'.join(k.enum)}" if k.enum else "") for k in KEYS]
    return "{" + " ".join(sorted([*rows, *_SHOWN], key=lambda r: r.partition(":")[0].rstrip("?"))) + "}"


@routes.get(
    "/nodes/{node}/qemu/{vmid}/config", "Configuration of a virtual machine, with what is pending applied.",
    permission=perm("/vms/{vmid}", "VM.Audit"), forward="node",
    params=[
        NODE, VMID,
        Param("current", "boolean", "As the running machine has it, without what is pending.", default=False),
        Param("snapshot", "string", "The configuration of this snapshot.", format="pve-configid", max_length=40),
    ],
    returns=_returns(),
)  # fmt: skip
async def vm_config(call: Call) -> dict[str, Any]:
    """Read it."""
    guests = call.services.guests
    guest = guests.get(call.params["vmid"])
    name = call.params.get("snapshot")
    if name is None:
        return dict(
            show_config(
                guest.config, guest.pending, current=call.params.get("current", False), extra=_extra(call, guest)
            )
        )
    if call.params.get("current"):
        raise BadInput("snapshot", "cannot be given together with 'current'")
    snap = guests.snapshot(guest.vmid, name)
    extra = {"snaptime": str(snap.snaptime), "parent": snap.parent, "vmstate": snap.vmstate}
    if snap.description is not None:
        extra["description"] = snap.description
    return dict(show_config(snap.config, {}, extra={k: v for k, v in extra.items() if v is not None}))


def _extra(call: Call, guest: Guest) -> dict[str, str]:
    extra = {"lock": call.services.guests.lock_of(guest), "parent": guest.parent}
    return {k: v for k, v in extra.items() if v is not None}


@routes.get(
    "/nodes/{node}/qemu/{vmid}/pending", "Every key with its present value and what it will be after the next start.",
    permission=perm("/vms/{vmid}", "VM.Audit"), forward="node", params=[NODE, VMID],
    returns="[{delete?:integer key:string pending?:string value?:string}]",
)  # fmt: skip
async def vm_pending(call: Call) -> list[dict[str, Any]]:
    """Read it."""
    guest = call.services.guests.get(call.params["vmid"])
    return [dict(row) for row in show_pending(guest.config, guest.pending)]


@routes.put(
    "/nodes/{node}/qemu/{vmid}/config", "Change the configuration and wait until it is done.",
    permission=CHANGE, forward="node", params=[NODE, VMID, *CONFIG_PARAMS, *CHANGE_PARAMS, CONFIG_DIGEST, SKIPLOCK],
    returns="null",
)  # fmt: skip
async def update_vm(call: Call) -> None:
    """Change it now."""
    wish = read_wish(call.params)
    await configure(call.services.guests, call.params["vmid"], wish, call.rights.userid, authorizer(call))


@routes.post(
    "/nodes/{node}/qemu/{vmid}/config", "Change the configuration as a task.",
    permission=CHANGE, forward="node",
    params=[
        NODE, VMID, *CONFIG_PARAMS, *CHANGE_PARAMS, CONFIG_DIGEST, SKIPLOCK, IMPORT_STORAGE,
        Param("background_delay", "integer", "Seconds to wait for the end of the task; null is the answer if it came.",
              minimum=1, maximum=30),
    ],
    returns="string",
)  # fmt: skip
async def update_vm_async(call: Call) -> str | None:
    """Change it as a task."""
    if "import-working-storage" in call.params:
        raise BadInput("import-working-storage", "importing disks is not supported yet; leave this out")
    wish = read_wish(call.params)
    upid = await configure_task(call.services.guests, call.params["vmid"], wish, call.rights.userid, authorizer(call))
    delay = call.params.get("background_delay")
    if delay is None:
        return upid
    try:
        record = await call.services.tasks.wait(upid, delay)
    except TimeoutError:
        return upid
    if record.status not in (None, "OK") and not str(record.status).startswith("WARNINGS"):
        raise Failed(f"failed to update VM {call.params['vmid']}: {record.status}")
    return upid if record.running else None


@routes.put(
    "/nodes/{node}/qemu/{vmid}/resize", "Grow a disk, also while the machine runs.",
    permission=perm("/vms/{vmid}", "VM.Config.Disk"), forward="node",
    params=[
        NODE, VMID, CONFIG_DIGEST, SKIPLOCK,
        Param("disk", "string", "The drive.", required=True, enum=DRIVE_NAMES),
        Param("size", "string", "New size (32G), or with + what to add (+10G).", required=True,
              pattern=r"\+?\d+(\.\d+)?[KMGT]?"),
    ],
    returns="string",
)  # fmt: skip
async def resize_vm(call: Call) -> str:
    """Grow a disk."""
    p = call.params
    _only_root_skips(call)
    return await grow(
        call.services.guests, p["vmid"], p["disk"], p["size"], call.rights.userid,
        digest=p.get("digest"), skiplock=p.get("skiplock", False),
    )  # fmt: skip


@routes.put(
    "/nodes/{node}/qemu/{vmid}/unlink", "Detach disks; with force remove their volumes too.",
    permission=perm("/vms/{vmid}", "VM.Config.Disk"), forward="node",
    params=[
        NODE, VMID,
        Param("idlist", "string", "Drives, divided by commas.", required=True, format="pve-configid-list"),
        Param("force", "boolean", "Remove the volumes instead of keeping them unused."),
    ],
    returns="null",
)  # fmt: skip
async def unlink(call: Call) -> None:
    """Detach disks."""
    try:
        wish = read_wish({"delete": call.params["idlist"], "force": call.params.get("force", False)})
    except BadInput as exc:
        raise BadInput("idlist", exc.message) from None
    await configure(call.services.guests, call.params["vmid"], wish, call.rights.userid, authorizer(call))


@routes.post(
    "/nodes/{node}/qemu/{vmid}/move_disk", "Move a disk of a stopped machine to another storage, or change its format.",
    permission=perm("/vms/{vmid}", "VM.Config.Disk"), forward="node",
    params=[
        NODE, VMID, CONFIG_DIGEST,
        Param("disk", "string", "The drive.", required=True, enum=(*DRIVE_NAMES, *UNUSED_NAMES)),
        Param("storage", "string", "Where to.", format="pve-storage-id"),
        Param("format", "string", "Format of the copy; as the source's when the storage can.", enum=("raw", "qcow2", "vmdk")),
        Param("delete", "boolean", "Remove the source; otherwise it stays as unused.", default=False),
        Param("bwlimit", "integer", "Most KiB a second to copy with; 0 is no limit.", minimum=0),
        Param("target-vmid", "integer", "Give the disk to another machine (not supported yet).", format="pve-vmid",
              minimum=100, maximum=999_999_999),
        Param("target-disk", "string", "Drive of the other machine.", enum=(*DRIVE_NAMES, *UNUSED_NAMES)),
        Param("target-digest", "string", "Digest of the other machine's configuration.", max_length=40),
    ],
    returns="string",
)  # fmt: skip
async def move_vm_disk(call: Call) -> str:
    """Move a disk."""
    p = call.params
    for name in ("target-vmid", "target-disk", "target-digest"):
        if name in p:
            raise Unsupported(
                f"{name}: giving a disk to another machine is not supported yet; clone the machine instead"
            )
    if "storage" not in p:
        raise BadInput("storage", "name the storage to move the disk to")
    call.require(f"/storage/{p['storage']}", "Datastore.AllocateSpace")
    source = str(call.services.guests.get(p["vmid"]).config.get(p["disk"], "")).partition(":")[0]
    limit = copy_limit_bytes_s(
        call.services.storages, {source, p["storage"]}, "move", p.get("bwlimit"), override=call.has("/", "Sys.Modify")
    )
    return await move(
        call.services.guests, p["vmid"], p["disk"], p["storage"], call.rights.userid,
        fmt=p.get("format"), delete=p.get("delete", False), digest=p.get("digest"), limit_bytes_s=limit,
    )  # fmt: skip


def _only_root_skips(call: Call) -> None:
    if call.params.get("skiplock") and not call.rights.is_root:
        raise Forbidden("Only root may use this option.")
