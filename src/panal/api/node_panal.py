"""What Panal adds to a node beside the contract of Proxmox VE."""

from __future__ import annotations

from panal.api.call import Call
from panal.api.params import NODE
from panal.api.permission import perm
from panal.api.table import Routes
from panal.tasks.model import Task

routes = Routes("node")


@routes.post(
    "/nodes/{node}/panal/noop",
    "Run a task that does nothing: shows that tasks work on this node, and what one costs.",
    permission=perm("/nodes/{node}", "Sys.Modify"),
    forward="node",
    params=[NODE],
    returns="string",
)
async def noop(call: Call) -> str:
    """Begin and end a task."""

    async def body(task: Task) -> None:
        task.log("nothing to do")

    return await call.services.tasks.spawn("noop", "", call.rights.userid, body)
