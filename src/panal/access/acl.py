"""Permissions: give or take roles on a path. An entry a path and subject, bound to the uids of subject and roles."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from panal.access import guard
from panal.access.model import Grant, acl_key, split_token
from panal.access.rights import normal
from panal.cluster.store import Delete
from panal.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from panal.access.context import Access
    from panal.access.model import Group, Json, Token, User
    from panal.cluster.store import Op

_N = r"[A-Za-z0-9.\-_]+"
_PATH: Final = re.compile(
    rf"/|/access(/groups(/{_N})?|/realm(/{_N})?)?|/nodes(/{_N})?|/pool(/{_N}){{0,3}}|/storage(/{_N})?|/vms(/[1-9][0-9]{{2,8}})?"
    rf"|/sdn(/zones(/{_N}){{0,3}}|/(controllers|dns|fabrics|ipams|prefix-lists|route-maps)(/{_N})?)?|/mapping(/{_N}){{0,2}}"
)


def checked_path(path: str) -> str:
    """The normal form. Raises BadInput for a path on which no permission can stand."""
    clean = normal(path)
    if len(path) > 256 or not _PATH.fullmatch(clean):
        raise BadInput(
            "path", f"invalid ACL path '{path[:256]}'; take one like /vms/100, /storage/local, /pool/web or /"
        )
    return clean


def _subject(access: Access, kind: str, ugid: str) -> User | Group | Token:
    policy = access.policy
    found: User | Group | Token | None
    if kind == "user":
        found = policy.users.get(ugid)
    elif kind == "group":
        found = policy.groups.get(ugid)
    else:
        found = policy.tokens.get(ugid)
    if found is None:
        raise BadInput(f"{kind}s", f"no such {kind} ('{ugid}')" if kind != "token" else f"no such token '{ugid}'")
    return found


async def change_acl(
    access: Access,
    path: str,
    roles: Sequence[str],
    *,
    by: str,
    users: Sequence[str] = (),
    groups: Sequence[str] = (),
    tokens: Sequence[str] = (),
    propagate: bool = True,
    delete: bool = False,
) -> None:
    """Give the roles to all subjects, or take them. Checks everything first. Raises BadInput, Forbidden."""
    path = checked_path(path)
    subjects = [
        *(("user", u) for u in users), *(("group", g) for g in groups), *(("token", t) for t in tokens),
    ]  # fmt: skip
    if not subjects:
        raise BadInput("users", "name at least one of users, groups or tokens")
    if not roles:
        raise BadInput("roles", "name at least one role")
    if len(subjects) > 500:
        raise BadInput("users", "at most 500 users, groups and tokens at once")
    for _, token in (s for s in subjects if s[0] == "token"):
        if split_token(token)[1] is None:
            raise BadInput("tokens", f"'{token}' does not look like USER@REALM!TOKENID")
    for role in roles:
        if role not in access.policy.roles:
            raise BadInput("roles", f"role '{role}' does not exist")
        guard.may_grant(access, by, path, role, propagate, {ugid for _, ugid in subjects}, delete)
    uids = {}
    for kind, ugid in subjects:
        if not delete:
            uids[kind, ugid] = _subject(access, kind, ugid).uid
    for kind, ugid in dict.fromkeys(subjects):
        key = acl_key(path, ("@" if kind == "group" else "") + ugid)
        if delete:
            await access.store.update(key, lambda value: _taken(value, roles, key))  # noqa: B023 - runs before the next
        else:
            head: Json = {"v": 1, "path": path, "type": kind, "ugid": ugid, "uid": uids[kind, ugid]}
            given: Json = {r: {"propagate": propagate, "uid": access.policy.roles[r].uid} for r in roles}
            await access.store.update(key, lambda value: _given(value, head, given))  # noqa: B023


def _given(value: Json | None, head: Json, roles: Json) -> Json:
    # an entry of a former subject of this name is not added to, it is replaced
    old = value["roles"] if value is not None and value["uid"] == head["uid"] else {}
    return {**head, "roles": {**old, **roles}}


def _taken(value: Json | None, roles: Sequence[str], key: str) -> Json | Op | None:
    if value is None:
        return None
    left = {name: role for name, role in value["roles"].items() if name not in roles}
    return {**value, "roles": left} if left else Delete(key)


def visible(access: Access, userid: str) -> list[Grant]:
    """Permissions a caller may see: all with Permissions.Modify or Sys.Audit on /access, else where he may change them."""
    rights = access.rights(userid)
    have = rights.privileges("/access")
    everything = "Sys.Audit" in have or "Permissions.Modify" in have
    return [g for g in access.policy.grants if everything or "Permissions.Modify" in rights.privileges(g.path)]
