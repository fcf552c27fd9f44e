"""API tokens: made once shown once. Only the SHA-256 of a secret is kept."""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING, Any

from panal.access import guard
from panal.access.authenticate import secret_hash
from panal.access.model import TOKEN, TOKEN_SECRET, acl_key, new_uid, token_from
from panal.cluster.store import Absent, Delete, Put, Unchanged
from panal.core.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from panal.access.context import Access
    from panal.access.model import Token


def _secret() -> str:
    # the form clients expect; 122 bits from the system's generator
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def _sealed(uid: str, secret: str) -> dict[str, Any]:
    return {"v": 1, "uid": uid, "sha256": secret_hash(secret)}


def find(access: Access, userid: str, tokenid: str) -> Token:
    """Raises NotFound."""
    token = access.policy.tokens.get(f"{userid}!{tokenid}")
    if token is None:
        raise NotFound(f"no such token '{tokenid}' for user '{userid}'")
    return token


async def create_token(
    access: Access, userid: str, tokenid: str, *, by: str, fields: Mapping[str, Any]
) -> tuple[Token, str]:
    """The token and its secret. `fields`: some of comment, expire, privsep. Raises NotFound, Conflict, Forbidden."""
    user = access.policy.users.get(userid)
    if user is None:
        raise NotFound(f"no such user ('{userid}')")
    guard.may_change_user(access, by, userid)
    full = f"{userid}!{tokenid}"
    if full in access.policy.tokens:
        raise Conflict(f"Token '{tokenid}' for user '{userid}' already exists.")
    uid, secret = new_uid(), _secret()
    value = {
        "v": 1, "uid": uid, "userid": userid, "tokenid": tokenid, "user_uid": user.uid,
        "privsep": bool(fields.get("privsep", True)), "expire": int(fields.get("expire", user.expire)),
        "comment": str(fields.get("comment", "")),
    }  # fmt: skip
    stale = access.store.get(TOKEN + full)  # of a former user of this name
    check = Absent(TOKEN + full) if stale is None else Unchanged(stale.key, stale.revision)
    ops = [Put(TOKEN + full, value), Put(TOKEN_SECRET + full, _sealed(uid, secret))]
    if not (await access.store.txn([check], ops)).ok:
        raise Conflict(f"Token '{tokenid}' for user '{userid}' already exists.")
    return token_from(value), secret


async def update_token(
    access: Access, userid: str, tokenid: str, *, by: str, fields: Mapping[str, Any], regenerate: bool = False
) -> tuple[Token, str | None]:
    """Change comment, expire, privsep; with `regenerate` a new secret comes back and the old one is worthless."""
    find(access, userid, tokenid)
    guard.may_change_user(access, by, userid)
    key = f"{TOKEN}{userid}!{tokenid}"
    secret = _secret() if regenerate else None
    for _ in range(10):
        item = access.store.get(key)
        if item is None:
            raise NotFound(f"no such token '{tokenid}' for user '{userid}'")
        value = {**item.value, **{k: v for k, v in fields.items() if k in ("comment", "expire", "privsep")}}
        ops = [Put(key, value)]
        if secret is not None:
            ops.append(Put(f"{TOKEN_SECRET}{userid}!{tokenid}", _sealed(value["uid"], secret)))
        if (await access.store.txn([Unchanged(key, item.revision)], ops)).ok:
            return token_from(value), secret
    raise Conflict(f"token '{tokenid}' is being changed by too many others; try again")


async def delete_token(access: Access, userid: str, tokenid: str, *, by: str) -> None:
    """Remove it. Its permissions never count again (uid)."""
    token = find(access, userid, tokenid)
    guard.may_change_user(access, by, userid)
    grants = [g for g in access.policy.grants if g.kind == "token" and g.ugid == token.full]
    ops = [Delete(acl_key(g.path, token.full)) for g in grants[:90]]
    await access.store.txn([], [Delete(TOKEN + token.full), Delete(TOKEN_SECRET + token.full), *ops])
