"""Which backups of a guest to keep: pure. Called by `api/node_storage_upload.py` and, later, after each backup.

Rules apply in the order last, hourly, daily, weekly, monthly, yearly; each keeps the newest backup of as many periods as it
says, and a period that an earlier rule kept a backup of does not count again. Protected and oddly named ones are never removed
and never counted.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from panal.storage.drivers.base import Volume
from panal.storage.drivers.dir.layout import backup_time

_PERIODS: Final[tuple[tuple[str, str], ...]] = (
    ("keep-hourly", "%Y-%m-%d %H"), ("keep-daily", "%Y-%m-%d"), ("keep-weekly", "%G-%V"), ("keep-monthly", "%Y-%m"),
    ("keep-yearly", "%Y"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Marked:
    """A backup and its fate: `mark` is keep, remove, protected or renamed. `ctime` in seconds since the epoch."""

    volume: Volume
    type: str
    ctime: int
    mark: str


def prune(backups: Sequence[Volume], keep: Mapping[str, int]) -> list[Marked]:
    """Marks for backups of any guests; each guest (and type of guest) is looked at by itself. Sorted by name."""
    marked: list[Marked] = []
    groups: dict[tuple[str, int | None], list[tuple[datetime.datetime, Volume]]] = {}
    for volume in backups:
        file = volume.name.rpartition("/")[2]
        stamp = backup_time(file)
        kind = file.split("-")[1] if stamp else "unknown"
        if stamp is None:
            marked.append(Marked(volume, kind, volume.ctime, "renamed"))
            continue
        try:
            when = datetime.datetime.strptime(stamp, "%Y_%m_%d-%H_%M_%S").astimezone()
        except ValueError:
            marked.append(Marked(volume, kind, volume.ctime, "renamed"))
            continue
        if volume.protected:
            marked.append(Marked(volume, kind, int(when.timestamp()), "protected"))
        else:
            groups.setdefault((kind, volume.vmid), []).append((when, volume))
    for (kind, _), group in groups.items():
        kept = _kept(sorted((when for when, _ in group), reverse=True), keep)
        marked += [
            Marked(volume, kind, int(when.timestamp()), "keep" if when in kept else "remove") for when, volume in group
        ]
    return sorted(marked, key=lambda m: m.volume.name)


def _kept(times: Sequence[datetime.datetime], keep: Mapping[str, int]) -> set[datetime.datetime]:
    """`times` newest first."""
    if keep.get("keep-all") or not any(keep.values()):
        return set(times)
    kept = set(times[: keep.get("keep-last", 0)])
    for rule, pattern in _PERIODS:
        kept |= _by_period(times, kept, keep.get(rule, 0), lambda when, p=pattern: when.strftime(p))  # type: ignore[misc]
    return kept


def _by_period(
    times: Sequence[datetime.datetime], kept: set[datetime.datetime], count: int,
    period: Callable[[datetime.datetime], str],
) -> set[datetime.datetime]:  # fmt: skip
    done = {period(when) for when in kept}
    new: set[datetime.datetime] = set()
    for when in times:
        if len(new) >= count:
            break
        if period(when) not in done:
            done.add(period(when))
            new.add(when)
    return new
