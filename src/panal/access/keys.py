"""The keys tickets are signed with: RSA, one current and the older ones whose tickets may still live.

Kept under `secret/access/key/<n>` (encrypted by the store). A new one every KEY_LIFE_S; an old one goes when no ticket
signed with it can be valid any more. Each record also holds the secret of the CSRF tokens of that time. Wall clocks are
compared here: key age is in days, and nodes refuse to differ by more than seconds (design section 7).
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from panal.access.model import KEY
from panal.cluster.store import Absent, Delete, Item, Put
from panal.core.errors import Failed, Unavailable

if TYPE_CHECKING:
    from panal.cluster.store import Mirror
    from panal.core.clock import Clock

TICKET_LIFE_S: Final = 2 * 3600
GRACE_S: Final = 300
KEY_LIFE_S: Final = 24 * 3600
KEY_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class TicketKey:
    """One key pair with the CSRF secret of its time."""

    number: int
    created_s: float
    private: rsa.RSAPrivateKey = field(repr=False)
    public: rsa.RSAPublicKey
    csrf: bytes = field(repr=False)


class Keyring:
    """All keys, newest first, as the store has them."""

    def __init__(self, store: Mirror, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._loaded: dict[str, tuple[int, TicketKey]] = {}
        self._lock = asyncio.Lock()

    def all(self) -> list[TicketKey]:
        """Keys whose tickets may live, newest first."""
        items = self._store.list(KEY)
        for gone in self._loaded.keys() - {item.key for item in items}:
            del self._loaded[gone]
        keys = sorted((self._load(item) for item in items), key=lambda k: k.number, reverse=True)
        # what lies in the store a little longer (no rotation ran) must not count longer
        oldest = self._clock.wall_s() - KEY_LIFE_S - TICKET_LIFE_S - 2 * GRACE_S
        return [key for place, key in enumerate(keys) if place == 0 or keys[place - 1].created_s > oldest + KEY_LIFE_S]

    def _load(self, item: Item) -> TicketKey:
        known = self._loaded.get(item.key)
        if known is not None and known[0] == item.revision:
            return known[1]
        private = serialization.load_pem_private_key(item.value["pem"].encode(), password=None)
        if not isinstance(private, rsa.RSAPrivateKey):
            raise Failed(f"{item.key} is not an RSA key; delete it, a new one is made")
        key = TicketKey(
            int(item.key[len(KEY) :]), float(item.value["created_s"]), private, private.public_key(),
            base64.b64decode(item.value["csrf"]),
        )  # fmt: skip
        self._loaded[item.key] = (item.revision, key)
        return key

    async def current(self) -> TicketKey:
        """The key to sign with: rotated first when it is due."""
        keys = self.all()
        if keys and _young(keys[0].created_s, self._clock.wall_s()):
            return keys[0]
        async with self._lock:
            await self.rotate()
        keys = self.all()
        if not keys:
            raise Unavailable("there is no ticket key yet; try again")
        return keys[0]

    async def rotate(self) -> bool:
        """Make a new key when the newest is due; drop those nothing can be signed with any more. True: a new one."""
        now = self._clock.wall_s()
        items = sorted(self._store.list(KEY), key=lambda item: int(item.key[len(KEY) :]))
        if items and _young(float(items[-1].value["created_s"]), now):
            return False
        number = int(items[-1].key[len(KEY) :]) + 1 if items else 1
        pem = await asyncio.to_thread(_make_pem)
        value = {"v": 1, "pem": pem, "csrf": base64.b64encode(secrets.token_bytes(32)).decode(), "created_s": now}
        # a key stops signing when its successor is made; a ticket life later it is of no use
        replaced = itertools.pairwise(items)
        useless = [a.key for a, b in replaced if float(b.value["created_s"]) + TICKET_LIFE_S + 2 * GRACE_S < now]
        key = f"{KEY}{number:010d}"
        result = await self._store.txn([Absent(key)], [Put(key, value), *map(Delete, useless)])
        return result.ok


def _young(created_s: float, now_s: float) -> bool:
    """Whether a key still signs; one from the future (the clock was wrong) does not."""
    return now_s - KEY_LIFE_S < created_s <= now_s + GRACE_S


def _make_pem() -> str:
    key = rsa.generate_private_key(65537, KEY_BITS)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
