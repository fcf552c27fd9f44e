"""Configuration of storages: create, change, remove. Kept under `storage/<id>`; nothing on disk is touched here.

Called by `api/storage.py` and, for the first storage of a fresh node, by `Storages.ensure_default`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from panal.cluster.store import Delete, Json, Op
from panal.core.errors import BadInput, BadParameters, Conflict, NotFound
from panal.core.formats import check, split_list
from panal.core.props import PropertyError, Schema
from panal.storage.drivers.base import DriverType
from panal.storage.model import Option, StorageConfig

if TYPE_CHECKING:
    from panal.storage.storages import Storages

COMMON: Final = frozenset(
    {"nodes", "disable", "content", "shared", "bwlimit", "prune-backups", "max-protected-backups"}
)
PRUNE: Final = Schema.of(
    "keep-all:boolean keep-last:integer[0..] keep-hourly:integer[0..] keep-daily:integer[0..] "
    "keep-weekly:integer[0..] keep-monthly:integer[0..] keep-yearly:integer[0..]"
)
BWLIMIT: Final = Schema.of(
    "clone:number[0..] default:number[0..] migration:number[0..] move:number[0..] restore:number[0..]"
)
CHANGED: Final = "detected modified configuration - file changed by other user? Try again."


def parse_prune(text: str) -> dict[str, int]:
    """`keep-last=3,keep-daily=7` → numbers (keep-all: 0 or 1). BadInput on `prune-backups`."""
    try:
        found = {key: int(value) for key, value in PRUNE.parse(text).items()}
    except PropertyError as exc:
        raise BadInput("prune-backups", str(exc)) from None
    if found.get("keep-all") and len([v for v in found.values() if v]) > 1:
        raise BadInput("prune-backups", "keep-all cannot stand together with other keep options")
    return found


def _checked(kind: DriverType, options: Mapping[str, Option], storages: Storages) -> dict[str, Option]:
    """All options of one storage, as they will be stored; BadInput naming the wrong one."""
    unknown = sorted(set(options) - kind.options - COMMON)
    if unknown:
        raise BadParameters(dict.fromkeys(unknown, f"not an option of storages of type '{kind.type}'"))
    missing = [key for key in kind.required if not options.get(key)]
    if missing:
        raise BadParameters(dict.fromkeys(missing, "property is missing and it is not optional"))
    out = dict(options)
    contents = split_list(str(out.get("content") or ",".join(kind.default_contents)))
    wrong = sorted(set(contents) - kind.contents - {"none"})
    if wrong:
        raise BadInput(
            "content", f"'{wrong[0]}' is not possible on type '{kind.type}'; {', '.join(sorted(kind.contents))} are"
        )
    if "none" in contents and len(set(contents)) > 1:
        raise BadInput("content", "'none' cannot stand together with other content")
    out["content"] = ",".join(sorted(set(contents)))
    if "nodes" in out:
        for node in split_list(str(out["nodes"])):
            try:
                check("pve-node", node)
            except ValueError as exc:
                raise BadInput("nodes", str(exc)) from None
        out["nodes"] = ",".join(sorted(set(split_list(str(out["nodes"])))))
    if "prune-backups" in out:
        parse_prune(str(out["prune-backups"]))
    if "bwlimit" in out:
        try:
            BWLIMIT.parse(str(out["bwlimit"]))
        except PropertyError as exc:
            raise BadInput("bwlimit", str(exc)) from None
    kind.check(out)
    _not_ours(out, storages.state)
    return out


def _not_ours(options: Mapping[str, Option], state: Path) -> None:
    """A storage over our own state would hand out the store and its secrets as content."""
    path = Path(str(options.get("path", "/nonexistent")))
    ours, free = state.absolute(), state.absolute() / "storage"
    overlaps = path == ours or ours in path.parents or path in ours.parents
    if overlaps and free not in path.parents:
        raise BadInput("path", f"{path} holds or lies in Panal's own state; choose another directory")


async def create(storages: Storages, storage_id: str, kind: str, options: Mapping[str, Option]) -> StorageConfig:
    """A new storage. Conflict when the id is taken; BadInput naming what is wrong."""
    driver_type = storages.types.get(kind)
    if driver_type is None:
        raise BadInput("type", f"storages of type '{kind}' are not available; {', '.join(sorted(storages.types))} are")
    config = StorageConfig(storage_id, kind, _checked(driver_type, options, storages))
    await storages.store.create(
        f"storage/{storage_id}",
        {"v": 1, "type": kind, "options": dict(config.options)},
        f"storage ID '{storage_id}' already defined",
    )
    return config


async def update(
    storages: Storages,
    storage_id: str,
    options: Mapping[str, Option],
    delete: Sequence[str] = (),
    digest: str | None = None,
) -> StorageConfig:
    """Set and remove options. NotFound; Conflict for a stale digest; BadInput."""
    both = sorted(set(options) & set(delete))
    if both:
        raise BadInput("delete", f"'{both[0]}' cannot be set and deleted at once")
    written: list[StorageConfig] = []

    def change(value: Json | None) -> Json:
        if value is None:
            raise NotFound(f"storage '{storage_id}' does not exist")
        present = StorageConfig(storage_id, str(value["type"]), value["options"])
        if digest and digest != present.digest:
            raise Conflict(CHANGED)
        kind = storages.types[present.type]
        for key in kind.fixed:
            if key in delete or (key in options and options[key] != present.options.get(key)):
                raise BadInput(key, f"'{key}' is fixed when the storage is created")
        unknown = sorted(set(delete) - kind.options - COMMON)
        if unknown:
            raise BadInput("delete", f"'{unknown[0]}' is not an option of storages of type '{present.type}'")
        kept = {key: v for key, v in present.options.items() if key not in delete}
        new = StorageConfig(storage_id, present.type, _checked(kind, {**kept, **options}, storages))
        written[:] = [new]
        return {**value, "options": dict(new.options)}

    await storages.store.update(f"storage/{storage_id}", change)
    return written[0]


async def remove(storages: Storages, storage_id: str) -> None:
    """Forget a storage; its content stays where it is. NotFound; Conflict while a guest uses a volume on it."""
    config = storages.config(storage_id)
    user = storages.storage_in_use(storage_id)
    if user is not None:
        raise Conflict(f"storage '{storage_id}' is used by {user}; move its disks first")

    def change(value: Json | None) -> Op | None:
        return None if value is None else Delete(f"storage/{storage_id}")

    await storages.store.update(f"storage/{config.id}", change)
