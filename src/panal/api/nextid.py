"""`/cluster/nextid`: a free number, kept for the caller for a minute."""

from __future__ import annotations

from panal.api.call import Call
from panal.api.permission import AnyUser
from panal.api.table import Param, Routes
from panal.core.errors import BadInput
from panal.core.props import Schema
from panal.guests.nextid import LOWER, UPPER, check_free

routes = Routes("cluster")

_RANGE = Schema.of("lower:integer upper:integer")


@routes.get(
    "/cluster/nextid",
    "The next free number for a guest. It is not given to anybody else for a minute.",
    permission=AnyUser(),
    params=[Param("vmid", "integer", "Only say whether this number is free.", format="pve-vmid", minimum=100,
                  maximum=999_999_999)],
    returns="string",
)  # fmt: skip
async def next_id(call: Call) -> str:
    """A string, as PVE answers in practice."""
    guests = call.services.guests
    if "vmid" in call.params:
        return str(check_free(guests, call.params["vmid"]))
    options = call.services.store.value("options") or {}
    text = str(options.get("next-id") or (options.get("options") or {}).get("next-id") or "")
    try:
        bounds = _RANGE.parse(text) if text else {}
        lower, upper = int(bounds.get("lower", LOWER)), int(bounds.get("upper", UPPER))
    except ValueError as exc:
        raise BadInput("vmid", f"'next-id' in the datacenter's options cannot be read: {exc}") from None
    return str(await guests.nextids.next_id(call.rights.userid, lower, upper))
