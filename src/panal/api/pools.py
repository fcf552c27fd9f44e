"""/pools: named sets of guests and storages. PVE has two spellings of each call: the pool's name in the path cannot hold a
slash there, so nested pools need the ones with `poolid` as a parameter."""

from __future__ import annotations

from typing import Any

from panal import access
from panal.access import pools
from panal.access.model import Pool
from panal.api.call import Call
from panal.api.params import COMMENT
from panal.api.permission import AnyUser, PermModify, perm
from panal.api.table import Param, Routes
from panal.core.errors import BadInput
from panal.core.formats import split_list

routes = Routes("pools")
_POOLID = Param("poolid", "string", "Name of the pool, up to three levels: a/b/c.", required=True, format="pve-poolid")
_ALLOCATE = perm("/pool/{poolid}", "Pool.Allocate")
_TYPE = Param("type", "string", "Only members of this type.", enum=("qemu", "lxc", "storage"))
_MEMBER = "[{id:string node:string storage?:string type:string=qemu|lxc|openvz|storage vmid?:integer}]"
_CHANGES = [
    COMMENT,
    Param("vms", "string", "Guests to add, or to take out.", format="pve-vmid-list"),
    Param("storage", "string", "Storages to add, or to take out.", format="pve-storage-id-list"),
    Param("allow-move", "boolean", "Take guests out of the pool they are in.", default=False),
    Param("delete", "boolean", "Take the given guests and storages out of the pool.", default=False),
]


def _members(call: Call, pool: Pool) -> list[dict[str, Any]]:
    store, only = call.services.store, call.params.get("type")
    rows: list[dict[str, Any]] = []
    for vmid in pool.vms:
        value = store.value(f"guest/{vmid}/config")
        if value is None:
            continue
        kind, config = value.get("type", "qemu"), value.get("config", {})
        row = {"id": f"{kind}/{vmid}", "vmid": vmid, "type": kind, "node": value.get("node", "")}
        row["template"] = config.get("template") == "1"
        row["name"] = config.get("name") or config.get("hostname") or f"VM {vmid}"
        rows.append(row)
    for storage in pool.storages:
        node = call.services.node
        rows.append({"id": f"storage/{node}/{storage}", "storage": storage, "type": "storage", "node": node})
    return [row for row in rows if only in (None, row["type"])]


def _whole(call: Call, pool: Pool) -> dict[str, Any]:
    row: dict[str, Any] = {"members": _members(call, pool)}
    return {**row, "comment": pool.comment} if pool.comment else row


@routes.get(
    "/pools",
    "Pools the caller may see; with `poolid` one of them with its members.",
    permission=AnyUser("Shows pools with Pool.Audit on /pool/POOL."),
    params=[
        Param("poolid", "string", "Only this pool, with members.", format="pve-poolid"),
        Param("type", "string", "Only members of this type.", enum=("qemu", "lxc", "storage"), requires="poolid"),
    ],
    returns="[{comment?:string members?:" + _MEMBER + " poolid:string}]",
)
async def list_pools(call: Call) -> list[dict[str, Any]]:
    wanted = call.params.get("poolid")
    if wanted is not None:
        call.require(f"/pool/{wanted}", "Pool.Audit")
        return [{"poolid": wanted, **_whole(call, pools.find(call.services.access, wanted))}]
    rows = []
    for name, pool in sorted(call.services.access.policy.pools.items()):
        if call.has(f"/pool/{name}", "Pool.Audit"):
            rows.append({"poolid": name, "comment": pool.comment} if pool.comment else {"poolid": name})
    return rows


@routes.post("/pools", "Create a pool.", permission=_ALLOCATE, params=[_POOLID, COMMENT], returns="null")
async def create_pool(call: Call) -> None:
    await access.create_pool(call.services.access, call.params["poolid"], call.params.get("comment", ""))


async def _update(call: Call) -> None:
    p = call.params
    vms = [int(vmid) for vmid in split_list(p.get("vms", ""))]
    storages = split_list(p.get("storage", ""))
    # who puts a guest into a pool gives all the pool's people rights on it: as much as granting them
    for path in (*(f"/vms/{vmid}" for vmid in vms), *(f"/storage/{storage}" for storage in storages)):
        call.require_form(PermModify(), {"path": path})
    if not p.get("delete"):
        for vmid in vms:
            if call.services.store.get(f"guest/{vmid}/config") is None:
                raise BadInput("vms", f"VM {vmid} does not exist")
        for storage in storages:
            if call.services.store.get(f"storage/{storage}") is None:
                raise BadInput("storage", f"storage '{storage}' does not exist")
    await access.update_pool(
        call.services.access, p["poolid"], comment=p.get("comment"), vms=vms, storages=storages,
        delete=p.get("delete", False), allow_move=p.get("allow-move", False),
        check_move=lambda pool: call.require(f"/pool/{pool}", "Pool.Allocate"),
    )  # fmt: skip


@routes.put(
    "/pools", "Change a pool and its members.", permission=_ALLOCATE, params=[_POOLID, *_CHANGES], returns="null"
)
async def update_pool(call: Call) -> None:
    await _update(call)


@routes.delete("/pools", "Delete an empty pool.", permission=_ALLOCATE, params=[_POOLID], returns="null")
async def delete_pool(call: Call) -> None:
    await access.delete_pool(call.services.access, call.params["poolid"])


@routes.get(
    "/pools/{poolid}",
    "One pool and its members.",
    permission=perm("/pool/{poolid}", "Pool.Audit"),
    params=[_POOLID, _TYPE],
    returns="{comment?:string members:" + _MEMBER + "}",
)
async def read_pool(call: Call) -> dict[str, Any]:
    return _whole(call, pools.find(call.services.access, call.params["poolid"]))


@routes.put(
    "/pools/{poolid}",
    "Change a pool and its members (older spelling, not for nested pools).",
    permission=_ALLOCATE,
    params=[_POOLID, *_CHANGES],
    returns="null",
)
async def update_pool_by_path(call: Call) -> None:
    await _update(call)


@routes.delete(
    "/pools/{poolid}",
    "Delete an empty pool (older spelling, not for nested pools).",
    permission=_ALLOCATE,
    params=[_POOLID],
    returns="null",
)
async def delete_pool_by_path(call: Call) -> None:
    await access.delete_pool(call.services.access, call.params["poolid"])
