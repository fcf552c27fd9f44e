"""`/version`: whose contract we keep, and what we are."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from panal.api.call import Call
from panal.api.permission import AnyUser
from panal.api.table import Routes

routes = Routes("version")

# The version of the Proxmox VE API whose facts this table was written from (tests/contract/pve).
PVE_RELEASE: Final = "9.1"
PVE_VERSION: Final = "9.1.0"


def panal_version() -> str:
    """Our own version."""
    try:
        return version("panal")
    except PackageNotFoundError:  # run from a source tree
        return "0.1.0"


@routes.get(
    "/version",
    "Version of the API contract that is kept, and of Panal.",
    permission=AnyUser(),
    returns="{console?:string=applet|html5|vv|xtermjs release:string repoid:string version:string panal-version?:string}",
)
async def read_version(call: Call) -> dict[str, str]:
    """`release` and `version` are PVE's; `panal-version` is ours."""
    ours = panal_version()
    return {"release": PVE_RELEASE, "version": PVE_VERSION, "repoid": f"panal-{ours}", "panal-version": ours}
