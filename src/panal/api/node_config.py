"""`/nodes/{node}/config` and `/nodes/{node}/apt`: settings and packages of a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from panal.api.call import Call
from panal.api.params import DIGEST, NODE
from panal.api.permission import perm
from panal.api.table import Param, Routes
from panal.core.errors import BadInput
from panal.core.formats import split_list
from panal.node import packages, settings

routes = Routes("node")

DOMAINS: Final = 6
_PARAMS: Final = (
    Param("acme", "string", "Account and domains for certificates.", format=settings.SCHEMAS["acme"]),
    Param("acmedomain", "string", "A domain of the certificate.", format=settings.SCHEMAS["acmedomain"], count=DOMAINS),
    Param("ballooning-target", "integer", "Share of memory, in percent, that ballooning aims at.", default=80, minimum=0,
          maximum=100),
    Param("description", "string", "Notes about the node.", max_length=65536),
    Param("location", "string", "Where the node stands.", format=settings.SCHEMAS["location"]),
    Param("startall-onboot-delay", "integer", "Seconds to wait before guests start with the node.", default=0, minimum=0,
          maximum=300),
    Param("wakeonlan", "string", "How to wake the node over the network.", format=settings.SCHEMAS["wakeonlan"]),
)  # fmt: skip
NAMES: Final = tuple(
    f"{p.name}{n}" if p.count else p.name for p in _PARAMS for n in (range(p.count) if p.count else range(1))
)
_PACKAGE: Final = (
    "Arch:string=armhf|arm64|amd64|ppc64el|risc64|s390x|all Description:string NotifyStatus?:string OldVersion?:string "
    "Origin:string Package:string Priority:string Section:string Title:string Version:string"
)


@routes.get(
    "/nodes/{node}/config",
    "Settings of a node.",
    permission=perm("/", "Sys.Audit"),
    forward="node",
    params=[NODE, Param("property", "string", "Only this setting.", default="all", enum=("all", *NAMES))],
    returns="{acme?:string acmedomain[n]?:string ballooning-target?:integer description?:string digest?:string "
    "startall-onboot-delay?:integer wakeonlan?:string}",
)
async def read_config(call: Call) -> dict[str, Any]:
    """What is set."""
    options = settings.stored(call.services.store, call.params["node"])
    wanted = call.params.get("property", "all")
    if wanted != "all":
        return {wanted: options[wanted]} if wanted in options else {}
    return options | {"digest": settings.digest(options)}


@routes.put(
    "/nodes/{node}/config",
    "Change settings of a node.",
    permission=perm("/", "Sys.Modify"),
    forward="node",
    params=[
        NODE,
        *_PARAMS,
        Param("delete", "string", "Settings to take back to their defaults.", format="pve-configid-list"),
        DIGEST,
    ],
    returns="null",
)
async def change_config(call: Call) -> None:
    """Set and delete by key."""
    delete = split_list(str(call.params.get("delete", "")))
    unknown = sorted(set(delete) - set(NAMES))
    if unknown:
        raise BadInput("delete", f"unknown setting '{unknown[0][:64]}'")
    new = {k: v for k, v in call.params.items() if k in NAMES}
    await settings.change(call.services.store, call.params["node"], new, delete, call.params.get("digest"))


@routes.get(
    "/nodes/{node}/apt/versions",
    "Versions of the packages a node is made of.",
    permission=perm("/nodes/{node}", "Sys.Audit"),
    forward="node",
    params=[NODE],
    returns="[{CurrentState:string=Installed|NotInstalled|UnPacked|HalfConfigured|HalfInstalled|ConfigFiles "
    f"ManagerVersion?:string RunningKernel?:string {_PACKAGE}}}]",
)
async def list_versions(call: Call) -> Sequence[dict[str, Any]]:
    """Installed ones."""
    return await packages.versions(call.services.nodeinfo)


@routes.get(
    "/nodes/{node}/apt/update",
    "Packages that could be upgraded, by the package lists of now.",
    permission=perm("/nodes/{node}", "Sys.Modify"),
    forward="node",
    params=[NODE],
    returns=f"[{{{_PACKAGE}}}]",
)
async def list_updates(call: Call) -> Sequence[dict[str, Any]]:
    """Simulated; changes nothing."""
    return await packages.updates(call.services.nodeinfo)
