"""Everything that decides about rights, as of one revision: built from the store, never changed.

`Access.policy` builds one when users, groups, roles, permissions, tokens or pools changed, and keeps it until the next
change. References whose uid does not match are left out here, once, so that nothing downstream can meet a stale one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from panal.access import privileges
from panal.access.model import (
    ACL,
    GROUP,
    POOL,
    ROLE,
    ROOT,
    TOKEN,
    USER,
    Grant,
    Group,
    Json,
    Pool,
    Role,
    Token,
    User,
    grant_from,
    pool_from,
    split_token,
    token_from,
    user_from,
)  # fmt: skip
from panal.access.rights import Levels, UserRights, level_table

BUILT_IN = "built-in"


@dataclass(frozen=True, slots=True)
class Policy:
    """One revision's users, groups, roles, tokens, grants and pools. `grants` hold only subjects and roles that exist."""

    users: Mapping[str, User] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)
    tokens: Mapping[str, Token] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()
    pools: Mapping[str, Pool] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """permission path of a pool's member → the pools it is in"""
    pool_of: Mapping[int, str] = field(default_factory=dict)
    _by_subject: dict[tuple[str, str], list[Grant]] = field(default_factory=dict)
    _rights: dict[str, UserRights] = field(default_factory=dict)

    def groups_of(self, userid: str) -> frozenset[str]:
        """Groups of a user; empty when there is no such user."""
        user = self.users.get(userid)
        return frozenset(user.groups) if user else frozenset()

    def members_of(self, groupid: str) -> list[str]:
        """Users of a group, sorted."""
        return sorted(u.userid for u in self.users.values() if groupid in u.groups)

    def tokens_of(self, userid: str) -> list[Token]:
        """A user's tokens, sorted."""
        return sorted((t for t in self.tokens.values() if t.userid == userid), key=lambda t: t.tokenid)

    def rights(self, userid: str) -> UserRights:
        """What a user or token may do. An unknown one may do nothing."""
        rights = self._rights.get(userid)
        if rights is None:
            rights = self._make(userid)
            # only who exists is kept, so that made-up names cannot fill the memory
            if userid in self.users or userid in self.tokens:
                self._rights[userid] = rights
        return rights

    def _make(self, userid: str) -> UserRights:
        token = self.tokens.get(userid)
        owner, tokenid = split_token(userid)
        if tokenid is not None and token is None:
            return UserRights(self, userid, owner, {}, limited=True)
        if owner not in self.users:
            return UserRights(self, userid, owner, {})
        if token is not None and token.privsep:
            levels = level_table([self._by_subject.get(("token", userid), [])])
            base = None if owner == ROOT else self.rights(owner)
            return UserRights(self, userid, owner, levels, limited=True, base=base)
        return UserRights(self, userid, owner, self._user_levels(owner), root=owner == ROOT)

    def _user_levels(self, userid: str) -> Levels:
        own = self._by_subject.get(("user", userid), [])
        of_groups = [g for name in self.groups_of(userid) for g in self._by_subject.get(("group", name), [])]
        return level_table([own, of_groups])


def build(items: Iterable[tuple[str, Json]]) -> Policy:
    """From the store's items under `access/` and `pool/`."""
    rooms: dict[str, dict[str, Json]] = {room: {} for room in (USER, GROUP, ROLE, TOKEN, ACL, POOL)}
    for key, value in items:
        for room, held in rooms.items():
            if key.startswith(room):
                held[key[len(room) :]] = value
    groups = {name: Group(name, v["uid"], v.get("comment", "")) for name, v in rooms[GROUP].items()}
    roles = {name: Role(name, BUILT_IN, privs, special=True) for name, privs in privileges.ROLES.items()}
    for name, value in rooms[ROLE].items():
        roles.setdefault(name, Role(name, value["uid"], frozenset(value["privs"]) & privileges.ALL))
    users = {name: _live_user(user_from(name, value), groups) for name, value in rooms[USER].items()}
    tokens = {}
    for value in rooms[TOKEN].values():
        token = token_from(value)
        owner = users.get(token.userid)
        if owner is not None and owner.uid == token.user_uid:
            tokens[token.full] = token
    grants = tuple(g for v in rooms[ACL].values() if (g := _live_grant(grant_from(v), users, groups, tokens, roles)))
    by_subject: dict[tuple[str, str], list[Grant]] = defaultdict(list)
    for grant in grants:
        by_subject[grant.kind, grant.ugid].append(grant)
    pools = {name: pool_from(name, value) for name, value in rooms[POOL].items()}
    members: dict[str, tuple[str, ...]] = {}
    for name, pool in sorted(pools.items()):
        for path in (*(f"/vms/{vmid}" for vmid in pool.vms), *(f"/storage/{storage}" for storage in pool.storages)):
            members[path] = (*members.get(path, ()), name)
    pool_of = {vmid: name for name, pool in pools.items() for vmid in pool.vms}
    return Policy(users, groups, roles, tokens, grants, pools, members, pool_of, dict(by_subject))


def _live_user(user: User, groups: Mapping[str, Group]) -> User:
    live = {name: uid for name, uid in user.groups.items() if name in groups and groups[name].uid == uid}
    if len(live) == len(user.groups):
        return user
    return User(
        user.userid, user.uid, user.enable, user.expire, user.epoch, live, user.firstname, user.lastname, user.email,
        user.comment,
    )  # fmt: skip


def _live_grant(
    grant: Grant,
    users: Mapping[str, User],
    groups: Mapping[str, Group],
    tokens: Mapping[str, Token],
    roles: Mapping[str, Role],
) -> Grant | None:
    subjects: Mapping[str, User | Group | Token] = {"user": users, "group": groups, "token": tokens}[grant.kind]  # type: ignore[assignment]
    subject = subjects.get(grant.ugid)
    if subject is None or subject.uid != grant.uid:
        return None
    live = {n: p for n, p in grant.roles.items() if n in roles and roles[n].uid == grant.role_uids[n]}
    return Grant(grant.path, grant.kind, grant.ugid, grant.uid, live, grant.role_uids) if live else None
