"""`/nodes/{node}/storage/{storage}/content`: volumes of a storage on a node."""

from __future__ import annotations

import re
from typing import Any, Final

from panal.api.call import Call
from panal.api.node_storage import READ
from panal.api.params import NODE, STORAGE, VMID
from panal.api.permission import Described, denied, perm
from panal.api.table import Param, Routes
from panal.core.errors import BadInput, Failed
from panal.guests.context import TURN_TIMEOUT_S, queue_of
from panal.storage import Volid, Volume
from panal.tasks.model import Task

routes = Routes("storage")

VOLUME: Final = Param(
    "volume", "string", "Volume id, or the part of it after the storage.", required=True, max_length=1024
)
_SIZE: Final = {"": 1024, "M": 1 << 20, "G": 1 << 30}


def may_read(call: Call, volid: Volid) -> bool:
    """Whether the caller may see a volume and use it: the one rule for every route (attack row 13)."""
    path = f"/storage/{volid.storage}"
    if call.has(path, "Datastore.Allocate"):
        return True
    if volid.content in ("iso", "vztmpl", "import"):
        return call.has(path, "Datastore.AllocateSpace", "Datastore.Audit", "Datastore.AllocateTemplate", any_of=True)
    if volid.vmid is None:
        return False
    if volid.content == "backup":
        return call.has(path, "Datastore.AllocateSpace") and call.has(f"/vms/{volid.vmid}", "VM.Backup")
    return call.has(path, "Datastore.Audit", "Datastore.AllocateSpace", any_of=True) and call.has(
        f"/vms/{volid.vmid}", "VM.Config.Disk"
    )


def named(call: Call) -> Volid:
    """The volume of the path; Forbidden, whether it (or its storage) exists or not, for those without any right there."""
    storage, text = call.params["storage"], call.params["volume"]
    if not call.has(
        f"/storage/{storage}", "Datastore.Allocate", "Datastore.AllocateSpace", "Datastore.Audit",
        "Datastore.AllocateTemplate", any_of=True,
    ):  # fmt: skip
        raise denied(f"/storage/{storage}", "Datastore.Audit", "Datastore.AllocateSpace", any_of=True)
    volid = call.services.storages.parse_volid(text if ":" in text else f"{storage}:{text}")
    if volid.storage != storage:
        raise BadInput("volume", f"'{text[:200]}' is not on storage '{storage}'")
    return volid


def require_read(call: Call, volid: Volid) -> None:
    """Raise Forbidden unless `may_read`."""
    if not may_read(call, volid):
        raise denied(f"/storage/{volid.storage}", "Datastore.Allocate")


def _row(storage: str, volume: Volume) -> dict[str, Any]:
    row: dict[str, Any] = {
        "volid": f"{storage}:{volume.name}", "content": volume.content, "format": volume.format, "size": volume.size,
        "used": volume.used, "ctime": volume.ctime,
    }  # fmt: skip
    for key in ("vmid", "parent", "notes"):
        if getattr(volume, key) is not None:
            row[key] = getattr(volume, key)
    if volume.protected:
        row["protected"] = True
    if volume.content == "backup":
        row["subtype"] = volume.name.partition("vzdump-")[2].partition("-")[0]
    return row


@routes.get(
    "/nodes/{node}/storage/{storage}/content",
    "List the content of a storage.",
    permission=READ,
    forward="node",
    params=[
        NODE,
        STORAGE,
        Param("content", "string", "Only this kind of content.", format="pve-storage-content"),
        Param("vmid", "integer", "Only volumes of this guest.", minimum=100, maximum=999_999_999),
    ],
    returns="[{volid:string content:string format:string size:integer used?:integer ctime?:integer vmid?:integer "
    "notes?:string parent?:string protected?:boolean}]",
)
async def list_content(call: Call) -> list[dict[str, Any]]:
    """What the caller may use."""
    storages, storage = call.services.storages, call.params["storage"]
    driver = await storages.usable(storage)
    found = await driver.list(call.params.get("content"), call.params.get("vmid"))
    return [_row(storage, v) for v in found if may_read(call, storages.parse_volid(f"{storage}:{v.name}"))]


def _bytes(text: str) -> int:
    m = re.fullmatch(r"(\d{1,15})([MG]?)", text)
    if m is None:
        raise BadInput("size", "a number of KiB, or with M or G behind it of MiB or GiB")
    return int(m[1]) * _SIZE[m[2]]


@routes.post(
    "/nodes/{node}/storage/{storage}/content",
    "Make a new disk image.",
    permission=perm("/storage/{storage}", "Datastore.AllocateSpace"),
    forward="node",
    params=[
        NODE,
        STORAGE,
        VMID,
        Param("filename", "string", "Name of the image: `vm-100-disk-1.qcow2`.", required=True, max_length=255),
        Param("size", "string", "KiB, or with M or G behind it MiB or GiB.", required=True, pattern=r"\d+[MG]?"),
        Param("format", "string", "Format of the image.", enum=("raw", "qcow2"), requires="size"),
    ],
    returns="string",
)
async def allocate(call: Call) -> str:
    """Its volume id."""
    storage, vmid, filename = call.params["storage"], call.params["vmid"], call.params["filename"]
    driver = await call.services.storages.usable(storage)
    stem, dot, ext = filename.rpartition(".")
    if not dot or ext not in driver.capabilities.formats:
        stem, ext = filename, ""
    fmt = call.params.get("format") or ext or driver.capabilities.default_format
    if ext and fmt != ext:
        raise BadInput("format", f"'{filename[:100]}' does not end in '.{fmt}'")
    if not stem.startswith(f"vm-{vmid}-"):
        raise BadInput("filename", f"the name of an image of guest {vmid} begins with 'vm-{vmid}-'")
    name = driver.image_name(vmid, stem, fmt)
    try:
        driver.parse(name)
    except BadInput as exc:
        raise BadInput("filename", f"'{filename[:100]}' is no name for an image") from exc
    # in the guest's turn: its own operations have planned names that are not taken yet
    queues = call.services.tasks.queues
    async with queues.turn(queue_of(vmid), f"a new volume for VM {vmid}", timeout_s=TURN_TIMEOUT_S):
        await driver.allocate(vmid, name, fmt, _bytes(call.params["size"]))
    return f"{storage}:{name}"


@routes.get(
    "/nodes/{node}/storage/{storage}/content/{volume}",
    "Read the attributes of a volume.",
    permission=Described("The caller may read the volume."),
    forward="node",
    params=[NODE, STORAGE, VOLUME],
    returns="{path:string size:integer used:integer format:string notes?:string protected?:boolean}",
)
async def read_volume(call: Call) -> dict[str, Any]:
    """`path` is for show."""
    volid = named(call)
    require_read(call, volid)
    driver = await call.services.storages.usable(volid.storage)
    volume = await driver.info(volid.name)
    row: dict[str, Any] = {
        "path": driver.location(volid.name), "size": volume.size, "used": volume.used, "format": volume.format,
    }  # fmt: skip
    if volume.notes is not None:
        row["notes"] = volume.notes
    if volume.protected:
        row["protected"] = True
    return row


@routes.put(
    "/nodes/{node}/storage/{storage}/content/{volume}",
    "Change the notes or the protection of a volume.",
    permission=Described("The caller may read the volume; for protection Datastore.Allocate on the storage."),
    forward="node",
    params=[
        NODE,
        STORAGE,
        VOLUME,
        Param("notes", "string", "Notes; empty removes them.", max_length=65536),
        Param("protected", "boolean", "A protected volume is not removed or pruned."),
    ],
    returns="null",
)
async def update_volume(call: Call) -> None:
    """What is not named stays."""
    volid = named(call)
    require_read(call, volid)
    if "protected" in call.params:
        call.require(f"/storage/{volid.storage}", "Datastore.Allocate")
    await call.services.storages.set_attributes(volid, call.params.get("notes"), call.params.get("protected"))


@routes.delete(
    "/nodes/{node}/storage/{storage}/content/{volume}",
    "Remove a volume.",
    permission=Described(
        "Datastore.Allocate on the storage; for a backup Datastore.AllocateSpace there and VM.Backup on the guest will do."
    ),
    forward="node",
    params=[
        NODE,
        STORAGE,
        VOLUME,
        Param("delay", "integer", "Seconds to wait for the end; then the answer is null.", minimum=1, maximum=30),
    ],
    returns="string",
)
async def delete_volume(call: Call) -> str | None:
    """Refused while a guest uses it."""
    volid = named(call)
    if volid.content != "backup" or not may_read(call, volid):
        call.require(f"/storage/{volid.storage}", "Datastore.Allocate")
    storages, tasks = call.services.storages, call.services.tasks
    user = storages.in_use(str(volid))
    if user is not None:
        raise Failed(f"cannot remove volume '{volid}': it is in use by {user}; detach it there first")

    async def body(task: Task) -> None:
        await storages.free_volume(volid)
        task.log(f"Removed volume '{volid}'")

    subject = volid.storage if volid.vmid is None else f"{volid.vmid}@{volid.storage}"
    # in the guest's turn: an operation may have made the volume and be about to name it
    queue = None if volid.vmid is None or volid.content != "images" else queue_of(volid.vmid)
    upid = await tasks.spawn("imgdel", subject, call.rights.userid, body, queue=queue)
    if "delay" in call.params:
        try:
            record = await tasks.wait(upid, call.params["delay"])
        except TimeoutError:
            return upid
        if record.status not in (None, "OK"):
            raise Failed(str(record.status))
        return None
    return upid
