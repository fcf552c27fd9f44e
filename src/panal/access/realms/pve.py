"""Realm type `pve`: passwords of our own users, as argon2id hashes under `secret/access/password/`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from panal.access.model import PASSWORD
from panal.cluster.store import Delete, Op, Put

if TYPE_CHECKING:
    from panal.access.context import Access
    from panal.access.model import User

AT_ONCE: Final = 2


class PveRealm:
    """argon2id in a thread; each hash takes some 64 MiB and a core, so AT_ONCE run."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._dummy: str | None = None
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def check(self, access: Access, user: User | None, password: str) -> bool:
        """See RealmDriver. A hash that belongs to a former user of the same name does not count."""
        stored = access.store.value(PASSWORD + user.userid) if user is not None else None
        mine = stored is not None and user is not None and stored.get("uid") == user.uid
        encoded = str(stored["hash"]) if stored is not None and mine else None
        async with self._slots:
            return await asyncio.to_thread(self._verify, encoded, password)

    def _verify(self, encoded: str | None, password: str) -> bool:
        if self._dummy is None:
            self._dummy = self._hasher.hash("no such user")
        try:
            self._hasher.verify(encoded or self._dummy, password)
        except (VerificationError, InvalidHashError):
            return False
        return encoded is not None

    async def new_password(self, access: Access, userid: str, uid: str, password: str) -> list[Op]:
        """See RealmDriver."""
        async with self._slots:
            encoded = await asyncio.to_thread(self._hasher.hash, password)
        return [Put(PASSWORD + userid, {"v": 1, "uid": uid, "hash": encoded})]

    def deleted(self, userid: str) -> list[Op]:
        """See RealmDriver."""
        return [Delete(PASSWORD + userid)]
