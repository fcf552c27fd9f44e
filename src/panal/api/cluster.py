"""`/cluster`: status, tasks and log of the whole installation."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from panal.api.call import Call
from panal.api.node_tasks import ROWS, mine, row
from panal.api.permission import AnyUser, perm
from panal.api.table import Param, Routes
from panal.tasks.index import Filter

routes = Routes("cluster")

TASKS_SHOWN: Final = 50
RUNNING_SHOWN: Final = 500
LOG_DEFAULT: Final = 50
LOG_MAX: Final = 5_000


@routes.get(
    "/cluster/status",
    "The nodes of the installation and whether they answer.",
    permission=perm("/", "Sys.Audit"),
    returns="[{id:string ip?:string level?:string local?:boolean name:string nodeid?:integer nodes?:integer online?:boolean "
    "quorate?:boolean type:string=cluster|node version?:integer}]",
)
async def cluster_status(call: Call) -> Sequence[dict[str, Any]]:
    """A node that is in no cluster has a row of its own and no cluster's row, as in PVE."""
    node = call.services.node
    out: dict[str, Any] = {
        "id": f"node/{node}", "name": node, "type": "node", "nodeid": 0, "local": 1, "online": 1, "level": "",
    }  # fmt: skip
    for interface in await call.services.network.list():
        address = interface.get("address") or interface.get("address6")
        if interface.get("active") and address and not ipaddress.ip_address(address).is_loopback:
            out["ip"] = address
            break
    return [out]


@routes.get(
    "/cluster/tasks",
    "Running and newest tasks of all nodes.",
    permission=AnyUser("The caller's own tasks; all with Sys.Audit on /."),
    returns=ROWS,
)
async def cluster_tasks(call: Call) -> Sequence[dict[str, Any]]:
    """Newest first."""
    base = Filter() if call.has("/", "Sys.Audit") else mine(call)
    running, _ = await call.services.tasks.list(replace(base, running=True), limit=RUNNING_SHOWN)
    ended, _ = await call.services.tasks.list(replace(base, running=False), limit=TASKS_SHOWN)
    rows = sorted((*running, *ended), key=lambda r: r.started, reverse=True)
    # clients sort and compare `saved`: whether it is in the archive already
    return [row(r) | {"saved": "0" if r.running else "1"} for r in rows]


@routes.get(
    "/cluster/log",
    "What happened lately.",
    permission=AnyUser("The caller's own entries; all with Sys.Syslog on /."),
    params=[Param("max", "integer", "How many entries at most.", default=LOG_DEFAULT, minimum=1)],
    returns="[{}]",
)
async def cluster_log(call: Call) -> Sequence[dict[str, Any]]:
    """Begins and ends of tasks, newest first."""
    count = min(call.params.get("max", LOG_DEFAULT), LOG_MAX)
    base = Filter() if call.has("/", "Sys.Syslog") else mine(call)
    records, _ = await call.services.tasks.list(base, limit=count)
    entries: list[tuple[float, dict[str, Any]]] = []
    for record in records:
        u = record.upid
        common = {"node": u.node, "user": u.user, "tag": "pvedaemon", "pid": u.pid}
        begin = {"time": int(record.started), "msg": f"starting task {u}", "pri": 6}
        entries.append((record.started, common | begin))
        if record.ended is not None:
            failed = record.status != "OK" and not str(record.status).startswith("WARNINGS: ")
            end = {"time": int(record.ended), "msg": f"end task {u} {record.status}", "pri": 3 if failed else 6}
            entries.append((record.ended, common | end))
    entries.sort(key=lambda e: e[0], reverse=True)
    return [{"uid": count - n, "id": f"{n}:{e['node']}", **e} for n, (_, e) in enumerate(entries[:count])]
