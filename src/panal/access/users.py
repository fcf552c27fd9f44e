"""Users: create, change, delete, password. A user made again under an old name is somebody else (attack row 19)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from panal.access import guard
from panal.access.model import ACL, LOCKOUT, ROOT, TOKEN, TOKEN_SECRET, USER, new_uid
from panal.cluster.store import MAX_OPERATIONS, Absent, Delete, Op, Put, Unchanged
from panal.core.errors import BadInput, Conflict, Forbidden, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from panal.access.context import Access
    from panal.access.model import Json
    from panal.access.realms import RealmDriver

FIELDS: Final = ("enable", "expire", "firstname", "lastname", "email", "comment")
# would be taken apart in lists, or be mistaken for a token
_UNSAFE = re.compile(r"[!,;|\"'\\<>]")


def _no_such(userid: str) -> NotFound:
    return NotFound(f"no such user ('{userid}')")


def driver_of(access: Access, userid: str) -> RealmDriver:
    """The driver of the user's realm. Raises BadInput for an unknown realm."""
    realm = userid.rpartition("@")[2]
    kind = access.realm_type(realm)
    if kind is None or kind not in access.realms:
        raise BadInput("userid", f"realm '{realm}' does not exist; GET /access/domains lists those there are")
    return access.realms[kind]


def _group_uids(access: Access, by: str, groups: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in groups:
        group = access.policy.groups.get(name)
        if group is None:
            raise BadInput("groups", f"no such group '{name}'")
        guard.may_fill_group(access, by, name)
        found[name] = group.uid
    return found


async def create_user(
    access: Access,
    userid: str,
    *,
    by: str,
    fields: Mapping[str, Any] | None = None,
    groups: Iterable[str] = (),
    password: str | None = None,
) -> None:
    """A new user. `fields`: some of FIELDS. Raises BadInput, Conflict when there is one, Forbidden."""
    name = userid.rpartition("@")[0]
    if _UNSAFE.search(name) or not userid.isprintable() or name.startswith("-"):
        raise BadInput("userid", "a user name must not contain any of ! , ; | \" ' \\ < > or begin with a dash")
    driver = driver_of(access, userid)
    if access.store.get(USER + userid) is not None:
        raise Conflict(f"create user failed: user '{userid}' already exists")
    uid = new_uid()
    value: Json = {
        "v": 1, "uid": uid, "enable": True, "expire": 0, "epoch": 0, "groups": _group_uids(access, by, groups),
        **{k: v for k, v in (fields or {}).items() if k in FIELDS},
    }  # fmt: skip
    ops: list[Op] = [Put(USER + userid, value), Delete(LOCKOUT + userid)]
    if password is not None:
        ops += await driver.new_password(access, userid, uid, password)
    if not (await access.store.txn([Absent(USER + userid)], ops)).ok:
        raise Conflict(f"create user failed: user '{userid}' already exists")


async def update_user(
    access: Access,
    userid: str,
    *,
    by: str,
    fields: Mapping[str, Any],
    groups: Iterable[str] | None = None,
    append: bool = False,
) -> None:
    """Change some of FIELDS; `groups` replaces the membership, or with `append` adds to it. Disabling ends all sessions."""
    if userid not in access.policy.users:
        raise _no_such(userid)
    guard.may_change_user(access, by, userid)
    added = None
    if groups is not None:
        wanted = list(groups)
        new = [g for g in wanted if g not in access.policy.groups_of(userid)]
        _group_uids(access, by, new)
        added = {g: access.policy.groups[g].uid for g in wanted}
    changes = {k: v for k, v in fields.items() if k in FIELDS}

    def change(value: Json | None) -> Json:
        if value is None:
            raise _no_such(userid)
        result = {**value, **changes}
        if added is not None:
            result["groups"] = {**value.get("groups", {}), **added} if append else added
        if value.get("enable", True) and not result["enable"]:
            result["epoch"] = int(value.get("epoch", 0)) + 1
        return result

    await access.store.update(USER + userid, change)


async def delete_user(access: Access, userid: str, *, by: str) -> None:
    """Remove the user with password, tokens and permissions. What a crash leaves behind never counts again."""
    user = access.policy.users.get(userid)
    item = access.store.get(USER + userid)
    if user is None or item is None:
        raise _no_such(userid)
    if userid == ROOT:
        raise Forbidden("root@pam cannot be deleted; disable it instead")
    guard.may_change_user(access, by, userid)
    kind = access.realms.get(access.realm_type(user.realm) or "")
    first: list[Op] = [Delete(USER + userid), Delete(LOCKOUT + userid), *(kind.deleted(userid) if kind else [])]
    tokens = [t.full for t in access.policy.tokens_of(userid)]
    rest: list[Op] = [Delete(room + full) for full in tokens for room in (TOKEN, TOKEN_SECRET)]
    rest += [Delete(i.key) for i in access.store.list(ACL) if i.value["ugid"] in (userid, *tokens)]
    space = MAX_OPERATIONS - len(first)
    if not (await access.store.txn([Unchanged(item.key, item.revision)], [*first, *rest[:space]])).ok:
        raise Conflict(f"user '{userid}' is being changed by somebody else; try again")
    for at in range(space, len(rest), MAX_OPERATIONS):
        await access.store.txn([], rest[at : at + MAX_OPERATIONS])


async def set_password(access: Access, userid: str, password: str, *, by: str) -> None:
    """Change a password; every ticket of the user is worthless afterwards. Raises NotFound, Forbidden, Failed."""
    user = access.policy.users.get(userid)
    if user is None:
        raise _no_such(userid)
    guard.may_change_user(access, by, userid)
    ops = await driver_of(access, userid).new_password(access, userid, user.uid, password)
    for _ in range(10):
        item = access.store.get(USER + userid)
        if item is None or item.value["uid"] != user.uid:
            raise _no_such(userid)
        value = {**item.value, "epoch": int(item.value.get("epoch", 0)) + 1}
        if (await access.store.txn([Unchanged(item.key, item.revision)], [Put(item.key, value), *ops])).ok:
            return
    raise Conflict(f"user '{userid}' is being changed by too many others; try again")
