"""All guests of a node at once: start those that want to run, shut down those that do."""

from __future__ import annotations

from typing import Final

from panal.api.call import Call
from panal.api.params import NODE
from panal.api.permission import Described
from panal.api.table import Param, Routes
from panal.core.formats import split_list
from panal.guests import startall, stopall

routes = Routes("node")

_POWER: Final = Described("VM.PowerMgmt on /, or on every guest that `vms` names.")
_WORKERS: Final = Param("max-workers", "integer", "How many at once, at most.", minimum=1, maximum=64)


@routes.post(
    "/nodes/{node}/startall",
    "Start the guests of a node that have `onboot`, one after the other in their `startup` order.",
    permission=_POWER,
    forward="node",
    params=[
        NODE, _WORKERS, Param("force", "boolean", "Those without `onboot`, too.", default=False),
        Param("vms", "string", "Of these only.", format="pve-vmid-list"),
    ],
    returns="string",
)  # fmt: skip
async def start_guests(call: Call) -> str:
    """As a task."""
    vmids = _named(call)
    force = call.params.get("force", False)
    return await startall.startall(call.services.guests, call.rights.userid, vmids=vmids, force=force)


@routes.post(
    "/nodes/{node}/stopall",
    "Shut down the guests of a node, in the order opposite to their start.",
    permission=_POWER,
    forward="node",
    params=[
        NODE, _WORKERS,
        Param("force-stop", "boolean", "Stop a guest that does not switch off in time.", default=True),
        Param(
            "timeout", "integer", "Seconds each guest gets; else `down` of its `startup`, or 180.", minimum=0, maximum=7200
        ),
        Param("vms", "string", "Of these only.", format="pve-vmid-list"),
    ],
    returns="string",
)  # fmt: skip
async def stop_guests(call: Call) -> str:
    """As a task."""
    return await stopall.stopall(
        call.services.guests,
        call.rights.userid,
        vmids=_named(call),
        timeout_s=call.params.get("timeout"),
        force_stop=call.params.get("force-stop", True),
        workers=call.params.get("max-workers", stopall.WORKERS),
    )


def _named(call: Call) -> frozenset[int] | None:
    """The guests of `vms`, None for all; Forbidden unless the caller may switch every one of them."""
    vmids = frozenset(map(int, split_list(call.params.get("vms", "")))) or None
    if not call.has("/", "VM.PowerMgmt"):
        if vmids is None:
            call.require("/", "VM.PowerMgmt")
        for vmid in sorted(vmids or ()):
            call.require(f"/vms/{vmid}", "VM.PowerMgmt")
    return vmids
