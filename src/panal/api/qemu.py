"""Virtual machines of a node: list, create, delete, clone, template, migrate."""

from __future__ import annotations

from typing import Any

from panal.api.call import Call
from panal.api.params import NODE, SKIPLOCK, VMID
from panal.api.permission import AnyUser, Described, all_of, one_of, perm
from panal.api.qemu_checks import root_only, unsupported
from panal.api.qemu_params import CONFIG_PARAMS, DRIVE_NAMES, IMPORT_STORAGE
from panal.api.qemu_rights import authorizer
from panal.api.table import Param, Routes
from panal.core.errors import BadInput, NotFound, PanalError
from panal.guests import clone, create, delete, status, template
from panal.guests.config.keys import find
from panal.guests.config.rights import needs
from panal.guests.config.wish import Wish, canonical_all
from panal.guests.in_use import named_by

routes = Routes("vm")

_BWLIMIT = Param("bwlimit", "integer", "Most KiB a second to copy with (kept for compatibility: no effect).", minimum=0)
_NEWID = Param(
    "newid", "integer", "Number of the clone.", required=True, format="pve-vmid", minimum=100, maximum=999_999_999
)
_ROW = (
    "cpu?:number cpus?:number diskread?:integer diskwrite?:integer lock?:string maxdisk?:integer maxmem?:integer "
    "mem?:integer memhost?:integer name?:string netin?:integer netout?:integer pid?:integer qmpstatus?:string "
    "running-machine?:string running-qemu?:string serial?:boolean status:string=stopped|running tags?:string "
    "template?:boolean uptime?:integer vmid:integer"
)


@routes.get(
    "/nodes/{node}/qemu",
    "List the node's virtual machines.",
    permission=AnyUser("Only those on which the caller has VM.Audit."),
    forward="node",
    params=[NODE, Param("full", "boolean", "With what the hypervisor says of running ones.")],
    returns=f"[{{{_ROW}}}]",
)
async def list_guests(call: Call) -> list[dict[str, Any]]:
    """From memory."""
    guests = call.services.guests
    make = status.full_row if call.params.get("full") else status.row
    mine = [g for g in guests.list() if g.node == guests.node and call.has(f"/vms/{g.vmid}", "VM.Audit")]
    return [make(guests, guest) for guest in mine]


@routes.post(
    "/nodes/{node}/qemu",
    "Create a virtual machine.",
    permission=Described("VM.Allocate on /vms/{vmid} or on the pool, and what each option needs there and on storages."),
    forward="node",
    params=[
        NODE,
        Param("vmid", "integer", "Number; the next free one when it is left out (the task's id tells it).",
              format="pve-vmid", minimum=100, maximum=999_999_999),
        *CONFIG_PARAMS,
        IMPORT_STORAGE,
        _BWLIMIT,
        Param("archive", "string", "Backup to restore from (comes later).", max_length=255),
        Param("force", "boolean", "Replace an existing VM when restoring.", requires="archive"),
        Param("unique", "boolean", "New network addresses when restoring.", requires="archive"),
        Param("live-restore", "boolean", "Start while restoring (comes later)."),
        Param("storage", "string", "Default storage when restoring.", format="pve-storage-id"),
        Param("pool", "string", "Put it into this pool.", format="pve-poolid"),
        Param("start", "boolean", "Start it when it is made.", default=False),
        Param("ha-managed", "boolean", "Make it highly available (comes later).", default=False),
    ],
    returns="string",
)  # fmt: skip
async def create_guest(call: Call) -> str:
    """Rights first: nobody learns which numbers are in use, and no number is kept for who may not have it."""
    params, guests = call.params, call.services.guests
    user = call.rights.userid
    unsupported(call, "restoring a backup is not supported yet: leave 'archive' out to create a new VM", "archive")
    unsupported(call, "not supported yet: leave it out", "live-restore", "ha-managed", "lock")
    pool = params.get("pool")
    texts = canonical_all({k: v for k, v in params.items() if find(k) is not None})

    def check(vmid: int) -> None:
        if not (pool and call.has(f"/pool/{pool}", "VM.Allocate")):
            call.require(f"/vms/{vmid}", "VM.Allocate")
        if params.get("start") and not (pool and call.has(f"/pool/{pool}", "VM.PowerMgmt")):
            call.require(f"/vms/{vmid}", "VM.PowerMgmt")
        authorizer(call)(needs(vmid, {}, {}, Wish(set=texts), pool=pool))
        _check_pool(call, pool)

    async def make(vmid: int) -> str:
        return await create.create(guests, vmid, texts, user, pool=pool, start=bool(params.get("start")))

    if "vmid" in params:
        check(params["vmid"])
        return await make(params["vmid"])
    vmid = await guests.nextids.next_id(user, check)
    try:
        return await make(vmid)
    except PanalError:
        await guests.nextids.give_back(vmid)
        raise


def _check_pool(call: Call, pool: str | None) -> None:
    if pool and call.services.store.get(f"pool/{pool}") is None:
        raise BadInput("pool", f"pool '{pool}' does not exist")


@routes.delete(
    "/nodes/{node}/qemu/{vmid}",
    "Delete a virtual machine with its disks and snapshots.",
    permission=perm("/vms/{vmid}", "VM.Allocate"),
    forward="node",
    params=[
        NODE, VMID, SKIPLOCK,
        Param("purge", "boolean", "Remove it from jobs too (there are none yet)."),
        Param("destroy-unreferenced-disks", "boolean",
              "Remove every volume of its number, also those its configuration does not name.", default=False),
    ],
    returns="string",
)  # fmt: skip
async def delete_guest(call: Call) -> str:
    """As a task."""
    root_only(call, "skiplock")
    unreferenced = bool(call.params.get("destroy-unreferenced-disks"))
    return await delete.delete(call.services.guests, call.params["vmid"], call.rights.userid, unreferenced=unreferenced)


@routes.post(
    "/nodes/{node}/qemu/{vmid}/clone",
    "Make a copy of a virtual machine, a template or a snapshot.",
    permission=all_of(
        perm("/vms/{vmid}", "VM.Clone"),
        one_of(perm("/vms/{newid}", "VM.Allocate"), perm("/pool/{pool}", "VM.Allocate", when="pool")),
    ),
    forward="node",
    params=[
        NODE, VMID, _NEWID,
        Param("bwlimit", "integer", "Most KiB a second to copy with; 0 is no limit.", minimum=0),
        Param("name", "string", "Name of the clone.", format="dns-name"),
        Param("description", "string", "Note of the clone.", format="comment", max_length=8192),
        Param("snapname", "string", "Copy this snapshot instead of the present state.", format="pve-configid",
              max_length=40),
        Param("storage", "string", "Storage of the copies; each disk's own when it is left out.",
              format="pve-storage-id"),
        Param("format", "string", "Format of the copies.", enum=("raw", "qcow2", "vmdk")),
        Param("full", "boolean", "Full copies of all disks; the only kind so far."),
        Param("pool", "string", "Put the clone into this pool.", format="pve-poolid"),
        Param("target", "string", "Node of the clone: this one.", format="pve-node"),
    ],
    returns="string",
)  # fmt: skip
async def clone_guest(call: Call) -> str:
    """The caller needs space on the storages, and what the source's cards and devices are connected to."""
    params, guests = call.params, call.services.guests
    want = clone.CloneRequest(
        params["newid"], params.get("name"), params.get("description"), params.get("snapname"), params.get("storage"),
        params.get("format"), params.get("full"), params.get("pool"), params.get("target"),
    )  # fmt: skip
    guest = guests.get(params["vmid"])
    storages = {want.storage} if want.storage else {v.partition(":")[0] for v in named_by(guests, guest)}
    for storage in sorted(s for s in storages if s):
        call.require(f"/storage/{storage}", "Datastore.AllocateSpace")
    source = guest.config if want.snapshot is None else guests.snapshot(guest.vmid, want.snapshot).config
    wish = Wish(set={k: v for k, v in source.items() if find(k) is not None})
    connected = [n for n in needs(want.newid, {}, {}, wish) if n.path.startswith(("/sdn", "/mapping")) or n.root]
    authorizer(call)(connected)
    _check_pool(call, want.pool)
    return await clone.clone(guests, guest.vmid, want, call.rights.userid)


@routes.post(
    "/nodes/{node}/qemu/{vmid}/template",
    "Turn a virtual machine into a template, for ever.",
    permission=perm("/vms/{vmid}", "VM.Allocate"),
    forward="node",
    params=[NODE, VMID, Param("disk", "string", "Make only this disk a base (comes later).", enum=DRIVE_NAMES)],
    returns="string",
)
async def make_template(call: Call) -> str:
    """As a task."""
    unsupported(call, "single disks cannot be converted yet: leave 'disk' out", "disk")
    return await template.template(call.services.guests, call.params["vmid"], call.rights.userid)


@routes.post(
    "/nodes/{node}/qemu/{vmid}/migrate",
    "Move a virtual machine to another node.",
    permission=perm("/vms/{vmid}", "VM.Migrate"),
    forward="node",
    params=[
        NODE, VMID, _BWLIMIT,
        Param("target", "string", "Node to move it to.", required=True, format="pve-node"),
        Param("online", "boolean", "While it runs."),
        Param("force", "boolean", "Also with devices of this node; root only."),
        Param("migration_network", "string", "Network to use.", format="CIDR"),
        Param("migration_type", "string", "Whether the stream is encrypted.", enum=("secure", "insecure")),
        Param("targetstorage", "string", "Storage on the target, or pairs of storages.", max_length=1024),
        Param("with-conntrack-state", "boolean", "With the state of its connections.", default=False),
        Param("with-local-disks", "boolean", "Copy disks of storages that are not shared."),
    ],
    returns="string",
)  # fmt: skip
async def migrate_guest(call: Call) -> str:
    """A node has nobody to migrate to before the cluster comes; what is wrong with `target` is said all the same."""
    root_only(call, "force", "migration_type", "migration_network")
    guests = call.services.guests
    guests.get(call.params["vmid"])
    target = call.params["target"]
    if target == guests.node:
        raise BadInput("target", "target is local node.")
    if call.services.store.get(f"node/{target}") is None:
        raise BadInput("target", f"no such cluster node '{target}'")
    raise NotFound(f"node '{target}' is not online")
