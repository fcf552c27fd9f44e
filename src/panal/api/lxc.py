"""Containers: none in this version. Tools that look at all guests ask for them, and the truthful answer is an empty list."""

from __future__ import annotations

from typing import Any

from panal.api.call import Call
from panal.api.params import NODE
from panal.api.permission import AnyUser
from panal.api.table import Routes

routes = Routes("container")


@routes.get(
    "/nodes/{node}/lxc",
    "List the containers of a node; this version has none.",
    permission=AnyUser("Only containers on which the caller has VM.Audit."),
    forward="node",
    params=[NODE],
    returns="[{cpu?:number cpus?:number disk?:integer diskread?:integer diskwrite?:integer lock?:string maxdisk?:integer "
    "maxmem?:integer maxswap?:integer mem?:integer name?:string netin?:integer netout?:integer pressurecpusome?:number "
    "pressureiofull?:number pressureiosome?:number pressurememoryfull?:number pressurememorysome?:number "
    "status:string=stopped|running tags?:string template?:boolean uptime?:integer vmid:integer}]",
)
async def containers(call: Call) -> list[Any]:
    """None."""
    return []
