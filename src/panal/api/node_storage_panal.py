"""`/nodes/{node}/storage/{storage}/panal/…`: what the contract of Proxmox VE has no method for."""

from __future__ import annotations

from panal.api.call import Call
from panal.api.node_storage_content import may_read
from panal.api.params import NODE, STORAGE, VMID
from panal.api.permission import denied, perm
from panal.api.table import Param, Routes
from panal.core.errors import BadInput
from panal.tasks.model import Task

routes = Routes("storage")


@routes.post(
    "/nodes/{node}/storage/{storage}/panal/volume",
    "Make a disk image of a guest out of an image that was uploaded with content type `import`.",
    permission=perm("/storage/{storage}", "Datastore.AllocateSpace"),
    forward="node",
    params=[
        NODE,
        STORAGE,
        VMID,
        Param("filename", "string", "Name of the new image: `vm-100-disk-0.qcow2`.", required=True, max_length=255),
        Param("source", "string", "Volume id of the uploaded image.", required=True, max_length=1024),
    ],
    returns="string",
)
async def make_volume(call: Call) -> str:
    """A task: the image is copied (its header has been read in the jail, and is again), never taken as it is."""
    storage, vmid, filename = call.params["storage"], call.params["vmid"], call.params["filename"]
    call.require(f"/vms/{vmid}", "VM.Config.Disk")
    storages = call.services.storages
    source = storages.parse_volid(call.params["source"], "source")
    if not may_read(call, source):
        raise denied(f"/storage/{source.storage}", "Datastore.AllocateSpace")
    if source.content != "import":
        raise BadInput(
            "source", "an image uploaded with content type 'import' is wanted; clone a guest to copy its disks"
        )
    driver, origin = await storages.usable(storage), await storages.usable(source.storage)
    stem, _, fmt = filename.rpartition(".")
    if fmt not in driver.capabilities.formats or not stem.startswith(f"vm-{vmid}-"):
        formats = ", ".join(driver.capabilities.formats)
        raise BadInput("filename", f"begins with 'vm-{vmid}-' and ends in a format of this storage: {formats}")
    name = driver.image_name(vmid, stem, fmt)
    driver.parse(name)
    await origin.info(source.name)

    async def body(task: Task) -> None:
        await origin.copy(source.name, driver, name, fmt)
        task.log(f"made '{storage}:{name}' of '{source}'")

    return await call.services.tasks.spawn("imgcopy", f"{vmid}@{storage}", call.rights.userid, body)
