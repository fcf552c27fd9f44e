"""The store of a single node: SQLite, write-ahead log, fsync on.

The history that watches catch up from is kept for HISTORY_REVISIONS revisions, the same contract as etcd's compaction.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

from panal.cluster.store.base import (
    MAX_OPERATIONS,
    MAX_TXN_BYTES,
    Absent,
    Check,
    Event,
    Item,
    Listing,
    Op,
    Put,
    TxnResult,
)
from panal.core.errors import BadInput, NotFound
from panal.host.database import Database

HISTORY_REVISIONS: Final = 10_000
_SCHEMA = (
    """
    create table item (key text primary key, value text not null, revision integer not null, created integer not null)
        without rowid;
    create table history (revision integer not null, position integer not null, key text not null, value text,
        created integer not null, primary key (revision, position)) without rowid;
    create table head (one integer primary key check (one = 1), revision integer not null);
    insert into head values (1, 0)
    """,
)


def validate(checks: Sequence[Check], ops: Sequence[Op]) -> list[str | None]:
    """The limits every engine keeps; returns the encoded value of each operation (None for a removal)."""
    if len(checks) > MAX_OPERATIONS or len(ops) > MAX_OPERATIONS:
        raise BadInput("ops", f"a transaction holds at most {MAX_OPERATIONS} checks and operations")
    keys = [op.key for op in ops]
    if len(set(keys)) != len(keys):
        raise BadInput("ops", "a transaction may touch a key only once")
    for key in [*keys, *(check.key for check in checks)]:
        if not key or len(key) > 512 or key.startswith("/") or not key.isprintable():
            raise BadInput("key", f"malformed key {key!r}")
    try:
        encoded = [
            json.dumps(op.value, separators=(",", ":"), allow_nan=False) if isinstance(op, Put) else None for op in ops
        ]
    except (TypeError, ValueError) as exc:
        raise BadInput("ops", f"a value is not JSON: {exc}") from exc
    size = sum(len(op.key) + len((text or "").encode()) for op, text in zip(ops, encoded, strict=True))
    if size > MAX_TXN_BYTES:
        raise BadInput("ops", f"a transaction holds at most {MAX_TXN_BYTES} bytes")
    return encoded


class SqliteStore:
    """Engine for one node. All watches are of this process: there is no other writer (a lock beside the file sees to it)."""

    def __init__(self, path: Path, history_revisions: int = HISTORY_REVISIONS) -> None:
        """Open or create the file; Failed when it is broken or newer than this version."""
        self._db = Database(path, _SCHEMA, durable=True, exclusive=True)
        self._history = history_revisions
        self._revision = self._db.run_now(_head)
        self._committed = asyncio.Event()
        self._closed = False

    async def get(self, key: str) -> Item | None:
        """The newest committed value."""

        def read(db: sqlite3.Connection) -> Item | None:
            row = db.execute("select key, value, revision, created from item where key = ?", (key,)).fetchone()
            return None if row is None else _item(row)

        return await self._db.run(read)

    async def list(self, prefix: str) -> Listing:
        """All keys under the prefix at one revision."""

        def read(db: sqlite3.Connection) -> Listing:
            # a range, not LIKE: `_` and `%` are ordinary characters of a key
            rows = db.execute(
                "select key, value, revision, created from item where key >= ? and key < ? order by key",
                (prefix, prefix + "\U0010ffff"),
            )
            return Listing(tuple(map(_item, rows)), _head(db))

        return await self._db.run(read)

    async def txn(self, checks: Sequence[Check], ops: Sequence[Op]) -> TxnResult:
        """Compare and set."""
        encoded = validate(checks, ops)

        def write(db: sqlite3.Connection) -> TxnResult:
            head = _head(db)
            for check in checks:
                row = db.execute("select revision from item where key = ?", (check.key,)).fetchone()
                if (row is not None) if isinstance(check, Absent) else (row is None or row[0] != check.revision):
                    return TxnResult(False, head)
            if not ops:
                return TxnResult(True, head)
            revision = head + 1
            changed = False
            for position, (op, text) in enumerate(zip(ops, encoded, strict=True)):
                row = db.execute("select created from item where key = ?", (op.key,)).fetchone()
                if text is None:
                    if row is None:
                        continue
                    db.execute("delete from item where key = ?", (op.key,))
                    created = row[0]
                else:
                    created = revision if row is None else row[0]
                    db.execute("insert or replace into item values (?, ?, ?, ?)", (op.key, text, revision, created))
                db.execute("insert into history values (?, ?, ?, ?, ?)", (revision, position, op.key, text, created))
                changed = True
            if not changed:  # only removals of what was not there: as in etcd, the revision stays
                return TxnResult(True, head)
            db.execute("update head set revision = ?", (revision,))
            if revision % 100 == 0:
                db.execute("delete from history where revision <= ?", (revision - self._history,))
            return TxnResult(True, revision)

        # Shielded: once begun it commits, so the caller's cancellation must not hide the new revision from watches.
        return await asyncio.shield(self._commit(write))

    async def _commit(self, write: Callable[[sqlite3.Connection], TxnResult]) -> TxnResult:
        result = await self._db.run(write)
        if result.ok and result.revision > self._revision:
            self._revision = result.revision
            self._committed.set()
            self._committed = asyncio.Event()
        return result

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[tuple[Event, ...]]:
        """Events after `revision`, a tuple per txn."""
        seen = revision
        while not self._closed:
            committed = self._committed
            if self._revision > seen:
                head, events = await self._db.run(lambda db, seen=seen: self._since(db, prefix, seen))  # type: ignore[misc]
                for number in sorted({e.revision for e in events}):
                    yield tuple(e for e in events if e.revision == number)
                seen = head
            else:
                await committed.wait()

    def _since(self, db: sqlite3.Connection, prefix: str, seen: int) -> tuple[int, Sequence[Event]]:
        head = _head(db)
        (oldest,) = db.execute("select min(revision) from history").fetchone()
        if oldest is not None and seen + 1 < oldest:
            raise NotFound(f"history before revision {oldest} is gone; list again")
        rows = db.execute(
            "select revision, key, value, created from history where revision > ? order by revision, position",
            (seen,),
        )
        return head, [
            Event(key, None if value is None else Item(key, json.loads(value), number, created), number)
            for number, key, value, created in rows
            if key.startswith(prefix)
        ]

    async def close(self) -> None:
        """Watches end, the file is closed."""
        self._closed = True
        self._committed.set()
        await asyncio.sleep(0)
        self._db.close()


def _head(db: sqlite3.Connection) -> int:
    return int(db.execute("select revision from head").fetchone()[0])


def _item(row: tuple[str, str, int, int]) -> Item:
    key, value, revision, created = row
    return Item(key, json.loads(value), revision, created)
