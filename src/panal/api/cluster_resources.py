"""`/cluster/resources`: everything there is, in one list; what dashboards and exporters ask for every few seconds."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Final

import msgspec

from panal.api.call import Call, Encoded
from panal.api.nodes import node_row
from panal.api.permission import AnyUser
from panal.api.table import Param, Routes

routes = Routes("cluster")

# live state begins anew with the daemon, and its counters with it: no answer of an earlier run is the same as one of this
_RUN: Final = os.urandom(6).hex()
_encode = msgspec.json.Encoder().encode
Row = dict[str, Any]


@routes.get(
    "/cluster/resources",
    "Nodes, guests, storages and pools, as far as the caller may see them.",
    permission=AnyUser(
        "Rows the caller may audit: Sys.Audit for a node's figures, VM.Audit, Datastore.Audit or AllocateSpace, Pool.Audit."
    ),
    params=[Param("type", "string", "Only rows of this kind.", enum=("vm", "storage", "node", "sdn"))],
    returns="[{cgroup-mode?:integer content?:string cpu?:number disk?:integer diskread?:integer diskwrite?:integer "
    "hastate?:string id:string level?:string lock?:string maxcpu?:number maxdisk?:integer maxmem?:integer mem?:integer "
    "memhost?:integer name?:string netin?:integer netout?:integer node?:string plugintype?:string pool?:string "
    "shared?:boolean status?:string storage?:string tags?:string template?:boolean "
    "type:string=node|storage|pool|qemu|lxc|openvz|sdn|network uptime?:integer vmid?:integer}]",
)
async def resources(call: Call) -> Encoded:
    """JSON text, made once for every state; unchanged since the client's ETag costs nothing."""
    kind = call.params.get("type")
    call.not_modified(_version(call, kind))
    services = call.services
    parts: list[bytes] = []
    if kind in (None, "vm"):
        parts.append(await services.rows.guests(services, None if call.rights.is_root else call))
    others: list[Row] = []
    if kind in (None, "node"):
        others.append(node_row(services, call.has(f"/nodes/{services.node}", "Sys.Audit")))
    if kind in (None, "storage"):
        others += _storages(call)
    if kind is None:
        others += _pools(call)
    if others:
        parts.append(_encode(others)[1:-1])
    return Encoded(b"[" + b",".join(part for part in parts if part) + b"]")


def _version(call: Call, kind: str | None) -> str:
    """Names what the answer is made of: any change of it changes this."""
    s = call.services
    facts = (
        _RUN, call.rights.userid, kind, s.store.revision, s.guests.live.version, s.sampler.version,
        sorted(s.guests.locks.items()),
    )  # fmt: skip
    return hashlib.blake2b(repr(facts).encode(), digest_size=12).hexdigest()


def _storages(call: Call) -> list[Row]:
    s = call.services
    usage = s.sampler.latest.get("storage", {})
    rows: list[Row] = []
    for config in s.storages.configs():
        path = f"/storage/{config.id}"
        if not config.used_on(s.node) or not call.has(path, "Datastore.Audit", "Datastore.AllocateSpace", any_of=True):
            continue
        figures = usage.get(config.id)
        rows.append(
            {
                "id": f"storage/{s.node}/{config.id}",
                "type": "storage",
                "storage": config.id,
                "node": s.node,
                "plugintype": config.type,
                "content": ",".join(sorted(config.contents)),
                "shared": int(bool(config.options.get("shared", False))),
                "status": "unknown" if figures is None else "available",
                "disk": int(figures["used"]) if figures else 0,
                "maxdisk": int(figures["total"]) if figures else 0,
            }
        )
    return rows


def _pools(call: Call) -> list[Row]:
    pools = call.services.access.policy.pools
    return [
        {"id": f"pool/{name}", "type": "pool", "pool": name}
        for name in sorted(pools)
        if call.has(f"/pool/{name}", "Pool.Audit")
    ]
