"""`/cluster/nextid`: a free number, kept for the caller for a minute."""

from __future__ import annotations

from panal.api.call import Call
from panal.api.permission import AnyUser
from panal.api.table import Param, Routes
from panal.guests.nextid import check_free

routes = Routes("cluster")


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
    return str(await guests.nextids.next_id(call.rights.userid))
