"""`/nodes/{node}/network`: interfaces, read only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from panal.api.call import Call
from panal.api.params import NODE
from panal.api.permission import AnyUser, perm
from panal.api.table import Param, Routes
from panal.core.errors import BadInput

routes = Routes("network")

_TYPES: Final = (
    "bridge", "bond", "eth", "alias", "vlan", "fabric", "OVSBridge", "OVSBond", "OVSPort", "OVSIntPort", "vnet",
    "any_bridge", "any_local_bridge", "include_sdn",
)  # fmt: skip
_BRIDGES: Final = ("bridge", "OVSBridge")


@routes.get(
    "/nodes/{node}/network",
    "Network interfaces of a node: configured ones and what the machine has.",
    permission=AnyUser("Bridges for any login; all interfaces with Sys.Audit on /nodes/{node}."),
    forward="node",
    params=[NODE, Param("type", "string", "Only interfaces of this type.", enum=_TYPES)],
    returns="[{active?:boolean address?:string address6?:string autostart?:boolean bond_mode?:string bridge_ports?:string "
    "bridge_vids?:string bridge_vlan_aware?:boolean cidr?:string cidr6?:string comments?:string exists?:boolean "
    "families?:[string=inet|inet6] gateway?:string gateway6?:string iface:string "
    "method?:string=loopback|dhcp|manual|static|auto method6?:string=loopback|dhcp|manual|static|auto mtu?:integer "
    "netmask?:string netmask6?:integer options?:[string] priority?:integer slaves?:string "
    "type:string=bridge|bond|eth|alias|vlan|fabric|OVSBridge|OVSBond|OVSPort|OVSIntPort|vnet|unknown vlan-id?:integer "
    "vlan-raw-device?:string}]",
)
async def list_interfaces(call: Call) -> Sequence[dict[str, Any]]:
    """Without Sys.Audit: bridges alone, since guests are put on them, and no addresses."""
    rows = await call.services.network.list()
    wanted = call.params.get("type")
    if wanted in ("any_bridge", "any_local_bridge", "include_sdn"):
        rows = [r for r in rows if r["type"] in _BRIDGES or wanted == "include_sdn"]
    elif wanted is not None:
        rows = [r for r in rows if r["type"] == wanted]
    if call.has(f"/nodes/{call.params['node']}", "Sys.Audit"):
        return rows
    shown = ("iface", "type", "active", "exists", "bridge_vlan_aware", "bridge_vids")
    return [{k: r[k] for k in shown if k in r} for r in rows if r["type"] in _BRIDGES]


@routes.get(
    "/nodes/{node}/network/{iface}",
    "Configuration of a network interface.",
    permission=perm("/nodes/{node}", "Sys.Audit"),
    forward="node",
    params=[NODE, Param("iface", "string", "Name of the interface.", required=True, min_length=2, max_length=20)],
    returns="{method:string type:string}",
)
async def read_interface(call: Call) -> dict[str, Any]:
    """One interface."""
    name = call.params["iface"]
    found = next((r for r in await call.services.network.list() if r["iface"] == name), None)
    if found is None:
        raise BadInput("iface", "interface does not exist")
    return {k: v for k, v in found.items() if k != "iface"}
