"""`…/rrddata`: how a node, a guest or a storage did over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from panal.api.call import Call
from panal.api.params import NODE, STORAGE, VMID
from panal.api.permission import perm
from panal.api.table import Param, Routes
from panal.node.series import FRAMES, Kind

routes = Routes("series")

_FRAME: Final = Param("timeframe", "string", "How far back.", required=True, enum=tuple(FRAMES))
_FOLD: Final = Param(
    "cf", "string", "Average or greatest value of each step.", default="AVERAGE", enum=("AVERAGE", "MAX")
)
_RETURNS: Final = "[{time:integer}]"


async def _read(call: Call, kind: Kind, subject: str) -> Sequence[dict[str, float]]:
    services = call.services
    fold = call.params.get("cf", "AVERAGE")
    return await services.series.read(kind, subject, call.params["timeframe"], fold, services.clock.wall_s())


@routes.get(
    "/nodes/{node}/rrddata",
    "How a node did over time.",
    permission=perm("/nodes/{node}", "Sys.Audit"),
    forward="node",
    params=[NODE, _FRAME, _FOLD],
    returns=_RETURNS,
)
async def node_series(call: Call) -> Sequence[dict[str, float]]:
    """One row a step."""
    return await _read(call, "node", call.params["node"])


@routes.get(
    "/nodes/{node}/qemu/{vmid}/rrddata",
    "How a virtual machine did over time.",
    permission=perm("/vms/{vmid}", "VM.Audit"),
    forward="node",
    params=[NODE, VMID, _FRAME, _FOLD],
    returns=_RETURNS,
)
async def guest_series(call: Call) -> Sequence[dict[str, float]]:
    """One row a step."""
    call.services.guests.get(call.params["vmid"])
    return await _read(call, "guest", str(call.params["vmid"]))


@routes.get(
    "/nodes/{node}/storage/{storage}/rrddata",
    "How a storage did over time.",
    permission=perm("/storage/{storage}", "Datastore.Audit", "Datastore.AllocateSpace", any_of=True),
    forward="node",
    params=[NODE, STORAGE, _FRAME, _FOLD],
    returns=_RETURNS,
)
async def storage_series(call: Call) -> Sequence[dict[str, float]]:
    """One row a step."""
    call.services.storages.config(call.params["storage"])
    return await _read(call, "storage", call.params["storage"])
