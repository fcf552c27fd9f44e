"""Permission forms of the method table. A method without one does not build (attack row 6).

Forms, as in the Proxmox VE API: any login, no login at all, root only, privileges on a path (all, any, or only when a
parameter is given), the user a parameter names (himself, or an administrator of his realm), membership in a group one may
modify, `and`, `or`, and *described*: decided in the handler because it depends on what is found there (a test demands a
handler that calls `call.require`).

`check` is pure: everything it needs is asked of `Rights`, which `access` implements over one revision of the store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from panal.core.errors import Forbidden
from panal.core.formats import split_list


class Rights(Protocol):
    """What one caller may do, as of one revision."""

    userid: str
    """the acting user: `name@realm`, or `name@realm!token`"""

    @property
    def owner(self) -> str:
        """The user behind it: without the token part."""

    @property
    def is_root(self) -> bool:
        """root@pam itself (not through a token with privilege separation)."""

    def privileges(self, path: str) -> Mapping[str, bool]:
        """Privilege → propagates, on this permission path."""

    def groups_of(self, userid: str) -> frozenset[str]:
        """Groups that a user is in; empty when there is no such user."""


class Permission(Protocol):
    """A form."""

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """Raise Forbidden with PVE's sentence."""

    def describe(self) -> str:
        """For OpenAPI, docs and the denied caller."""


def denied(path: str, *privs: str, any_of: bool = False) -> Forbidden:
    """The error clients of PVE know."""
    wanted = ("|" if any_of else ", ").join(privs)
    return Forbidden(f"Permission check failed ({path}, {wanted})", path=path, privileges=wanted)


@dataclass(frozen=True, slots=True)
class World:
    """No login needed."""

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """Always."""

    def describe(self) -> str:
        """For docs."""
        return "Accessible without any authentication."


@dataclass(frozen=True, slots=True)
class AnyUser:
    """Any login; the answer holds only what the caller may see (`filtered` says how, for docs)."""

    filtered: str = ""

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """The dispatcher already demanded a login."""

    def describe(self) -> str:
        """For docs."""
        return self.filtered or "Accessible by all authenticated users."


@dataclass(frozen=True, slots=True)
class RootOnly:
    """root@pam."""

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """root@pam, and nobody with the same privileges."""
        if not rights.is_root:
            raise Forbidden("Permission check failed (user != root@pam)")

    def describe(self) -> str:
        """For docs."""
        return "Only root@pam."


@dataclass(frozen=True, slots=True)
class Described:
    """Decided by the handler through `call.require…`; `text` says how."""

    text: str

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """In the handler."""

    def describe(self) -> str:
        """For docs."""
        return self.text


@dataclass(frozen=True, slots=True)
class Perm:
    """Privileges on a path template (`/vms/{vmid}`): all of them, or any. With `when`, only if that parameter is given."""

    path: str
    privs: tuple[str, ...]
    any_of: bool = False
    when: str | None = None

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """Look at the filled-in path. With `when` and without the parameter the form says no (it stands inside `or`)."""
        if self.when is not None and params.get(self.when) in (None, ""):
            raise Forbidden(f"Permission check failed (parameter '{self.when}' needed)")
        path = fill(self.path, params)
        have = rights.privileges(path)
        if not (any if self.any_of else all)(priv in have for priv in self.privs):
            raise denied(path, *self.privs, any_of=self.any_of)

    def describe(self) -> str:
        """For docs."""
        words = (" or " if self.any_of else " and ").join(self.privs)
        return f"{words} on {self.path}" + (f", when '{self.when}' is given" if self.when else "")


def perm(path: str, *privs: str, any_of: bool = False, when: str | None = None) -> Perm:
    """Short form of Perm."""
    return Perm(path, privs, any_of, when)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every form must agree."""

    forms: tuple[Permission, ...]

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """In order; the first no is the answer."""
        for form in self.forms:
            form.check(rights, params)

    def describe(self) -> str:
        """For docs."""
        return " and ".join(f"({f.describe()})" for f in self.forms)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One form must agree."""

    forms: tuple[Permission, ...]

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """In order; the first no is the answer when none agrees."""
        first: Forbidden | None = None
        for form in self.forms:
            try:
                form.check(rights, params)
            except Forbidden as exc:
                first = first or exc
            else:
                return
        raise first or Forbidden("Permission check failed")

    def describe(self) -> str:
        """For docs."""
        return " or ".join(f"({f.describe()})" for f in self.forms)


def all_of(*forms: Permission) -> AllOf:
    """Short form of AllOf."""
    return AllOf(forms)


def one_of(*forms: Permission) -> OneOf:
    """Short form of OneOf."""
    return OneOf(forms)


@dataclass(frozen=True, slots=True)
class Self:
    """The parameter `userid` names the caller (the user behind a token counts)."""

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """Compare names."""
        if params.get("userid") != rights.owner:
            raise Forbidden("Permission check failed (user is not the caller)")

    def describe(self) -> str:
        """For docs."""
        return "the caller's own user"


@dataclass(frozen=True, slots=True)
class RealmPriv:
    """A privilege on the realm of the parameter `userid`."""

    priv: str = "Realm.AllocateUser"

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """Look at /access/realm/REALM."""
        realm = str(params.get("userid", "")).rpartition("@")[2]
        path = f"/access/realm/{realm}"
        if self.priv not in rights.privileges(path):
            raise denied(path, self.priv)

    def describe(self) -> str:
        """For docs."""
        return f"{self.priv} on /access/realm/REALM of the user"


@dataclass(frozen=True, slots=True)
class UserGroup:
    """Any of the privileges on /access/groups, or on a group that the user is in.

    `groups_param` "create": every group named in the parameter must allow it, when groups are given; "update": also the
    groups the user would be put into.
    """

    privs: tuple[str, ...]
    groups_param: str | None = None

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """Look at /access/groups and at each group."""

        def may(path: str) -> bool:
            return any(priv in rights.privileges(path) for priv in self.privs)

        if may("/access/groups"):
            return
        wanted = split_list(str(params.get("groups") or "")) if self.groups_param else []
        if self.groups_param == "create":
            if wanted and all(may(f"/access/groups/{group}") for group in wanted):
                return
        elif any(may(f"/access/groups/{group}") for group in rights.groups_of(str(params.get("userid", "")))) and all(
            may(f"/access/groups/{group}") for group in wanted
        ):
            return
        raise denied("/access/groups", *self.privs, any_of=True)

    def describe(self) -> str:
        """For docs."""
        return f"{' or '.join(self.privs)} on /access/groups or on a group of the user"


@dataclass(frozen=True, slots=True)
class PermModify:
    """May change permissions at the path in parameter `path`.

    `Permissions.Modify` there; or, on objects that one may allocate, that privilege: see `MODIFY_ALTERNATIVES`. The handler
    also refuses to hand out privileges that the caller does not have (access/acl.py).
    """

    def check(self, rights: Rights, params: Mapping[str, Any]) -> None:
        """Look at the path itself."""
        path = str(params.get("path", ""))
        have = rights.privileges(path)
        alternative = next((p for root, p in MODIFY_ALTERNATIVES if re.match(rf"{root}/[^/]", path)), None)
        if "Permissions.Modify" in have or (alternative is not None and alternative in have):
            return
        raise denied(path, "Permissions.Modify")

    def describe(self) -> str:
        """For docs."""
        return "Permissions.Modify on the path, or the right to allocate the object there"


MODIFY_ALTERNATIVES = (
    ("/storage", "Datastore.Allocate"),
    ("/vms", "VM.Allocate"),
    ("/pool", "Pool.Allocate"),
)


def fill(template: str, params: Mapping[str, Any]) -> str:
    """`/vms/{vmid}` with the values of `params`."""
    return re.sub(r"\{([^}]+)\}", lambda m: str(params.get(m[1], "")), template)
