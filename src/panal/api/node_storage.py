"""`/nodes/{node}/storage`: storages as seen from a node."""

from __future__ import annotations

from typing import Any, Final

from panal.api.call import Call
from panal.api.params import NODE, STORAGE
from panal.api.permission import AnyUser, perm
from panal.api.table import Param, Routes
from panal.core.formats import split_list
from panal.storage import Status, Storages

routes = Routes("storage")

READ: Final = perm("/storage/{storage}", "Datastore.Audit", "Datastore.AllocateSpace", any_of=True)
_STATUS: Final = (
    "active?:boolean enabled?:boolean shared?:boolean total?:integer used?:integer avail?:integer "
    "content:string type:string"
)
_BELOW: Final = ("content", "download-url", "prunebackups", "status", "upload")


def _shown(status: Status) -> dict[str, Any]:
    config = status.config
    return {
        "type": config.type, "content": str(config.options.get("content", "")), "shared": config.shared,
        "enabled": status.enabled, "active": status.active, "total": status.total, "used": status.used,
        "avail": status.available,
    }  # fmt: skip


def _formats(storages: Storages, status: Status) -> dict[str, Any]:
    try:
        found = storages.driver(status.config.id).capabilities
    except Exception:  # a storage that cannot be used has no formats to offer
        return {}
    return {"formats": {"supported": list(found.formats), "default": found.default_format}, "select_existing": False}


@routes.get(
    "/nodes/{node}/storage",
    "List the storages of a node with their state and space.",
    permission=AnyUser("Those where the caller has Datastore.Audit or Datastore.AllocateSpace."),
    forward="node",
    params=[
        NODE,
        Param("content", "string", "Only storages that may hold one of these.", format="pve-storage-content-list"),
        Param("enabled", "boolean", "Only enabled storages.", default=False),
        Param("format", "boolean", "Say which image formats there are, too.", default=False),
        Param("storage", "string", "Only this storage.", format="pve-storage-id"),
        Param("target", "string", "Only storages that this node has, too.", format="pve-node"),
    ],
    returns=f"[{{storage:string {_STATUS} used_fraction?:number}}]",
)
async def list_node_storages(call: Call) -> list[dict[str, Any]]:
    """A storage that does not answer is shown inactive."""
    wanted = set(split_list(call.params.get("content", "")))
    target = call.params.get("target")
    rows = []
    for status in await call.services.storages.statuses():
        config = status.config
        if not call.has(f"/storage/{config.id}", "Datastore.Audit", "Datastore.AllocateSpace", any_of=True):
            continue
        if (wanted and not wanted & config.contents) or call.params.get("storage", config.id) != config.id:
            continue
        if call.params.get("enabled") and not status.enabled:
            continue
        if target is not None and not config.used_on(target):
            continue
        row = {"storage": config.id, **_shown(status)}
        if status.total:
            row["used_fraction"] = status.used / status.total
        if call.params.get("format"):
            row |= _formats(call.services.storages, status)
        rows.append(row)
    return rows


@routes.get(
    "/nodes/{node}/storage/{storage}",
    "What stands below this path.",
    permission=READ,
    forward="node",
    params=[NODE, STORAGE],
    returns="[{subdir:string}]",
)
async def index_node_storage(call: Call) -> list[dict[str, str]]:
    """Names."""
    return [{"subdir": name} for name in _BELOW]


@routes.get(
    "/nodes/{node}/storage/{storage}/status",
    "Read the state and space of a storage.",
    permission=READ,
    forward="node",
    params=[NODE, STORAGE],
    returns=f"{{{_STATUS}}}",
)
async def read_status(call: Call) -> dict[str, Any]:
    """Figures are a few seconds old at most."""
    return _shown(await call.services.storages.status(call.params["storage"]))
