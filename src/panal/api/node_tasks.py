"""`/nodes/{node}/tasks`: what runs and what ran.

Everybody sees his own tasks (and those of his tokens); the rest takes Sys.Audit on the node. Whoever may not see a task cannot
tell it from one that never was (attack row 20).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from panal.api.call import Call
from panal.api.params import NODE, UPID
from panal.api.permission import AnyUser, Described
from panal.api.table import Param, Routes
from panal.core.errors import NotFound
from panal.core.formats import split_list
from panal.tasks.index import Filter
from panal.tasks.model import TaskRecord, Upid

routes = Routes("task")

OWN = "The caller's own tasks; Sys.Audit on /nodes/{node} for those of others."
_FIELDS = "id:string node:string pid:integer pstart:integer starttime:integer type:string upid:string user:string"
ROWS = f"[{{endtime?:integer status?:string {_FIELDS}}}]"


def is_own(call: Call, user: str) -> bool:
    """Whether the caller began it: himself, or one of his tokens. A token sees its own only."""
    return user == call.rights.userid or user.startswith(call.rights.userid + "!")


def mine(call: Call) -> Filter:
    """The filter for tasks the caller sees without any right."""
    return Filter(owner=call.rights.userid)


def row(record: TaskRecord) -> dict[str, Any]:
    """A row of a list."""
    u = record.upid
    out: dict[str, Any] = {
        "upid": str(u), "node": u.node, "pid": u.pid, "pstart": u.pstart, "starttime": u.starttime, "type": u.type,
        "id": u.id, "user": u.user,
    }  # fmt: skip
    if record.ended is not None:
        out["endtime"] = int(record.ended)
        out["status"] = record.status
    return out


async def find(call: Call, priv: str = "Sys.Audit") -> TaskRecord:
    """The task that `upid` names, if the caller may (with `priv`, when it is not his own)."""
    upid: str = call.params["upid"]
    parsed = Upid.parse(upid)
    try:
        record = await call.services.tasks.get(upid)
    except NotFound:
        call.require(f"/nodes/{parsed.node}", priv)
        raise
    if not is_own(call, record.upid.user):
        call.require(f"/nodes/{parsed.node}", priv)
    return record


@routes.get(
    "/nodes/{node}/tasks",
    "Tasks of a node, newest first.",
    permission=AnyUser(OWN),
    forward="node",
    params=[
        NODE,
        Param("errors", "boolean", "Only tasks that failed.", default=0),
        Param("limit", "integer", "How many at most.", default=50, minimum=0, maximum=10_000),
        Param("since", "integer", "Only those that began at this second or later."),
        Param(
            "source",
            "string",
            "Ended ones, running ones, or both.",
            default="archive",
            enum=("archive", "active", "all"),
        ),
        Param("start", "integer", "How many of the newest to leave out.", default=0, minimum=0),
        Param("statusfilter", "string", "Only those that ended like this.", format="pve-task-status-type-list"),
        Param("typefilter", "string", "Only tasks of this type.", max_length=64),
        Param("until", "integer", "Only those that began at this second or before."),
        Param("userfilter", "string", "Only those of users whose name holds this.", max_length=128),
        Param("vmid", "integer", "Only those on this guest.", format="pve-vmid", minimum=100, maximum=999_999_999),
    ],
    returns=ROWS,
)
async def list_tasks(call: Call) -> Sequence[dict[str, Any]]:
    """Rows, and their total number."""
    p = call.params
    statuses = frozenset(split_list(p["statusfilter"])) if "statusfilter" in p else None
    if p.get("errors"):
        statuses = frozenset({"error"}) if statuses is None else statuses & {"error"}
    see_all = call.has(f"/nodes/{p['node']}", "Sys.Audit")
    vmid = p.get("vmid")
    want = Filter(
        running={"archive": False, "active": True, "all": None}[p.get("source", "archive")],
        id=None if vmid is None else str(vmid),
        owner=None if see_all else mine(call).owner,
        user_part=p.get("userfilter"),
        type=p.get("typefilter"),
        since=p.get("since"),
        until=p.get("until"),
        statuses=statuses,
    )
    records, call.extras["total"] = await call.services.tasks.list(want, p.get("start", 0), p.get("limit", 50))
    return [row(r) for r in records]


@routes.get(
    "/nodes/{node}/tasks/{upid}",
    "What can be asked about a task.",
    permission=AnyUser(),
    forward="node",
    params=[NODE, UPID],
    returns="[{name:string}]",
)
async def task_index(call: Call) -> Sequence[dict[str, str]]:
    """The same for every name, existing or not."""
    return [{"name": "log"}, {"name": "status"}]


@routes.get(
    "/nodes/{node}/tasks/{upid}/status",
    "Whether a task runs, or how it ended.",
    permission=Described(OWN),
    forward="node",
    params=[NODE, UPID],
    returns=f"{{exitstatus?:string status:string=running|stopped {_FIELDS}}}",
)
async def task_status(call: Call) -> dict[str, Any]:
    """One task."""
    record = await find(call)
    out = row(record)
    out.pop("endtime", None)
    out["status"] = "running" if record.running else "stopped"
    if not record.running:
        out["exitstatus"] = record.status
    return out


@routes.get(
    "/nodes/{node}/tasks/{upid}/log",
    "Lines of a task's log, also while it runs.",
    permission=Described(OWN),
    forward="node",
    params=[
        NODE,
        UPID,
        Param("download", "boolean", "The whole log; 'start' and 'limit' do not count."),
        Param("limit", "integer", "How many lines at most; 0 for all.", default=50, minimum=0),
        Param("start", "integer", "How many lines to leave out at the begin.", default=0, minimum=0),
    ],
    returns="[{n:integer t:string}]",
)
async def task_log(call: Call) -> Sequence[dict[str, Any]]:
    """Numbered lines, and their total number."""
    await find(call)
    start, limit = call.params.get("start", 0), call.params.get("limit", 50)
    if call.params.get("download"):
        start, limit = 0, 0
    lines, call.extras["total"] = await call.services.tasks.read_log(call.params["upid"], start, limit)
    return [{"n": n, "t": text} for n, text in lines]


@routes.delete(
    "/nodes/{node}/tasks/{upid}",
    "Stop a task; it undoes what it began.",
    permission=Described("The caller's own tasks; Sys.Modify on /nodes/{node} for those of others."),
    forward="node",
    params=[NODE, UPID],
    returns="null",
)
async def stop_task(call: Call) -> None:
    """Ask it to end. One that has ended already is left as it is."""
    record = await find(call, "Sys.Modify")
    if record.running:
        await call.services.tasks.stop(call.params["upid"])
