"""A virtual machine's state: read it, change it. Every change is a task."""

from __future__ import annotations

from typing import Any

from panal.api.call import Call
from panal.api.params import NODE, SKIPLOCK, VMID
from panal.api.permission import perm
from panal.api.qemu_checks import root_only, unsupported
from panal.api.table import Param, Routes
from panal.guests import pause, shutdown, start, status, stop

routes = Routes("vm")

_POWER = perm("/vms/{vmid}", "VM.PowerMgmt")
_TIMEOUT = Param("timeout", "integer", "Seconds to wait.", minimum=0)
_KEEP = Param("keepActive", "boolean", "Leave its storages active (they are in any case).", default=False)
_MIGRATED = Param("migratedfrom", "string", "Node it comes from; for nodes among themselves.", format="pve-node")


@routes.get(
    "/nodes/{node}/qemu/{vmid}/status/current",
    "State and figures of a virtual machine, now.",
    permission=perm("/vms/{vmid}", "VM.Audit"),
    forward="node",
    params=[NODE, VMID],
    returns=(
        "{agent?:boolean clipboard?:string=vnc cpu?:number cpus?:number diskread?:integer diskwrite?:integer ha:{} "
        "lock?:string maxdisk?:integer maxmem?:integer mem?:integer memhost?:integer name?:string netin?:integer "
        "netout?:integer pid?:integer qmpstatus?:string running-machine?:string running-qemu?:string serial?:boolean "
        "spice?:boolean status:string=stopped|running tags?:string template?:boolean uptime?:integer vmid:integer}"
    ),
)
async def read_status(call: Call) -> dict[str, Any]:
    """A fresh sample."""
    return await status.current(call.services.guests, call.params["vmid"])


@routes.post(
    "/nodes/{node}/qemu/{vmid}/status/start",
    "Start a virtual machine.",
    permission=_POWER,
    forward="node",
    params=[
        NODE, VMID, SKIPLOCK, _TIMEOUT, _MIGRATED,
        Param("force-cpu", "string", "Another processor model; for nodes among themselves."),
        Param("machine", "string", "Another machine type; for nodes among themselves."),
        Param("migration_network", "string", "Network of the migration.", format="CIDR"),
        Param("migration_type", "string", "Kind of the migration.", enum=("secure", "insecure")),
        Param("nets-host-mtu", "string", "MTUs of the source's network cards.", pattern=r"net\d+=\d+(,net\d+=\d+)*"),
        Param("stateuri", "string", "Where the migration comes in.", max_length=128),
        Param("targetstorage", "string", "Storages of the migration.", max_length=1024),
        Param("with-conntrack-state", "boolean", "With the state of connections.", default=False),
    ],
    returns="string",
)  # fmt: skip
async def start_guest(call: Call) -> str:
    """As a task."""
    among_nodes = (
        "migratedfrom", "force-cpu", "machine", "migration_network", "migration_type", "nets-host-mtu", "stateuri",
        "targetstorage", "with-conntrack-state",
    )  # fmt: skip
    root_only(call, "skiplock", *among_nodes)
    unsupported(call, "migration is not supported yet: leave it out", *among_nodes)
    return await start.start(call.services.guests, call.params["vmid"], call.rights.userid)


@routes.post(
    "/nodes/{node}/qemu/{vmid}/status/stop",
    "Switch a virtual machine off at once, like pulling the plug.",
    permission=_POWER,
    forward="node",
    params=[
        NODE, VMID, SKIPLOCK, _TIMEOUT, _KEEP, _MIGRATED,
        Param("overrule-shutdown", "boolean", "End shutdown tasks that wait for it.", default=False),
    ],
    returns="string",
)  # fmt: skip
async def stop_guest(call: Call) -> str:
    """As a task."""
    root_only(call, "skiplock", "keepActive", "migratedfrom")
    timeout = call.params.get("timeout")
    return await stop.stop(
        call.services.guests, call.params["vmid"], call.rights.userid,
        timeout_s=None if timeout is None else float(timeout),
        overrule_shutdown=bool(call.params.get("overrule-shutdown")),
    )  # fmt: skip


@routes.post(
    "/nodes/{node}/qemu/{vmid}/status/shutdown",
    "Ask a virtual machine to switch itself off, and wait for it.",
    permission=_POWER,
    forward="node",
    params=[
        NODE, VMID, SKIPLOCK, _TIMEOUT, _KEEP,
        Param("forceStop", "boolean", "Switch it off when it does not obey in time.", default=False),
    ],
    returns="string",
)  # fmt: skip
async def shutdown_guest(call: Call) -> str:
    """As a task."""
    root_only(call, "skiplock", "keepActive")
    timeout = call.params.get("timeout")
    return await shutdown.shutdown(
        call.services.guests, call.params["vmid"], call.rights.userid,
        timeout_s=None if timeout is None else float(timeout), force_stop=bool(call.params.get("forceStop")),
    )  # fmt: skip


@routes.post(
    "/nodes/{node}/qemu/{vmid}/status/reboot",
    "Shut a virtual machine down and start it again, with what is pending applied.",
    permission=_POWER,
    forward="node",
    params=[NODE, VMID, _TIMEOUT],
    returns="string",
)
async def reboot_guest(call: Call) -> str:
    """As a task."""
    timeout = call.params.get("timeout")
    return await shutdown.reboot(
        call.services.guests, call.params["vmid"], call.rights.userid,
        timeout_s=None if timeout is None else float(timeout),
    )  # fmt: skip


@routes.post(
    "/nodes/{node}/qemu/{vmid}/status/reset",
    "Press a virtual machine's reset button.",
    permission=_POWER,
    forward="node",
    params=[NODE, VMID, SKIPLOCK],
    returns="string",
)
async def reset_guest(call: Call) -> str:
    """As a task."""
    root_only(call, "skiplock")
    return await pause.reset(call.services.guests, call.params["vmid"], call.rights.userid)


@routes.post(
    "/nodes/{node}/qemu/{vmid}/status/suspend",
    "Pause a virtual machine.",
    permission=_POWER,
    forward="node",
    params=[
        NODE, VMID, SKIPLOCK,
        Param("todisk", "boolean", "Save its memory and switch it off (comes later).", default=False),
        Param("statestorage", "string", "Storage for the memory.", format="pve-storage-id", requires="todisk"),
    ],
    returns="string",
)  # fmt: skip
async def suspend_guest(call: Call) -> str:
    """As a task."""
    root_only(call, "skiplock")
    unsupported(call, "suspending to disk is not supported yet: take a snapshot with 'vmstate' and stop it", "todisk")
    return await pause.pause(call.services.guests, call.params["vmid"], call.rights.userid)


@routes.post(
    "/nodes/{node}/qemu/{vmid}/status/resume",
    "Let a paused virtual machine go on.",
    permission=_POWER,
    forward="node",
    params=[NODE, VMID, SKIPLOCK, Param("nocheck", "boolean", "For nodes among themselves.")],
    returns="string",
)
async def resume_guest(call: Call) -> str:
    """As a task."""
    root_only(call, "skiplock", "nocheck")
    return await pause.resume(call.services.guests, call.params["vmid"], call.rights.userid)
