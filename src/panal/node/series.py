"""Series of measurements of the node, its guests and its storages: rings of fixed size in `<state>/series.db`.

    ring   step     rows  from
    0      1 min    1440  samples, written by `sampler.py`
    1      30 min   1440  ring 0
    2      6 h      1440  ring 1
    3      1 week    570  ring 2

A row is (ring, slot, subject, t, averages…, maxima…); the slot of a time is `t / step % rows`. Writing a slot first removes all
that was in it, deleted subjects included: so the file never holds more than the rings of what was there at the time. Rings
1 to 3 are made out of the finer one by SQL when their step is over, in the file's thread, without the interpreter's lock.
Losing the last minutes in a power cut is allowed.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from panal.host.database import Database

Kind = Literal["node", "guest", "storage"]
Fold = Literal["AVERAGE", "MAX"]

_PRESSURE: Final = ("pressurecpusome", "pressureiosome", "pressureiofull", "pressurememorysome", "pressurememoryfull")
FIELDS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "node": (
        "loadavg", "maxcpu", "cpu", "iowait", "memtotal", "memused", "memavailable", "swaptotal", "swapused", "roottotal",
        "rootused", "netin", "netout", "arcsize", *_PRESSURE,
    ),
    "guest": (
        "maxcpu", "cpu", "maxmem", "mem", "maxdisk", "disk", "netin", "netout", "diskread", "diskwrite", "memhost",
        "pressurecpufull", *_PRESSURE,
    ),
    "storage": ("total", "used"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ring:
    """Seconds a step, number of rows."""

    step_s: int
    rows: int


RINGS: Final = (Ring(60, 1440), Ring(1800, 1440), Ring(21_600, 1440), Ring(604_800, 570))
# timeframe → ring, rows shown: the steps of the API
FRAMES: Final[Mapping[str, tuple[int, int]]] = {
    "hour": (0, 60),
    "day": (0, 1440),
    "week": (1, 336),
    "month": (1, 1440),
    "year": (2, 1440),
    "decade": (3, 570),
}


def _schema() -> str:
    tables = []
    for kind, fields in FIELDS.items():
        columns = ", ".join(f"{name} real, max_{name} real" for name in fields)
        tables.append(
            f"create table {kind} (ring integer not null, slot integer not null, subject text not null, t integer not null, "
            f"{columns}, primary key (ring, slot, subject)) without rowid"
        )
    tables.append("create table head (one integer primary key check (one = 1), t integer not null)")
    return "; ".join([*tables, "insert into head values (1, 0)"])


class Series:
    """The file."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, (_schema(),), durable=False)

    async def write(self, t: int, rows: Mapping[Kind, Mapping[str, Mapping[str, float]]]) -> None:
        """Averages of the minute that began at `t` (a multiple of 60), by kind and subject; after the coarser rings it ends."""
        t -= t % RINGS[0].step_s
        await self._db.run(lambda db: _write(db, t, rows))

    async def read(self, kind: Kind, subject: str, frame: str, fold: Fold, now: float) -> list[dict[str, float]]:
        """Rows of a timeframe, oldest first, one a step; a step without a sample has its `time` alone."""
        ring, count = FRAMES[frame]
        step, rows = RINGS[ring].step_s, RINGS[ring].rows
        last = int(now) // step * step - step  # the present step is not over yet
        times = [last - step * n for n in range(count - 1, -1, -1)]
        names = FIELDS[kind]
        # the finest ring holds one value a minute: its maximum is its average
        prefix = "max_" if fold == "MAX" and ring else ""
        columns = ", ".join(prefix + name for name in names)
        sql = f"select t, {columns} from {kind} where ring = ? and slot = ? and subject = ? and t = ?"  # noqa: S608

        def work(db: sqlite3.Connection) -> list[dict[str, float]]:
            out = []
            for t in times:
                found = db.execute(sql, (ring, t // step % rows, subject, t)).fetchone()
                row: dict[str, float] = {"time": t}
                if found is not None:
                    row |= {name: value for name, value in zip(names, found[1:], strict=True) if value is not None}
                out.append(row)
            return out

        return await self._db.run(work)

    async def forget(self, kind: Kind, subject: str) -> None:
        """Remove a subject's history: a new guest of the same number starts without one."""
        await self._db.run(lambda db: db.execute(f"delete from {kind} where subject = ?", (subject,)))  # noqa: S608

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _write(db: sqlite3.Connection, t: int, rows: Mapping[Kind, Mapping[str, Mapping[str, float]]]) -> None:
    (before,) = db.execute("select t from head").fetchone()
    for ring in range(1, len(RINGS)):
        step = RINGS[ring].step_s
        if before // step >= t // step:
            break
        # what the steps that are over have, also when the node was off at their end
        for kind, names in FIELDS.items():
            _fold(db, kind, names, ring, before // step * step)
    slot = t // RINGS[0].step_s % RINGS[0].rows
    for kind, names in FIELDS.items():
        db.execute(f"delete from {kind} where ring = 0 and slot = ?", (slot,))  # noqa: S608
        marks = ", ".join("?" * (len(names) + 4))
        columns = ", ".join(("ring", "slot", "subject", "t", *names))
        db.executemany(
            f"insert into {kind} ({columns}) values ({marks})",  # noqa: S608
            (
                (0, slot, subject, t, *(_finite(values.get(name)) for name in names))
                for subject, values in rows.get(kind, {}).items()
            ),
        )
    db.execute("update head set t = ?", (t,))


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _fold(db: sqlite3.Connection, kind: Kind, names: Sequence[str], ring: int, begin: int) -> None:
    """Make the row of `ring` that begins at `begin` out of the finer ring."""
    target, source = RINGS[ring], RINGS[ring - 1]
    slot = begin // target.step_s % target.rows
    slots = [(begin + n * source.step_s) // source.step_s % source.rows for n in range(target.step_s // source.step_s)]
    peaks = ", ".join(f"max({name if ring == 1 else f'max_{name}'})" for name in names)
    columns = ", ".join((*names, *(f"max_{name}" for name in names)))
    averages = ", ".join(f"avg({name})" for name in names)
    db.execute(f"delete from {kind} where ring = ? and slot = ?", (ring, slot))  # noqa: S608
    db.execute(
        f"insert into {kind} (ring, slot, subject, t, {columns}) select ?, ?, subject, ?, {averages}, {peaks} from {kind} "  # noqa: S608
        f"where ring = ? and slot in ({', '.join(map(str, slots))}) and t >= ? and t < ? group by subject",
        (ring, slot, begin, ring - 1, begin, begin + target.step_s),
    )
