"""A change of a configuration record as data: what a journalled operation writes, and how it is taken back.

Used by configure, resize and move_disk. A diff names, key by key, what stood there and what will; it is applied to the newest
revision, so that keys changed by others meanwhile stay. Undo touches a key only while it holds what this operation wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from panal.cluster.store import Json
from panal.core.errors import NotFound
from panal.guests.config.change import Change, State, volumes
from panal.guests.context import Guests
from panal.guests.model import Guest, config_key
from panal.tasks.steps import Step

Diff = Mapping[str, Mapping[str, Any]]
"""part (`config`, `pending`, `top`) → key → [[present, value] before, [present, value] after]"""


def state_of(guests: Guests, guest: Guest) -> State:
    """The record as `plan_change` wants it."""
    held = {
        str(volid): snap.name for snap in guests.snapshots(guest.vmid) for volid in volumes(snap.config, {})
    } | {s.vmstate: s.name for s in guests.snapshots(guest.vmid) if s.vmstate}  # fmt: skip
    running = guest.vmid in guests.live.running()
    return State(guest.vmid, guest.config, guest.pending, guest.lock, running, held)


def fields(change: Change) -> Json:
    """The parts of a record that a change replaces; a missing `lock` is removed."""
    return {"config": change.config, "pending": change.pending, "lock": change.lock}


def diff(guest: Guest, change: Change) -> Json:
    """From the record to the change, as JSON."""
    before: dict[str, Mapping[str, str | None]] = {
        "config": guest.config,
        "pending": guest.pending,
        "top": _top(guest.lock),
    }
    after: dict[str, Mapping[str, str | None]] = {
        "config": change.config,
        "pending": change.pending,
        "top": _top(change.lock),
    }
    return {
        part: {
            key: [_entry(before[part], key), _entry(after[part], key)]
            for key in sorted({*before[part], *after[part]})
            if _entry(before[part], key) != _entry(after[part], key)
        }
        for part in before
    }


def store_step(guests: Guests, vmid: int, birth: str, change: Diff) -> Step:
    """Write the diff: the point of no return of the operation. Undo writes it back."""

    async def do() -> None:
        def apply(old: Json | None) -> Json | None:
            if old is None or old.get("birth", "") != birth:
                raise NotFound(f"VM {vmid} was removed meanwhile", vmid=vmid)
            return _written(old, change, 0, 1, always=True)

        await guests.store.update(config_key(vmid), apply)

    async def undo() -> None:
        def apply(old: Json | None) -> Json | None:
            return None if old is None or old.get("birth", "") != birth else _written(old, change, 1, 0, always=False)

        await guests.store.update(config_key(vmid), apply)

    return Step("write the configuration", do, undo, point_of_no_return=True)


def unnamed(guests: Guests, vmid: int, birth: str, volid: str) -> Callable[[], bool]:
    """Whether the guest is still the one that was meant, and its record names the volume no more: then it may be removed."""

    def still() -> bool:
        guest = guests.catalog.get(vmid)
        return guest is not None and guest.birth == birth and volid not in volumes(guest.config, guest.pending)

    return still


def _top(lock: str | None) -> Mapping[str, str | None]:
    return {} if lock is None else {"lock": lock}


def _entry(part: Mapping[str, Any], key: str) -> list[Any]:
    return [key in part, part.get(key)]


def _written(record: Json, change: Diff, known: int, wanted: int, *, always: bool) -> Json | None:
    new = {**record, "config": dict(record.get("config", {})), "pending": dict(record.get("pending", {}))}
    for part, target in (("config", new["config"]), ("pending", new["pending"]), ("top", new)):
        for key, sides in change.get(part, {}).items():
            if not always and _entry(target, key) != list(sides[known]):
                continue
            present, value = sides[wanted]
            if present:
                target[key] = value
            else:
                target.pop(key, None)
    return None if new == record else new
