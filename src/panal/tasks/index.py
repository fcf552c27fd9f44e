"""The task index and the journal of steps: two SQLite files under `<state>/tasks/`.

The index says which tasks there are and how they ended; losing its last moments in a power cut is allowed (a task without an
end is ended as interrupted at the next start). The journal decides what is undone after a crash: every write is on disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from panal.host.database import Database
from panal.tasks.model import TaskRecord, Upid
from panal.tasks.steps import Args, Entry

_INDEX = (
    """
    create table task (upid text primary key, type text not null, id text not null, user text not null,
        started real not null, ended real, status text) without rowid;
    create index task_started on task (started);
    create index task_open on task (ended) where ended is null
    """,
)
_JOURNAL = (
    """
    create table entry (upid text primary key, kind text not null, args text not null, begun integer not null,
        committed integer not null, number integer not null) without rowid
    """,
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tasks to list; None means any. `statuses`: ok, warning, error, unknown. Times in seconds.

    `owner`: a user, or any of his tokens; `user_part`: some part of the name.
    """

    running: bool | None = None
    id: str | None = None
    user: str | None = None
    owner: str | None = None
    user_part: str | None = None
    type: str | None = None
    since: float | None = None
    until: float | None = None
    statuses: frozenset[str] | None = None


def normalized(status: str | None) -> str:
    """PVE's classes of an end: ok, warning, unknown, error."""
    if status is None or status == "unexpected status":
        return "unknown"
    if status == "OK":
        return "ok"
    return "warning" if status.startswith("WARNINGS: ") else "error"


class Index:
    """All tasks of this node, bounded by age and number (`trim`)."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _INDEX, durable=False)

    async def add(self, record: TaskRecord) -> None:
        """A new task."""
        u = record.upid
        row = (str(u), u.type, u.id, u.user, record.started)
        await self._db.run(lambda db: db.execute("insert into task values (?, ?, ?, ?, ?, null, null)", row))

    async def end(self, upid: str, ended: float, status: str) -> None:
        """It ended; only the first end counts."""
        sql = "update task set ended = ?, status = ? where upid = ? and ended is null"
        await self._db.run(lambda db: db.execute(sql, (ended, status, upid)))

    async def get(self, upid: str) -> TaskRecord | None:
        """One task."""
        sql = "select upid, started, ended, status from task where upid = ?"
        row = await self._db.run(lambda db: db.execute(sql, (upid,)).fetchone())
        return None if row is None else _record(row)

    async def list(self, want: Filter, start: int = 0, limit: int = 50) -> tuple[Sequence[TaskRecord], int]:
        """Newest first, from `start`, at most `limit`; with the total number that match."""
        where, values = _where(want)

        def read(db: sqlite3.Connection) -> tuple[Sequence[TaskRecord], int]:
            sql = f"select upid, started, ended, status from task where {where} order by started desc, upid desc"  # noqa: S608 (tests of our own)
            rows = db.execute(f"{sql} limit ? offset ?", [*values, limit, start])
            found = [_record(row) for row in rows]
            (total,) = db.execute(f"select count(*) from task where {where}", values).fetchone()  # noqa: S608
            return found, int(total)

        return await self._db.run(read)

    async def trim(self, before: float, keep: int) -> Sequence[str]:
        """Forget ended tasks older than `before` or beyond the newest `keep`; returns their names."""

        def work(db: sqlite3.Connection) -> Sequence[str]:
            old = "select upid from task where ended is not null and (started < ? or upid in "
            old += "(select upid from task order by started desc limit -1 offset ?))"
            names = [row[0] for row in db.execute(old, (before, keep))]
            db.executemany("delete from task where upid = ?", [(name,) for name in names])
            return names

        return await self._db.run(work)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


_STATUS_TESTS = {
    "ok": "status = 'OK'",
    "warning": "status like 'WARNINGS: %'",
    "unknown": "(status is null or status = 'unexpected status')",
    "error": "(status is not null and status not in ('OK', 'unexpected status') and status not like 'WARNINGS: %')",
}


def _where(want: Filter) -> tuple[str, list[object]]:
    tests: list[str] = ["1"]
    values: list[object] = []
    if want.running is not None:
        tests.append("ended is null" if want.running else "ended is not null")
    for column, value in (("id", want.id), ("user", want.user), ("type", want.type)):
        if value is not None:
            tests.append(f"{column} = ?")
            values.append(value)
    if want.owner is not None:  # the user or any of his tokens
        tests.append("(user = ? or substr(user, 1, ?) = ?)")
        values += [want.owner, len(want.owner) + 1, want.owner + "!"]
    if want.user_part is not None:
        tests.append("instr(lower(user), ?) > 0")
        values.append(want.user_part.lower())
    if want.since is not None:
        tests.append("started >= ?")
        values.append(want.since)
    if want.until is not None:
        tests.append("started <= ?")
        values.append(want.until)
    if want.statuses is not None:
        chosen = [test for name, test in _STATUS_TESTS.items() if name in want.statuses]
        tests.append(f"({' or '.join(chosen) or '0'})")
    return " and ".join(tests), values


def _record(row: tuple[str, float, float | None, str | None]) -> TaskRecord:
    return TaskRecord(Upid.parse(row[0]), row[1], row[2], row[3])


class StepJournal:
    """The journal of tasks/steps.py."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _JOURNAL, durable=True)

    async def open(self, upid: str, kind: str, args: Args) -> None:
        """See steps.Journal."""
        sql = "insert into entry values (?, ?, ?, 0, 0, (select coalesce(max(number), 0) + 1 from entry))"
        text = json.dumps(dict(args))
        await self._db.run(lambda db: db.execute(sql, (upid, kind, text)))

    async def mark(self, upid: str, begun: int, committed: bool) -> None:
        """See steps.Journal."""
        sql = "update entry set begun = ?, committed = ? where upid = ?"
        await self._db.run(lambda db: db.execute(sql, (begun, int(committed), upid)))

    async def close(self, upid: str) -> None:
        """See steps.Journal."""
        await self._db.run(lambda db: db.execute("delete from entry where upid = ?", (upid,)))

    async def entries(self) -> list[Entry]:
        """See steps.Journal."""
        sql = "select upid, kind, args, begun, committed from entry order by number"
        rows = await self._db.run(lambda db: db.execute(sql).fetchall())
        return [Entry(upid, kind, json.loads(args), begun, bool(done)) for upid, kind, args, begun, done in rows]

    def shut(self) -> None:
        """Close the file."""
        self._db.close()
