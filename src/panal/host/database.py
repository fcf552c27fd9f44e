"""A SQLite file with one thread of its own: what the store, the task index, the journal and the series are kept in.

Invariant: a function given to `run` is one transaction: it happens whole or not at all, and with `durable` it is on disk
when `run` returns. The schema version is checked at opening; a newer one than ours is refused, never changed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from panal.core.errors import Failed

T = TypeVar("T")


class Database:
    """One file, one connection, one thread."""

    def __init__(self, path: Path, schema: Sequence[str], *, durable: bool, exclusive: bool = False) -> None:
        """`schema[n]` are the statements that lead from version n to n+1. Raises Failed for a newer or broken file.

        `exclusive`: no second exclusive opener, in this process or another, while this one has the file: Failed there.
        """
        self.path = path
        self._closed = False
        self._lock = _lock(path) if exclusive else None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=path.name)
        try:
            self._db = self._pool.submit(self._open, path, schema, durable).result()
        except BaseException:
            self._pool.shutdown()
            self._unlock()
            raise

    @staticmethod
    def _open(path: Path, schema: Sequence[str], durable: bool) -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            db = sqlite3.connect(path, isolation_level=None)
            db.execute("pragma journal_mode = wal")
            db.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
            (version,) = db.execute("pragma user_version").fetchone()
            if version > len(schema):
                db.close()
                raise Failed(f"{path} was written by a newer version (schema {version}, this one knows {len(schema)})")
            for number in range(version, len(schema)):
                # executescript commits by itself, so the version goes into the same script
                db.executescript(f"begin; {schema[number]}; pragma user_version = {number + 1}; commit;")
        except sqlite3.DatabaseError as exc:
            raise Failed(f"{path} cannot be opened: {exc}; restore it from a backup or move it away") from exc
        return db

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction in the file's thread. Cancelling the caller does not stop a begun transaction."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._transaction, work)

    def run_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The same, blocking: for start-up and shut-down only."""
        return self._pool.submit(self._transaction, work).result()

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._db.execute("begin immediate")
            try:
                result = work(self._db)
                self._db.execute("commit")
            except BaseException:
                # sqlite rolls back by itself on some errors (full disk): a second rollback would hide the first error
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise
        except sqlite3.OperationalError as exc:
            way_out = "; free some space on its file system" if "full" in str(exc) else ""
            raise Failed(f"cannot write {self.path}: {exc}{way_out}") from exc
        return result

    def close(self) -> None:
        """Close the file; later calls raise RuntimeError, another `close` does nothing."""
        if not self._closed:
            self._closed = True
            self._pool.submit(self._db.close).result()
            self._pool.shutdown()
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(path: Path) -> int:
    """A lock beside the file (SQLite's own exclusive mode would keep readers out, too); gone with the process."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(path.with_name(path.name + "-lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise Failed(f"{path} is in use by another process; is the daemon running already?") from exc
    return fd
