"""Frozen models of what access keeps in the store, and the keys they live under.

Every user, group, role, token and pool has an immutable `uid`, and whoever refers to one keeps that uid beside the name: a
thing deleted and made again under the same name has nothing of the old one's rights (attack row 19).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

USER: Final = "access/user/"
GROUP: Final = "access/group/"
ROLE: Final = "access/role/"
ACL: Final = "access/acl/"
TOKEN: Final = "access/token/"  # noqa: S105
REALM: Final = "access/realm/"
LOCKOUT: Final = "access/lockout/"
REVOKED: Final = "access/revoked/"
PASSWORD: Final = "secret/access/password/"  # noqa: S105
TOKEN_SECRET: Final = "secret/access/token/"  # noqa: S105
KEY: Final = "secret/access/key/"
POOL: Final = "pool/"

ROOT: Final = "root@pam"


def new_uid() -> str:
    """An identity that no other object ever has."""
    return secrets.token_hex(8)


def acl_key(path: str, subject: str) -> str:
    """Store key of one entry. `/` in the path is escaped; `|` cannot stand in a path, so the first one splits."""
    return f"{ACL}{path.replace('/', '%')}|{subject}"


@dataclass(frozen=True, slots=True)
class User:
    """`expire` in seconds since the epoch, 0: never. `groups`: name → the group's uid. Tickets are signed over `epoch`."""

    userid: str
    uid: str
    enable: bool = True
    expire: int = 0
    epoch: int = 0
    groups: Mapping[str, str] = field(default_factory=dict)
    firstname: str = ""
    lastname: str = ""
    email: str = ""
    comment: str = ""

    @property
    def realm(self) -> str:
        """The part after the last `@`."""
        return self.userid.rpartition("@")[2]

    @property
    def name(self) -> str:
        """The part before it."""
        return self.userid.rpartition("@")[0]

    def problem(self, now_s: float) -> str | None:
        """Why this user may not log in now, in PVE's words; None when nothing stands against it."""
        if not self.enable:
            return f"user '{self.userid}' is disabled"
        if self.expire and self.expire <= now_s:
            return f"user '{self.userid}' access expired"
        return None


@dataclass(frozen=True, slots=True)
class Group:
    """Members are kept with the users."""

    groupid: str
    uid: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Role:
    """`special`: built in, cannot be changed."""

    roleid: str
    uid: str
    privs: frozenset[str]
    special: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """An API token: `userid!tokenid`. With `privsep` it has only what its own permissions and its user's both give."""

    userid: str
    tokenid: str
    uid: str
    user_uid: str
    privsep: bool = True
    expire: int = 0
    comment: str = ""

    @property
    def full(self) -> str:
        """Name of the token as a subject."""
        return f"{self.userid}!{self.tokenid}"


@dataclass(frozen=True, slots=True)
class Grant:
    """One permission: `kind` is user, group or token. `roles`: name → propagates."""

    path: str
    kind: str
    ugid: str
    uid: str
    roles: Mapping[str, bool]
    role_uids: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pool:
    """A named set of guests and storages."""

    poolid: str
    uid: str
    comment: str = ""
    vms: tuple[int, ...] = ()
    storages: tuple[str, ...] = ()


def user_from(userid: str, value: Json) -> User:
    """Read a stored user."""
    return User(
        userid, value["uid"], bool(value.get("enable", True)), int(value.get("expire", 0)), int(value.get("epoch", 0)),
        value.get("groups", {}), value.get("firstname", ""), value.get("lastname", ""), value.get("email", ""),
        value.get("comment", ""),
    )  # fmt: skip


def token_from(value: Json) -> Token:
    """Read a stored token."""
    return Token(
        value["userid"], value["tokenid"], value["uid"], value["user_uid"], bool(value["privsep"]),
        int(value.get("expire", 0)), value.get("comment", ""),
    )  # fmt: skip


def grant_from(value: Json) -> Grant:
    """Read a stored permission."""
    roles = value["roles"]
    return Grant(
        value["path"], value["type"], value["ugid"], value["uid"],
        {name: bool(entry["propagate"]) for name, entry in roles.items()},
        {name: entry["uid"] for name, entry in roles.items()},
    )  # fmt: skip


def pool_from(poolid: str, value: Json) -> Pool:
    """Read a stored pool."""
    return Pool(poolid, value["uid"], value.get("comment", ""), tuple(value["vms"]), tuple(value["storages"]))


def split_token(userid: str) -> tuple[str, str | None]:
    """`user@realm!token` → both parts; a plain user has None. The realm and a token's name hold neither `@` nor `!`."""
    owner, mark, token = userid.rpartition("!")
    return (owner, token) if mark and "@" in owner and "@" not in token else (userid, None)
