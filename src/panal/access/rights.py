"""The permission walk: which privileges one subject has on a path. Pure; the protocol is `Rights` in api/permission.py.

From `/` down to the path, at each level the token's own permissions count, else the user's, else the union of his groups';
a deeper level replaces what came from above; a permission that does not propagate counts on its exact path only; NoAccess
empties the set. A pool's roles are added on its members, never over NoAccess, and a pool's NoAccess wins there. A token
with privilege separation has the intersection of its own and its user's.

`GET /cluster/resources` asks for 10,000 paths: one costs two dictionary look-ups unless something is set on that very path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from panal.access import privileges
from panal.access.privileges import NO_ACCESS

if TYPE_CHECKING:
    from panal.access.model import Grant
    from panal.access.policy import Policy

Roles = Mapping[str, bool]
"""role → propagates"""
Levels = Mapping[str, tuple[Roles, Roles]]
"""path → roles that count there, roles handed down from there"""
Privileges = Mapping[str, bool]

_NONE: Final[Privileges] = MappingProxyType({})
_EVERYTHING: Final[Privileges] = MappingProxyType(dict.fromkeys(sorted(privileges.ALL), True))
MEMO_LIMIT: Final = 4096
DEPTH_LIMIT: Final = 16


def normal(path: str) -> str:
    """Without repeated and trailing slashes, so that a deeper NoAccess cannot be walked around."""
    if "//" in path or (len(path) > 1 and path.endswith("/")):
        return "/" + "/".join(part for part in path.split("/") if part)
    return path


def level_table(ranks: Sequence[Iterable[Grant]]) -> Levels:
    """Grants of one subject, the strongest rank first: at each path the first rank that has something there counts."""
    exact: dict[str, dict[str, bool]] = {}
    passed: dict[str, dict[str, bool]] = {}
    for rank in ranks:
        here: dict[str, dict[str, bool]] = {}
        down: dict[str, dict[str, bool]] = {}
        for grant in rank:
            for role, propagates in grant.roles.items():
                level = here.setdefault(grant.path, {})
                level[role] = level.get(role, False) or propagates
                if propagates:
                    down.setdefault(grant.path, {})[role] = True
        for path, roles in here.items():
            exact.setdefault(path, roles)
        for path, roles in down.items():
            passed.setdefault(path, roles)
    return {path: (roles, passed.get(path, {})) for path, roles in exact.items()}


class UserRights:
    """Rights of one user or token as of one policy. Answers are shared mappings: privilege → propagates."""

    __slots__ = (
        "_base",
        "_handed_down",
        "_levels",
        "_merged",
        "_policy",
        "_sets",
        "is_root",
        "limited",
        "owner",
        "userid",
    )

    def __init__(
        self,
        policy: Policy,
        userid: str,
        owner: str,
        levels: Levels,
        *,
        root: bool = False,
        limited: bool = False,
        base: UserRights | None = None,
    ) -> None:
        """`limited`: a token with privilege separation; `base`: the user whose rights bound it (None for root's)."""
        self.userid = userid
        self.owner = owner
        self.is_root = root
        self.limited = limited
        self._policy = policy
        self._levels = levels
        self._base = base
        self._handed_down: dict[str, tuple[Roles, Privileges]] = {}
        self._sets: dict[tuple[tuple[str, bool], ...], Privileges] = {}
        self._merged: dict[tuple[int, int], tuple[Privileges, Privileges, Privileges]] = {}

    def groups_of(self, userid: str) -> frozenset[str]:
        """Groups that a user is in."""
        return self._policy.groups_of(userid)

    def privileges(self, path: str) -> Privileges:
        """Privilege → propagates, on this permission path."""
        if self.is_root:
            return _EVERYTHING
        path = normal(path)
        if path.count("/") > DEPTH_LIMIT:  # no object is that deep; the walk is recursive and paths come from outside
            return _NONE
        own = self._own(path)
        if self._base is None or not own:
            return own
        return self._both(own, self._base.privileges(path))

    def _own(self, path: str) -> Privileges:
        level = self._levels.get(path)
        pools = self._policy.members.get(path)
        if level is None and pools is None:
            return _NONE if path == "/" else self._down(path.rpartition("/")[0] or "/")[1]
        roles = self._roles(path)
        if pools:  # a NoAccess of either side wins below
            roles = {**{role: False for pool in pools for role in self._roles(f"/pool/{pool}")}, **roles}
        return self._privileges_of(roles)

    def _roles(self, path: str) -> Roles:
        """Roles on a path, pools left out."""
        level = self._levels.get(path)
        if level is not None:
            return level[0]
        return {} if path == "/" else self._down(path.rpartition("/")[0] or "/")[0]

    def _down(self, path: str) -> tuple[Roles, Privileges]:
        """What children of `path` inherit."""
        known = self._handed_down.get(path)
        if known is not None:
            return known
        level = self._levels.get(path)
        if level and level[1]:
            roles = level[1]
        elif path == "/":
            roles = {}
        else:
            roles = self._down(path.rpartition("/")[0] or "/")[0]
        found = (roles, self._privileges_of(roles))
        if len(self._handed_down) >= MEMO_LIMIT:  # paths come from outside
            self._handed_down.clear()
        self._handed_down[path] = found
        return found

    def _privileges_of(self, roles: Roles) -> Privileges:
        if not roles or NO_ACCESS in roles:
            return _NONE
        key = tuple(sorted(roles.items()))
        known = self._sets.get(key)
        if known is None:
            found: dict[str, bool] = {}
            for role, propagates in key:
                for priv in self._policy.roles[role].privs:
                    found[priv] = found.get(priv, False) or propagates
            known = self._sets[key] = MappingProxyType(found)
        return known

    def _both(self, own: Privileges, base: Privileges) -> Privileges:
        # kept by identity: both are shared objects, and held here so that the identities stay theirs
        known = self._merged.get((id(own), id(base)))
        if known is None:
            merged = MappingProxyType({p: own[p] and base[p] for p in own if p in base})
            known = self._merged[id(own), id(base)] = (own, base, merged)
        return known[2]
