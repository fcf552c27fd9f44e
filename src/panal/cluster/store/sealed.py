"""Encrypts values under `secret/` before they reach an engine, with a key that only full members have.

The witness and the store's files see `{"v": 1, "sealed": "…"}`. AES-256-GCM; the key's name is the associated data, so a
sealed value cannot be moved to another key.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from panal.cluster.store.base import Check, Event, Item, Listing, Op, Put, Store, TxnResult
from panal.core.errors import Failed

PREFIX: Final = "secret/"


def load_key(path: Path, store: Path) -> bytes:
    """Read the cluster key, or make it (0600) on a new node: one that has no `store` file yet. Failed.

    Call it before the store is opened: opening makes the file.
    """
    if not path.exists():
        if store.exists():
            # a new key would open nothing, and would hide that the old one is what is missing
            raise Failed(
                f"{path} is missing, but the store {store} was made with it: without that key its passwords, tokens and "
                f"certificates cannot be read. Restore {path.name} from the backup of {path.parent} and start again"
            )
        # written aside and linked: a crash in between must not leave an empty key
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(AESGCM.generate_key(256))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(aside)
        aside.unlink()
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
    key = path.read_bytes()
    if len(key) != 32:
        raise Failed(f"{path} is not a cluster key (32 bytes); restore it from a backup")
    return key


class SealedStore:
    """A store over another."""

    def __init__(self, store: Store, key: bytes) -> None:
        self._store = store
        self._cipher = AESGCM(key)

    def _seal(self, op: Op) -> Op:
        if not isinstance(op, Put) or not op.key.startswith(PREFIX):
            return op
        nonce = os.urandom(12)
        sealed = nonce + self._cipher.encrypt(nonce, json.dumps(op.value).encode(), op.key.encode())
        return Put(op.key, {"v": 1, "sealed": base64.b64encode(sealed).decode()})

    def _open(self, item: Item) -> Item:
        if not item.key.startswith(PREFIX):
            return item
        try:
            raw = base64.b64decode(item.value["sealed"])
            plain = self._cipher.decrypt(raw[:12], raw[12:], item.key.encode())
        except (InvalidTag, KeyError, ValueError) as exc:
            raise Failed(f"the value of {item.key} cannot be decrypted: wrong cluster key?") from exc
        return replace(item, value=json.loads(plain))

    async def get(self, key: str) -> Item | None:
        """See Store."""
        item = await self._store.get(key)
        return None if item is None else self._open(item)

    async def list(self, prefix: str) -> Listing:
        """See Store."""
        listing = await self._store.list(prefix)
        return Listing(tuple(map(self._open, listing.items)), listing.revision)

    async def txn(self, checks: Sequence[Check], ops: Sequence[Op]) -> TxnResult:
        """See Store."""
        return await self._store.txn(checks, [self._seal(op) for op in ops])

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[tuple[Event, ...]]:
        """See Store."""
        async for events in self._store.watch(prefix, revision):
            yield tuple(e if e.item is None else replace(e, item=self._open(e.item)) for e in events)

    async def close(self) -> None:
        """See Store."""
        await self._store.close()
