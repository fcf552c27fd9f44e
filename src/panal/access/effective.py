"""Rights as people and user interfaces want to see them: the whole tree of one user, and the summary a login answers with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from panal.access.context import Access

TOP: Final = ("/", "/access", "/access/groups", "/mapping", "/nodes", "/pool", "/sdn", "/storage", "/vms")
_CAP: Final = {
    "vms": ("VM.", "Permissions.Modify"),
    "access": ("User.", "Group.", "Permissions.Modify"),
    "storage": ("Datastore.", "Permissions.Modify"),
    "nodes": ("Sys.", "Permissions.Modify"),
    "sdn": ("SDN.", "Permissions.Modify"),
    "dc": ("Sys.Audit", "Sys.Modify", "SDN."),
    "mapping": ("Mapping.", "Permissions.Modify"),
}


def tree(access: Access, userid: str, path: str | None = None) -> dict[str, dict[str, int]]:
    """Path → privilege → 1 when it propagates, else 0. Without `path`: every path that something is said about."""
    rights = access.rights(userid)
    policy = access.policy
    if path is not None:
        return {path: {p: int(v) for p, v in rights.privileges(path).items()}}
    paths = {*TOP, *(g.path for g in policy.grants), *policy.members, *(f"/pool/{name}" for name in policy.pools)}
    found = {p: {k: int(v) for k, v in rights.privileges(p).items()} for p in sorted(paths)}
    return {p: privs for p, privs in found.items() if privs}


def cap(access: Access, userid: str) -> dict[str, dict[str, int]]:
    """What the user may do somewhere, by area: user interfaces show their menus by it."""
    rights = access.rights(userid)
    result: dict[str, dict[str, int]] = {area: {} for area in _CAP}
    for path in {*TOP, *(g.path for g in access.policy.grants)}:
        area = (re.match(r"/(\w+)", path) or ["", "dc"])[1]
        have = rights.privileges(path)
        for name in ("vms", "storage") if area == "pool" else (area,):
            for priv in have:
                if name in _CAP and priv.startswith(_CAP[name]):
                    result[name][priv] = 1
    return result
