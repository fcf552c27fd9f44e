"""`/nodes`: the nodes there are."""

from __future__ import annotations

from typing import Any

from panal.api.call import Call
from panal.api.params import NODE
from panal.api.permission import AnyUser
from panal.api.services import Services
from panal.api.table import Routes
from panal.node import status

routes = Routes("node")


def node_row(services: Services, detailed: bool) -> dict[str, Any]:
    """This node as lists show it; its figures only to those who may see them."""
    out: dict[str, Any] = {"id": f"node/{services.node}", "node": services.node, "type": "node", "status": "online"}
    if not detailed:
        return out
    sample = services.sampler.latest.get("node", {}).get(services.node)
    if sample is None:  # nobody has measured yet
        sample = status.sample(services.nodeinfo)
    return out | {
        "cpu": round(sample["cpu"], 6),
        "maxcpu": int(sample["maxcpu"]),
        "mem": int(sample["memused"]),
        "maxmem": int(sample["memtotal"]),
        "disk": int(sample["rootused"]),
        "maxdisk": int(sample["roottotal"]),
        "uptime": int(sample["uptime"]),
        "level": "",
    }


@routes.get(
    "/nodes",
    "All nodes of the installation.",
    permission=AnyUser("Figures only with Sys.Audit on /nodes/NODE."),
    returns="[{cpu?:number level?:string maxcpu?:integer maxmem?:integer mem?:integer node:string ssl_fingerprint?:string "
    "status:string=unknown|online|offline uptime?:integer}]",
)
async def list_nodes(call: Call) -> list[dict[str, Any]]:
    """One row a node."""
    services = call.services
    return [node_row(services, call.has(f"/nodes/{services.node}", "Sys.Audit"))]


@routes.get(
    "/nodes/{node}/version",
    "Version of the API contract that a node keeps, and of Panal.",
    permission=AnyUser(),
    forward="node",
    params=[NODE],
    returns="{release:string repoid:string version:string}",
)
async def node_version(call: Call) -> dict[str, str]:
    """As /version."""
    from panal.api.version import read_version

    return await read_version(call)
