"""`/nodes/{node}/…`: the machine itself: status, power, time, names, services, logs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from panal.api.call import Call
from panal.api.params import NODE
from panal.api.permission import perm
from panal.api.table import Param, Routes
from panal.api.version import PVE_VERSION, panal_version
from panal.core.errors import BadInput
from panal.guests import stopall
from panal.node import dns, hosts, journal, power, services, status, timezone
from panal.tasks.model import Task

routes = Routes("node")

AUDIT: Final = perm("/nodes/{node}", "Sys.Audit")
MODIFY: Final = perm("/nodes/{node}", "Sys.Modify")
SYSLOG: Final = perm("/nodes/{node}", "Sys.Syslog")
SERVICE: Final = Param("service", "string", "Name of the service.", required=True, max_length=128)
_DATE: Final = r"\d{4}-\d{2}-\d{2}( \d{2}:\d{2}(:\d{2})?)?"
_STATES: Final = "{active-state:string desc:string name:string service:string state:string unit-state:string}"


@routes.get(
    "/nodes/{node}/status",
    "How a node does.",
    permission=AUDIT,
    forward="node",
    params=[NODE],
    returns="{boot-info:{mode:string=efi|legacy-bios secureboot?:boolean} cpu:number cpuinfo:{cores:integer cpus:integer "
    "model:string sockets:integer} current-kernel:{machine:string release:string sysname:string version:string} "
    "loadavg:[string] memory:{available:integer free:integer total:integer used:integer} pveversion:string "
    "rootfs:{avail:integer free:integer total:integer used:integer}}",
)
async def node_status(call: Call) -> dict[str, Any]:
    """Measured now."""
    found = await asyncio.to_thread(status.status, call.services.nodeinfo)
    return found | {"pveversion": f"pve-manager/{PVE_VERSION}/panal-{panal_version()}"}


@routes.post(
    "/nodes/{node}/status",
    "Reboot a node or switch it off, after its guests were shut down (task `stopall`).",
    permission=perm("/nodes/{node}", "Sys.PowerMgmt"),
    forward="node",
    params=[NODE, Param("command", "string", "What to do.", required=True, enum=("reboot", "shutdown"))],
    returns="null",
)
async def node_power(call: Call) -> None:
    """Answers at once: the task `stopall` shuts the guests down and then does it; what goes wrong stands in its log."""
    info, command = call.services.nodeinfo, call.params["command"]
    power.plan(info, command)  # where it cannot be done no guest is to be shut down for it

    async def then(task: Task) -> None:
        task.log(f"{command} of the node")
        await power.act(info, command)

    await stopall.stopall(call.services.guests, call.rights.userid, then=then)


@routes.get(
    "/nodes/{node}/time",
    "Clock and time zone of a node.",
    permission=AUDIT,
    forward="node",
    params=[NODE],
    returns="{localtime:integer time:integer timezone:string}",
)
async def node_time(call: Call) -> dict[str, int | str]:
    """Seconds since the epoch."""
    return timezone.read(call.services.nodeinfo)


@routes.put(
    "/nodes/{node}/time",
    "Set the time zone of a node.",
    permission=MODIFY,
    forward="node",
    params=[NODE, Param("timezone", "string", "Its name, like Europe/Vienna.", required=True, max_length=64)],
    returns="null",
)
async def set_time_zone(call: Call) -> None:
    """At once."""
    await timezone.write(call.services.nodeinfo, call.params["timezone"])


@routes.get(
    "/nodes/{node}/dns",
    "Name servers of a node.",
    permission=AUDIT,
    forward="node",
    params=[NODE],
    returns="{dns1?:string dns2?:string dns3?:string search?:string}",
)
async def node_dns(call: Call) -> dict[str, str]:
    """What is set."""
    return await dns.read(call.services.nodeinfo)


@routes.put(
    "/nodes/{node}/dns",
    "Set the name servers of a node.",
    permission=MODIFY,
    forward="node",
    params=[
        NODE,
        *(Param(f"dns{n}", "string", f"Name server number {n}.", format="ip") for n in (1, 2, 3)),
        Param("search", "string", "Domain that short names are looked for in.", required=True, max_length=512),
    ],
    returns="null",
)
async def set_dns(call: Call) -> None:
    """Servers that are not given stay when none is given."""
    servers = [call.params[name] for name in ("dns1", "dns2", "dns3") if name in call.params]
    await dns.write(call.services.nodeinfo, call.params["search"], servers)


@routes.get(
    "/nodes/{node}/hosts",
    "The hosts file of a node.",
    permission=perm("/", "Sys.Audit"),
    forward="node",
    params=[NODE],
    returns="{data:string digest?:string}",
)
async def node_hosts(call: Call) -> dict[str, str]:
    """Content and digest."""
    return await hosts.read(call.services.nodeinfo)


@routes.post(
    "/nodes/{node}/hosts",
    "Replace the hosts file of a node.",
    permission=MODIFY,
    forward="node",
    params=[
        NODE,
        Param("data", "string", "The whole file.", required=True, max_length=hosts.MAX_BYTES),
        Param("digest", "string", "Refuse if the file is no longer the one with this digest.", max_length=64),
    ],
    returns="null",
)
async def write_hosts(call: Call) -> None:
    """As a whole."""
    await hosts.write(call.services.nodeinfo, call.params["data"], call.params.get("digest"))


@routes.get(
    "/nodes/{node}/services",
    "Services of a node and their state.",
    permission=AUDIT,
    forward="node",
    params=[NODE],
    returns=f"[{_STATES}]",
)
async def list_services(call: Call) -> Sequence[dict[str, str]]:
    """One row a service."""
    return await services.states(call.services.nodeinfo)


@routes.get(
    "/nodes/{node}/services/{service}",
    "What can be done with a service.",
    permission=AUDIT,
    forward="node",
    params=[NODE, SERVICE],
    returns="[{subdir:string}]",
)
async def service_index(call: Call) -> Sequence[dict[str, str]]:
    """Names of the methods below."""
    services.known(call.params["service"])
    return [{"subdir": name} for name in ("state", "start", "stop", "restart", "reload")]


@routes.get(
    "/nodes/{node}/services/{service}/state",
    "State of a service.",
    permission=AUDIT,
    forward="node",
    params=[NODE, SERVICE],
    returns=_STATES,
)
async def service_state(call: Call) -> dict[str, str]:
    """One service."""
    return await services.state(call.services.nodeinfo, call.params["service"])


def _declare(action: services.Action, description: str) -> None:
    @routes.post(
        f"/nodes/{{node}}/services/{{service}}/{action}",
        description,
        permission=MODIFY,
        forward="node",
        params=[NODE, SERVICE],
        returns="string",
    )
    async def act(call: Call) -> str:
        s = call.services
        return await services.act(s.nodeinfo, s.tasks, call.params["service"], action, call.rights.userid)


_declare("start", "Start a service.")
_declare("stop", "Stop a service.")
_declare("restart", "Stop a service and start it again.")
_declare("reload", "Let a service read its configuration again.")


@routes.get(
    "/nodes/{node}/journal",
    "Lines of a node's log between two places: a cursor, the lines, a cursor.",
    permission=SYSLOG,
    forward="node",
    params=[
        NODE,
        Param("endcursor", "string", "Lines before this cursor; not with 'until'.", max_length=512),
        Param("lastentries", "integer", "Only the last so many lines.", minimum=0),
        Param("since", "integer", "From this second on; not with 'startcursor'.", minimum=0),
        Param("startcursor", "string", "Lines after this cursor; not with 'since'.", max_length=512),
        Param("until", "integer", "Up to this second; not with 'endcursor'.", minimum=0),
    ],
    returns="[string]",
)
async def node_journal(call: Call) -> Sequence[str]:
    """Oldest line first."""
    p = call.params
    window = journal.Window(p.get("since"), p.get("until"))
    return await journal.entries(
        call.services.nodeinfo, window, p.get("lastentries"), p.get("startcursor"), p.get("endcursor")
    )


def _second(call: Call, name: str) -> int | None:
    text = call.params.get(name)
    if text is None:
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp())  # the node's own zone, as a person on it would mean it
    except ValueError:
        raise BadInput(name, "no such date; it looks like 2026-01-31 or 2026-01-31 12:00") from None


@routes.get(
    "/nodes/{node}/syslog",
    "Numbered lines of a node's log.",
    permission=SYSLOG,
    forward="node",
    params=[
        NODE,
        Param("limit", "integer", "How many lines at most.", minimum=0),
        Param("service", "string", "Only lines of this service.", max_length=128),
        Param("since", "string", "From this date on.", pattern=_DATE),
        Param("start", "integer", "How many lines to leave out at the begin.", minimum=0),
        Param("until", "string", "Up to this date.", pattern=_DATE),
    ],
    returns="[{n:integer t:string}]",
)
async def node_syslog(call: Call) -> Sequence[dict[str, Any]]:
    """Oldest line first, and the total number."""
    p = call.params
    window = journal.Window(_second(call, "since"), _second(call, "until"))
    lines, call.extras["total"] = await journal.syslog(
        call.services.nodeinfo, window, p.get("service"), p.get("start", 0), p.get("limit", 50)
    )
    return [{"n": n, "t": text} for n, text in lines]
