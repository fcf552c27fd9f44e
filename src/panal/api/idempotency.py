"""`Idempotency-Key`: a POST repeated with the same key gets the same answer for 24 hours and runs once.

Kept in `<state>/idempotency.db`, so a repetition after a restart of the daemon is recognised too. Only successes are kept: a
failed request may be tried again with its key. A request that was cut off by a crash of the daemon left no answer: its
repetition runs again (the caller sees by the task list whether it happened). Bounded: KEEP_PER_USER keys a user, the oldest
go first; answers over MAX_BODY_BYTES are not kept.

Of what was sent only a digest is kept, keyed with the node's cluster key: a body may hold a password, and nobody who gets hold
of the file alone can try passwords against it.
"""

from __future__ import annotations

import asyncio
import hmac
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from panal.api.wire import model
from panal.core.clock import Clock
from panal.core.errors import BadInput, Busy
from panal.host.database import Database

if TYPE_CHECKING:
    from panal.api.dispatch import Reply

KEEP_S: Final = 24 * 3600
KEEP_PER_USER: Final = 1000
MAX_BODY_BYTES: Final = 64 * 1024
MAX_KEY_CHARS: Final = 128
_MAX_RUNNING: Final = 1000
_SCHEMA = (
    """
    create table answer (user text not null, path text not null, key text not null, at real not null, sent blob not null,
        header blob not null, body blob not null, primary key (user, path, key)) without rowid;
    create index answer_at on answer (user, at)
    """,
)

Key = tuple[str, str, str]
"""user, path, the caller's key"""


class Replays:
    """Answers that may be asked for again."""

    def __init__(self, path: Path, clock: Clock, secret: bytes) -> None:
        """`secret` keys the digests of what was sent, which may hold passwords: the cluster key."""
        self._db = Database(path, _SCHEMA, durable=False)
        self._clock = clock
        self._key = hmac.digest(secret, b"Idempotency-Key", "sha256")
        self._running: dict[Key, asyncio.Event] = {}

    async def once(self, key: Key, sent: bytes, run: Callable[[], Awaitable[Reply]]) -> Reply:
        """Run, or give back what an earlier run answered. A second caller waits for the first."""
        if not key[2].isprintable() or not 0 < len(key[2]) <= MAX_KEY_CHARS:
            raise BadInput("Idempotency-Key", f"must be 1 to {MAX_KEY_CHARS} printable characters")
        digest = hmac.digest(self._key, sent, "sha256")
        while (running := self._running.get(key)) is not None:
            async with asyncio.timeout(600):
                await running.wait()
        if len(self._running) >= _MAX_RUNNING:
            raise Busy("too many requests with an Idempotency-Key are running; try again")
        done = self._running[key] = asyncio.Event()
        try:
            kept = await self._read(key, digest)
            if kept is not None:
                return kept
            reply = await run()
            if reply.answer.status == 200 and not reply.descriptors and len(reply.body) <= MAX_BODY_BYTES:
                await asyncio.shield(self._keep(key, digest, reply))
            return reply
        finally:
            del self._running[key]
            done.set()

    async def _read(self, key: Key, digest: bytes) -> Reply | None:
        from panal.api.dispatch import Reply

        sql = "select sent, header, body from answer where user = ? and path = ? and key = ? and at > ?"
        since = self._clock.wall_s() - KEEP_S
        row = await self._db.run(lambda db: db.execute(sql, (*key, since)).fetchone())
        if row is None:
            return None
        if row[0] != digest:
            raise BadInput("Idempotency-Key", "was used with other parameters; take a new key for a new request")
        return Reply(model.read_answer(row[1]), row[2])

    async def _keep(self, key: Key, digest: bytes, reply: Reply) -> None:
        now = self._clock.wall_s()
        row = (*key, now, digest, model.encode(reply.answer), reply.body)

        def write(db: sqlite3.Connection) -> None:
            db.execute("delete from answer where at <= ?", (now - KEEP_S,))
            db.execute("insert or replace into answer values (?, ?, ?, ?, ?, ?, ?)", row)
            # the primary key is the row here, so the oldest are named by it
            old = "select path, key from answer where user = ? order by at desc limit -1 offset ?"
            for path, name in db.execute(old, (key[0], KEEP_PER_USER)).fetchall():
                db.execute("delete from answer where user = ? and path = ? and key = ?", (key[0], path, name))

        await self._db.run(write)

    def close(self) -> None:
        """Close the file."""
        self._db.close()
