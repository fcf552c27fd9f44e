"""Nobody hands out, or takes over, more than he has (attack rows 12, 13). Every verb that changes who may do what asks here.

As in the Proxmox VE API, `Permissions.Modify` on a path is the right to grant anything there. Without it (one may also
grant on what one may allocate) only privileges that one has oneself. Stricter than there, on purpose:
- the credentials and groups of an account that holds an APEX privilege somewhere are changed only by who holds it there
  too: a help desk resets passwords of users, not of administrators;
- a token with privilege separation never counts as its user when credentials are concerned;
- root@pam is changed by root@pam only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from panal.access.model import ROOT
from panal.access.privileges import APEX, NO_ACCESS
from panal.core.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterable

    from panal.access.context import Access
    from panal.access.policy import Policy
    from panal.access.rights import UserRights


def _paths(policy: Policy) -> set[str]:
    return {"/", *(grant.path for grant in policy.grants)}


def _refuse(path: str, privs: Iterable[str], why: str) -> Forbidden:
    wanted = ", ".join(sorted(privs))
    return Forbidden(f"Permission check failed ({path}, {wanted}): {why}", path=path, privileges=wanted)


def own_account(caller: UserRights, userid: str) -> bool:
    """Whether the caller is this user, with all of his rights."""
    return caller.owner == userid and not caller.limited


def may_change_user(access: Access, by: str, userid: str) -> None:
    """Change, delete, or set the credentials of an account. Raises Forbidden."""
    caller = access.rights(by)
    if caller.is_root or own_account(caller, userid):
        return
    if userid == ROOT:
        raise Forbidden("Permission check failed (only root@pam may change root@pam)")
    if caller.owner == userid:
        raise Forbidden("Permission check failed (a token with privilege separation may not change its own user)")
    target = access.rights(userid)
    for path in sorted(_paths(access.policy)):
        over = (target.privileges(path).keys() & APEX) - caller.privileges(path).keys()
        if over:
            raise _refuse(path, over, f"'{userid}' holds more there than you do")


def may_fill_group(access: Access, by: str, groupid: str) -> None:
    """Put somebody into a group. Raises Forbidden."""
    caller = access.rights(by)
    if caller.is_root:
        return
    for grant in access.policy.grants:
        if grant.kind == "group" and grant.ugid == groupid:
            privs = {p for role in grant.roles for p in access.policy.roles[role].privs}
            over = (privs & APEX) - caller.privileges(grant.path).keys()
            if over:
                raise _refuse(grant.path, over, f"group '{groupid}' holds more there than you do")


def may_grant(access: Access, by: str, path: str, role: str, propagate: bool, subjects: set[str], delete: bool) -> None:
    """Give or take a role on a path. `subjects`: users, tokens and group names concerned. Raises Forbidden."""
    caller = access.rights(by)
    have = caller.privileges(path)
    if caller.is_root or "Permissions.Modify" in have:
        if propagate and not caller.is_root and not have["Permissions.Modify"]:
            raise _refuse(path, ["Permissions.Modify"], "yours does not propagate, so grant without propagation")
        return
    if role == NO_ACCESS:
        raise _refuse(path, ["Permissions.Modify"], "needed for NoAccess")
    over = {p for p in access.policy.roles[role].privs if p not in have or (propagate and not have[p])}
    if over:
        raise _refuse(path, over, f"role '{role}' holds more than you do")
    own = {caller.userid, caller.owner, *access.policy.groups_of(caller.owner)}
    if delete and subjects & own:
        # taking away one's own deeper permission uncovers what is inherited from above
        raise _refuse(path, ["Permissions.Modify"], "needed to take away your own permissions")


def may_widen_role(access: Access, by: str, roleid: str, added: frozenset[str]) -> None:
    """Add privileges to a role that is in use. Raises Forbidden."""
    caller = access.rights(by)
    for grant in access.policy.grants:
        if roleid in grant.roles and not caller.is_root:
            have = caller.privileges(grant.path)
            over = added - have.keys()
            if over and "Permissions.Modify" not in have:
                raise _refuse(grant.path, over, f"role '{roleid}' is in use there, and you hold less")
