"""Consoles of a virtual machine: serial port over WebSocket, keys, screen."""

from __future__ import annotations

from typing import Any, Final

from panal.api.call import Call, Console, Picture
from panal.api.params import NODE, SKIPLOCK, VMID
from panal.api.permission import perm
from panal.api.qemu_checks import root_only
from panal.api.table import Param, Routes
from panal.core.errors import BadInput, Conflict, NotFound
from panal.guests import pause
from panal.guests.config.read import serials
from panal.guests.shutdown import require_running
from panal.tasks.model import Task

routes = Routes("vm")

_CONSOLE = perm("/vms/{vmid}", "VM.Console")
# The port only tells serial ports apart: the session goes through the daemon's own socket, nothing listens.
FIRST_PORT: Final = 5900
SERIALS: Final = 4


@routes.post(
    "/nodes/{node}/qemu/{vmid}/termproxy",
    "Open a terminal on a serial port: a ticket for one WebSocket.",
    permission=_CONSOLE,
    forward="node",
    params=[NODE, VMID, Param("serial", "string", "Serial port; the first one when it is left out.",
                              enum=tuple(f"serial{n}" for n in range(SERIALS)))],
    secret_answer=True,
    returns="{port:integer ticket:string upid:string user:string}",
)  # fmt: skip
async def open_terminal(call: Call) -> dict[str, Any]:
    """The guest must run and have the port."""
    guests, vmid = call.services.guests, call.params["vmid"]
    guest = guests.get(vmid)
    ports = [n for n, text in serials(guests.running_config(vmid) or guest.config).items() if text == "socket"]
    wanted = call.params.get("serial")
    if wanted is not None and int(wanted[-1]) not in ports:
        raise BadInput("serial", f"VM {vmid} has no {wanted}: set {wanted}=socket and start it again")
    if not ports:
        raise Conflict("unable to find a serial interface: set serial0=socket and start the VM again")
    require_running(guests, vmid)
    number = min(ports) if wanted is None else int(wanted[-1])
    user = call.rights.userid
    port = FIRST_PORT + number
    ticket = call.services.access.consoles.issue(user, f"/vms/{vmid}", guests.node, port)

    async def body(task: Task) -> None:
        task.log(f"ticket for a terminal on serial{number} was given out")

    upid = await guests.tasks.spawn("vncproxy", str(vmid), user, body)
    return {"user": user, "ticket": ticket, "port": port, "upid": upid}


@routes.get(
    "/nodes/{node}/qemu/{vmid}/vncwebsocket",
    "The WebSocket of a terminal that was opened before.",
    permission=_CONSOLE,
    forward="node",
    websocket=True,
    params=[
        NODE, VMID,
        Param("port", "integer", "Port that came with the ticket.", required=True, minimum=5900, maximum=5999),
        Param("vncticket", "string", "The ticket.", required=True, max_length=512, secret=True),
    ],
    returns="{port:string}",
)  # fmt: skip
async def terminal(call: Call) -> Console:
    """The ticket is used up, whatever happens then."""
    params, guests = call.params, call.services.guests
    vmid, port, ticket = params["vmid"], params["port"], params["vncticket"]
    user = call.rights.userid
    call.services.access.consoles.consume(ticket, user, f"/vms/{vmid}", guests.node, port)
    if port - FIRST_PORT >= SERIALS:
        raise NotFound(f"no terminal on port {port}")
    require_running(guests, vmid)
    return Console(guests.driver.serial(vmid, port - FIRST_PORT), terminal=f"{user}:{ticket}")


@routes.put(
    "/nodes/{node}/qemu/{vmid}/sendkey",
    "Press keys on a virtual machine's keyboard.",
    permission=_CONSOLE,
    forward="node",
    params=[NODE, VMID, SKIPLOCK,
            Param("key", "string", "Keys pressed together, as QEMU names them: ctrl-alt-delete.", required=True)],
    returns="null",
)  # fmt: skip
async def press_keys(call: Call) -> None:
    """At once."""
    root_only(call, "skiplock")
    await pause.send_key(call.services.guests, call.params["vmid"], call.params["key"], call.rights.userid)


@routes.get(
    "/nodes/{node}/qemu/{vmid}/panal/screenshot",
    "A picture of the screen: PNG under /api2/png, base64 elsewhere.",
    permission=_CONSOLE,
    forward="node",
    params=[NODE, VMID],
    returns="string",
)
async def take_screenshot(call: Call) -> Picture:
    """Now."""
    return Picture(await pause.screenshot(call.services.guests, call.params["vmid"]))
