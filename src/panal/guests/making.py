"""What create and clone share: a record that holds the number while the guest is being made, and marks on a record.

A *mark* is `{lock, op}` on the configuration record: `op` is a random word of the operation. Steps that are rolled forward,
maybe days later, do nothing unless the record still carries their own word: then a retried operation, or another guest under
the same number, is never touched by an old one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from panal.cluster.store import MAX_OPERATIONS, Absent, Delete, Json, Put
from panal.core.errors import BadInput, Conflict, NotFound
from panal.firewall import firewall_key
from panal.guests.context import Guests
from panal.guests.model import claim_key, config_key, new_record, reservation_key, run_key
from panal.storage.drivers.base import StorageDriver
from panal.tasks.steps import Step


def reserve_step(guests: Guests, vmid: int, config: Mapping[str, str], birth: str, lock: str) -> Step:
    """Write the record with its final content and a lock: from now on the number is taken. Undo removes it."""
    key = config_key(vmid)

    async def do() -> None:
        value = new_record(guests.node, config, birth, lock)
        result = await guests.store.txn([Absent(key)], [Put(key, value), Delete(reservation_key(vmid))])
        present = guests.catalog.get(vmid)
        if not result.ok and (present is None or present.birth != birth):
            raise Conflict(f"unable to create VM {vmid} - VM {vmid} already exists on node '{guests.node}'", vmid=vmid)

    async def undo() -> None:
        present = guests.catalog.get(vmid)
        if present is not None and present.birth == birth:
            await guests.store.txn([], [Delete(k) for k in (key, claim_key(vmid), run_key(vmid), firewall_key(vmid))])

    return Step(f"take the number {vmid}", do, undo)


def unlock_step(guests: Guests, vmid: int, birth: str) -> Step:
    """The guest is whole: anybody may work on it."""

    async def do() -> None:
        present = guests.catalog.get(vmid)
        if present is not None and present.birth == birth:
            await guests.update(vmid, lock=None)

    return Step("unlock the configuration", do)


def mark_step(guests: Guests, vmid: int, birth: str, lock: str, op: str) -> Step:
    """Lock the record in the name of this operation; there is no way back from here."""

    async def do() -> None:
        def change(old: Json | None) -> Json | None:
            if old is None or old.get("birth", "") != birth:
                raise NotFound(f"VM {vmid} was removed meanwhile", vmid=vmid)
            return {**old, "lock": lock, "op": op}

        await guests.store.update(config_key(vmid), change)

    async def undo() -> None:  # the daemon died between the store's answer and the journal's
        await change_marked(guests, vmid, op, unmark)

    return Step(f"lock VM {vmid} ({lock})", do, undo, point_of_no_return=True)


def marked(guests: Guests, vmid: int, op: str) -> Callable[[], bool]:
    """Whether the record still carries this operation's word."""

    def still() -> bool:
        present = guests.catalog.get(vmid)
        return present is not None and present.raw.get("op") == op

    return still


async def change_marked(guests: Guests, vmid: int, op: str, change: Callable[[Json], Json]) -> None:
    """Change the record while it is still this operation's."""

    def apply(old: Json | None) -> Json | None:
        return None if old is None or old.get("op") != op else change(old)

    await guests.store.update(config_key(vmid), apply)


def unmark(value: Json) -> Json:
    """Without lock and word."""
    return {k: v for k, v in value.items() if k not in ("lock", "op")}


async def delete_keys(guests: Guests, keys: list[str]) -> None:
    """Remove keys, in txns of allowed size."""
    for at in range(0, len(keys), MAX_OPERATIONS):
        await guests.store.txn([], [Delete(key) for key in keys[at : at + MAX_OPERATIONS]])


def image_driver(guests: Guests, storage: str, field: str) -> StorageDriver:
    """The storage, if it takes images; BadInput on `field` otherwise."""
    try:
        driver = guests.storages.driver(storage)
    except (NotFound, BadInput) as exc:
        raise BadInput(field, str(exc)) from exc
    if "images" not in driver.capabilities.contents:
        raise BadInput(field, f"storage '{storage}' does not hold VM images; choose one whose content has 'images'")
    return driver


def choose_format(driver: StorageDriver, wanted: str | None, fallback: str | None, field: str) -> str:
    """Format of a new volume: as asked (BadInput when the storage cannot), else `fallback` or the storage's default."""
    formats = driver.capabilities.formats
    if wanted is not None and wanted not in formats:
        raise BadInput(field, f"storage '{driver.id}' has no format '{wanted}'; it can: {', '.join(formats)}")
    if wanted is not None:
        return wanted
    return fallback if fallback in formats else driver.capabilities.default_format
