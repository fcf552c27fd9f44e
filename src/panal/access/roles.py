"""Roles: named sets of privileges. Those of privileges.py are fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from panal.access import guard, privileges
from panal.access.model import ACL, ROLE, new_uid
from panal.cluster.store import Delete
from panal.core.errors import BadInput, Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from panal.access.context import Access
    from panal.access.model import Json


def _known(privs: Iterable[str]) -> frozenset[str]:
    wanted = frozenset(privs)
    for name in sorted(wanted - privileges.ALL):
        raise BadInput("privs", f"invalid privilege '{name}'; GET /access/roles/Administrator lists all")
    return wanted


def _changeable(roleid: str) -> None:
    if roleid in privileges.ROLES:
        raise BadInput("roleid", f"auto-generated role '{roleid}' cannot be modified; make one under another name")


async def create_role(access: Access, roleid: str, privs: Iterable[str] = ()) -> None:
    """Raises BadInput for an unknown privilege, Conflict when there is one."""
    message = f"create role failed: role '{roleid}' already exists"
    if roleid in privileges.ROLES or roleid.lower().startswith("pve"):
        if roleid in privileges.ROLES:
            raise Conflict(message)
        raise BadInput("roleid", "role names that begin with 'PVE' are reserved; take another one")
    await access.store.create(ROLE + roleid, {"v": 1, "uid": new_uid(), "privs": sorted(_known(privs))}, message)


async def update_role(access: Access, roleid: str, privs: Iterable[str], *, by: str, append: bool = False) -> None:
    """Replace the privileges, or with `append` add to them. Raises NotFound, BadInput, Forbidden."""
    _changeable(roleid)
    wanted = _known(privs)

    def change(value: Json | None) -> Json:
        if value is None:
            raise NotFound(f"role '{roleid}' does not exist")
        before = frozenset(value["privs"])
        now = before | wanted if append else wanted
        guard.may_widen_role(access, by, roleid, now - before)
        return {**value, "privs": sorted(now)}

    await access.store.update(ROLE + roleid, change)


async def delete_role(access: Access, roleid: str) -> None:
    """Remove it, and every permission that gives it."""
    _changeable(roleid)
    if access.store.get(ROLE + roleid) is None:
        raise NotFound(f"role '{roleid}' does not exist")
    await access.store.txn([], [Delete(ROLE + roleid)])
    for item in access.store.list(ACL):
        if roleid in item.value["roles"]:
            await access.store.update(item.key, lambda value: _without(value, roleid))


def _without(value: Json | None, roleid: str) -> Json | None:
    if value is None or roleid not in value["roles"]:
        return None
    # an entry without roles counts for nothing; the next change of it removes it
    return {**value, "roles": {n: r for n, r in value["roles"].items() if n != roleid}}
