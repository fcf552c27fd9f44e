"""Content from outside (`upload`, `download-url`, `query-url-metadata`) and pruning of backups."""

from __future__ import annotations

import os
from typing import Any, Final

from panal.api.call import Call
from panal.api.node_storage import READ
from panal.api.node_storage_content import may_read
from panal.api.params import NODE, STORAGE
from panal.api.permission import Described, all_of, one_of, perm
from panal.api.table import Param, Routes
from panal.core.errors import BadInput
from panal.storage import parse_prune
from panal.storage.config import PRUNE
from panal.storage.download import download, metadata
from panal.storage.prune import Marked, prune
from panal.storage.upload import ALGORITHMS, Checksum, abort, begin, check_name, finish
from panal.tasks.model import Task

routes = Routes("storage")

_NETWORK: Final = one_of(perm("/", "Sys.Audit", "Sys.Modify"), perm("/nodes/{node}", "Sys.AccessNetwork"))
_TEMPLATE: Final = perm("/storage/{storage}", "Datastore.AllocateTemplate")
# snippets are ours: PVE's API takes none
_CONTENT: Final = Param(
    "content", "string", "Kind of content.", required=True, enum=("import", "iso", "snippets", "vztmpl")
)
_FILENAME: Final = Param(
    "filename", "string", "Name that the content gets; odd characters become `_`.", required=True, max_length=255
)
_CHECKSUM: Final = Param(
    "checksum", "string", "Hash that the content must have.", requires="checksum-algorithm", max_length=128
)
_ALGORITHM: Final = Param(
    "checksum-algorithm", "string", "How the checksum was made.", requires="checksum", enum=tuple(sorted(ALGORITHMS))
)
_URL: Final = Param("url", "string", "Address: http or https.", required=True, pattern=r"https?://.*", max_length=4096)
_VERIFY: Final = Param("verify-certificates", "boolean", "Check the server's certificate.", default=True)


@routes.post(
    "/nodes/{node}/storage/{storage}/upload",
    "Upload an ISO image, a container template, a disk image or a snippet.",
    permission=_TEMPLATE,
    forward="node",
    upload=True,
    params=[
        NODE,
        STORAGE,
        _CONTENT,
        _FILENAME,
        _CHECKSUM,
        _ALGORITHM,
        Param("tmpfilename", "string", "Taken for compatibility and not used.", max_length=255),
    ],
    returns="string",
)
async def upload(call: Call) -> str:
    """The file goes straight to the storage; the task checks and names it."""
    storage = call.params["storage"]
    place = await begin(call.services.storages, storage, call.params.get("content", "iso"))
    try:
        await call.receive(place.fd)
        size = os.fstat(place.fd).st_size
        content, filename = call.params["content"], call.params["filename"]
        checksum = Checksum.of(call.params.get("checksum-algorithm"), call.params.get("checksum"))
        check_name(place.driver, content, filename)

        async def body(task: Task) -> None:
            task.log(f"{size} bytes received" + (f", checking {checksum.algorithm}" if checksum else ""))
            task.log(f"finished file import: {await finish(place, content, filename, checksum)}")

        return await call.services.tasks.spawn("imgcopy", storage, call.rights.userid, body)
    except BaseException:
        await abort(place)
        raise


@routes.post(
    "/nodes/{node}/storage/{storage}/download-url",
    "Fetch content from a URL. The node opens the connection: whoever may do this reaches what the node reaches.",
    permission=all_of(_TEMPLATE, _NETWORK),
    forward="node",
    params=[
        NODE, STORAGE, _CONTENT, _FILENAME, _URL, _CHECKSUM, _ALGORITHM, _VERIFY,
        Param("compression", "string", "Decompression while fetching; not available yet.", max_length=16),
    ],
    returns="string",
)  # fmt: skip
async def download_url(call: Call) -> str:
    """The task."""
    storages, params = call.services.storages, call.params
    if params.get("compression"):
        raise BadInput("compression", "decompression is not available yet; give the address of the plain file")
    checksum = Checksum.of(params.get("checksum-algorithm"), params.get("checksum"))
    name = check_name(storages.driver(params["storage"]), params["content"], params["filename"])

    async def body(task: Task) -> None:
        volid = await download(
            storages, params["storage"], params["content"], params["filename"], params["url"], checksum=checksum,
            verify=params.get("verify-certificates", True), log=task.log,
        )  # fmt: skip
        task.log(f"download of '{params['url']}' to '{volid}' finished")

    return await call.services.tasks.spawn("download", name.rpartition("/")[2], call.rights.userid, body)


@routes.get(
    "/nodes/{node}/query-url-metadata",
    "Ask a web server for the size, type and name of what a URL stands for.",
    permission=_NETWORK,
    forward="node",
    params=[NODE, _URL, _VERIFY],
    returns="{filename?:string mimetype?:string size?:integer}",
)
async def query_url(call: Call) -> dict[str, str | int]:
    """As far as the server says."""
    return await metadata(call.params["url"], call.params.get("verify-certificates", True))


_PRUNE: Final = (
    NODE,
    STORAGE,
    Param("prune-backups", "string", "Keep these instead of what the storage says.", format=PRUNE),
    Param("type", "string", "Only backups of this type of guest.", enum=("lxc", "qemu")),
    Param("vmid", "integer", "Only backups of this guest.", minimum=100, maximum=999_999_999),
)


async def _marked(call: Call) -> list[Marked]:
    storages, storage = call.services.storages, call.params["storage"]
    configured = storages.config(storage).options.get("prune-backups", "keep-all=1")
    keep = parse_prune(str(call.params.get("prune-backups") or configured))
    driver = await storages.usable(storage)
    backups = await driver.list("backup", call.params.get("vmid"))
    seen = [v for v in backups if may_read(call, storages.parse_volid(f"{storage}:{v.name}"))]
    return [m for m in prune(seen, keep) if call.params.get("type", m.type) == m.type]


@routes.get(
    "/nodes/{node}/storage/{storage}/prunebackups",
    "Say which backups pruning would keep and remove.",
    permission=READ,
    forward="node",
    params=_PRUNE,
    returns="[{volid:string type:string ctime:integer mark:string=keep|remove|protected|renamed vmid?:integer}]",
)
async def dry_run(call: Call) -> list[dict[str, Any]]:
    """Removes nothing."""
    rows = []
    for m in await _marked(call):
        row = {"volid": f"{call.params['storage']}:{m.volume.name}", "type": m.type, "ctime": m.ctime, "mark": m.mark}
        rows.append(row if m.volume.vmid is None else {**row, "vmid": m.volume.vmid})
    return rows


@routes.delete(
    "/nodes/{node}/storage/{storage}/prunebackups",
    "Remove the backups that need not be kept.",
    permission=Described(
        "Datastore.Allocate on the storage, or Datastore.AllocateSpace there and VM.Backup on the guest given as vmid."
    ),
    forward="node",
    params=_PRUNE,
    returns="string",
)
async def prune_backups(call: Call) -> str:
    """Protected ones stay."""
    path = f"/storage/{call.params['storage']}"
    if "vmid" in call.params and call.has(path, "Datastore.AllocateSpace"):
        call.require(f"/vms/{call.params['vmid']}", "VM.Backup")
    else:
        call.require(path, "Datastore.Allocate")
    marked = await _marked(call)
    storages, storage = call.services.storages, call.params["storage"]

    async def body(task: Task) -> None:
        for m in marked:
            task.log(f"{m.mark:9} {storage}:{m.volume.name}")
            if m.mark == "remove":
                await storages.free_volume(storages.parse_volid(f"{storage}:{m.volume.name}"))

    return await call.services.tasks.spawn("prunebackups", storage, call.rights.userid, body)
