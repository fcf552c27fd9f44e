"""`/storage`: the configuration of storages."""

from __future__ import annotations

from typing import Any, Final

from panal import storage
from panal.access import forget_storage
from panal.api.call import Call
from panal.api.params import DIGEST, STORAGE
from panal.api.permission import AnyUser, perm
from panal.api.table import Param, Routes
from panal.core.formats import split_list
from panal.storage.config import BWLIMIT, PRUNE

routes = Routes("storage")

_MANAGE: Final = perm("/storage", "Datastore.Allocate")
_CHANGED: Final = "{storage:string type:string config?:{}}"

_OPTIONS: Final = (
    Param("content", "string", "Kinds of content it may hold.", format="pve-storage-content-list"),
    Param("content-dirs", "string", "Other directories for content: `iso=my/iso`.", format="pve-dir-override-list"),
    Param("nodes", "string", "Nodes that use it; all when left out.", format="pve-node-list"),
    Param("disable", "boolean", "Do not use it."),
    Param("shared", "boolean", "The path shows the same content on all nodes. This does not make it so."),
    Param("bwlimit", "string", "Limits in KiB/s for kinds of work.", format=BWLIMIT),
    Param("prune-backups", "string", "How many backups of a guest to keep.", format=PRUNE),
    Param("max-protected-backups", "integer", "Protected backups a guest may have; -1 is no limit.", minimum=-1),
    Param("format", "string", "Format of new images.", enum=("raw", "qcow2")),
    Param(
        "preallocation", "string", "How much of a new image is written at once.", default="metadata",
        enum=("off", "metadata", "falloc", "full"),
    ),
    Param("mkdir", "boolean", "Create the directory and its sub-directories. Older name of the next two.", default=True),
    Param("create-base-path", "boolean", "Create the directory when it is missing.", default=True),
    Param("create-subdirs", "boolean", "Create the sub-directories for each kind of content.", default=True),
    Param(
        "is_mountpoint", "string", "Use it only while its path (yes), or the path given here, is a mount point.", default="no",
        max_length=4096,
    ),
    Param("snapshot-as-volume-chain", "boolean", "Keep snapshots as a chain of volumes; not available yet.", default=False),
)  # fmt: skip


def shown(config: storage.StorageConfig) -> dict[str, Any]:
    """A configuration as the API shows it."""
    return {"storage": config.id, "type": config.type, "digest": config.digest, **config.options}


def _changed(config: storage.StorageConfig) -> dict[str, str]:
    return {"storage": config.id, "type": config.type}


@routes.get(
    "/storage",
    "List configured storages.",
    permission=AnyUser("Those where the caller has Datastore.Audit or Datastore.AllocateSpace."),
    params=[Param("type", "string", "Only storages of this type.", max_length=64)],
    returns="[{storage:string type:string digest:string content?:string path?:string shared?:boolean}]",
)
async def list_storages(call: Call) -> list[dict[str, Any]]:
    """Sorted by id."""
    return [
        shown(config)
        for config in call.services.storages.configs()
        if call.params.get("type", config.type) == config.type
        and call.has(f"/storage/{config.id}", "Datastore.Audit", "Datastore.AllocateSpace", any_of=True)
    ]


@routes.post(
    "/storage",
    "Add a storage.",
    permission=_MANAGE,
    params=[
        STORAGE,
        Param("type", "string", "Kind of back end.", required=True, enum=tuple(sorted(storage.TYPES))),
        Param("path", "string", "Directory that holds the content.", format="pve-storage-path", max_length=4096),
        *_OPTIONS,
    ],
    returns=_CHANGED,
)
async def create_storage(call: Call) -> dict[str, str]:
    """Nothing is created on disk before it is used."""
    options = {key: value for key, value in call.params.items() if key not in ("storage", "type")}
    return _changed(await storage.create(call.services.storages, call.params["storage"], call.params["type"], options))


@routes.get(
    "/storage/{storage}",
    "Read the configuration of a storage.",
    permission=perm("/storage/{storage}", "Datastore.Allocate"),
    params=[STORAGE],
    returns="{storage:string type:string digest:string}",
)
async def read_storage(call: Call) -> dict[str, Any]:
    """With its digest."""
    return shown(call.services.storages.config(call.params["storage"]))


@routes.put(
    "/storage/{storage}",
    "Change the configuration of a storage.",
    permission=_MANAGE,
    params=[
        STORAGE,
        DIGEST,
        Param("delete", "string", "Options to remove.", format="pve-configid-list", max_length=4096),
        *_OPTIONS,
    ],
    returns=_CHANGED,
)
async def update_storage(call: Call) -> dict[str, str]:
    """By key: what is not named stays."""
    options = {key: value for key, value in call.params.items() if key not in ("storage", "digest", "delete")}
    delete = split_list(call.params.get("delete", ""))
    config = await storage.update(
        call.services.storages, call.params["storage"], options, delete, call.params.get("digest")
    )
    return _changed(config)


@routes.delete(
    "/storage/{storage}",
    "Remove a storage from the configuration; its content stays where it is.",
    permission=_MANAGE,
    params=[STORAGE],
    returns="null",
)
async def delete_storage(call: Call) -> None:
    """Refused while a guest has a disk there."""
    await storage.remove(call.services.storages, call.params["storage"])
    await forget_storage(call.services.access, call.params["storage"])
