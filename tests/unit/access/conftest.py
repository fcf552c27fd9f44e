"""A store, a clock that a test moves, and an Access over both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from panal.access import Access, bootstrap
from panal.access.model import GROUP, ROLE, USER, User, acl_key, new_uid
from panal.access.realms import PveRealm
from panal.cluster.store import Mirror, Op, Put, SqliteStore


class FakeClock:
    """Both clocks move only when told."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.now_s = now_s
        self.slept: list[float] = []

    def wall_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class FakePam:
    """PAM with one account, root; counts what it is asked."""

    def __init__(self) -> None:
        self.passwords = {"root@pam": "correct horse"}
        self.asked: list[str | None] = []

    async def check(self, access: Access, user: User | None, password: str) -> bool:
        self.asked.append(user.userid if user else None)
        return user is not None and self.passwords.get(user.userid) == password

    async def new_password(self, access: Access, userid: str, uid: str, password: str) -> list[Op]:
        self.passwords[userid] = password
        return []

    def deleted(self, userid: str) -> list[Op]:
        return []


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Mirror]:
    mirror = Mirror(SqliteStore(tmp_path / "store.db"))
    await mirror.start()
    yield mirror
    await mirror.close()


@pytest.fixture
async def access(store: Mirror, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Access]:
    made = Access(store, clock, tmp_path, realms={"pam": FakePam(), "pve": PveRealm(CHEAP)})
    await bootstrap(made)
    yield made
    made.audit.close()


async def put_user(access: Access, userid: str, **more: object) -> None:
    value = {"v": 1, "uid": new_uid(), "enable": True, "expire": 0, "epoch": 0, "groups": {}, **more}
    await access.store.txn([], [Put(USER + userid, value)])


async def put_group(access: Access, name: str, *members: str) -> None:
    uid = new_uid()
    await access.store.txn([], [Put(GROUP + name, {"v": 1, "uid": uid, "comment": ""})])
    for userid in members:
        value = dict(access.store.value(USER + userid) or {})
        value["groups"] = {**value["groups"], name: uid}
        await access.store.txn([], [Put(USER + userid, value)])


async def put_role(access: Access, name: str, *privs: str) -> None:
    await access.store.txn([], [Put(ROLE + name, {"v": 1, "uid": new_uid(), "privs": sorted(privs)})])


async def put_acl(access: Access, path: str, kind: str, ugid: str, **roles: bool) -> None:
    policy = access.policy
    of = {"user": policy.users, "group": policy.groups, "token": policy.tokens}[kind]
    uid = of[ugid].uid  # type: ignore[attr-defined]
    value = {
        "v": 1, "path": path, "type": kind, "ugid": ugid, "uid": uid,
        "roles": {n: {"propagate": p, "uid": policy.roles[n].uid} for n, p in roles.items()},
    }  # fmt: skip
    mark = "@" if kind == "group" else ""
    await access.store.txn([], [Put(acl_key(path, mark + ugid), value)])
