"""Volumes that operations make and remove: names chosen before anything happens, and the steps that do it.

Used by the plans and builders of create, clone, template, snapshot, delete. Invariant: a step frees only what the same
operation allocated, or what the guest's own record named.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from panal.core.errors import Conflict
from panal.guests.context import Guests
from panal.guests.in_use import named_by_another
from panal.storage.drivers.base import StorageDriver
from panal.tasks.steps import Step


@dataclass(frozen=True, slots=True)
class Planned:
    """A volume to be made. `size` in bytes."""

    key: str
    storage: str
    name: str
    fmt: str
    size: int

    @property
    def volid(self) -> str:
        """`STORAGE:NAME`."""
        return f"{self.storage}:{self.name}"

    def json(self) -> dict[str, Any]:
        """For a journal."""
        return asdict(self)


def split(volid: str) -> tuple[str, str]:
    """Storage and name."""
    storage, _, name = volid.partition(":")
    return storage, name


class Namer:
    """Free names `vm-<vmid>-disk-<n>` on several storages; knows what is there and what it gave out itself."""

    def __init__(self, guests: Guests, vmid: int) -> None:
        self._guests = guests
        self._vmid = vmid
        self._taken: dict[str, set[str]] = {}

    async def disk(self, storage: str, fmt: str) -> str:
        """A free disk name there."""
        number = 0
        while True:
            name = await self.fixed(storage, fmt, f"vm-{self._vmid}-disk-{number}")
            if name is not None:
                return name
            number += 1

    async def fixed(self, storage: str, fmt: str, stem: str) -> str | None:
        """The name of this stem, or None when there is such a volume, of any format."""
        driver = await self._guests.storages.usable(storage)
        if storage not in self._taken:
            self._taken[storage] = {_stem(v.name) for v in await driver.list("images", self._vmid)}
        if stem in self._taken[storage] or stem.replace("vm-", "base-", 1) in self._taken[storage]:
            return None
        self._taken[storage].add(stem)
        return driver.image_name(self._vmid, stem, fmt)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def allocate_step(
    guests: Guests, vmid: int, volume: Planned, fill: Callable[[StorageDriver], Awaitable[None]] | None = None,
    *, birth: str | None = None,
) -> Step:  # fmt: skip
    """Make the volume, empty or with `fill` (a copy); undo removes it, unless a record names it.

    `birth`: that of the record which the operation itself wrote. An undo that failed comes again at a later start: by then
    the name may be another guest's.
    """

    async def do() -> None:
        driver = await guests.storages.usable(volume.storage)
        if fill is None:
            await driver.allocate(vmid, volume.name, volume.fmt, volume.size)
        else:
            await fill(driver)

    async def undo() -> None:
        if not named_by_another(guests, volume.volid, birth):
            await (await guests.storages.usable(volume.storage)).free(volume.name)

    # Conflict: somebody made it since the plan; it is not ours to remove
    return Step(f"make {volume.volid}", do, undo, untouched=(Conflict,))


def free_step(guests: Guests, volid: str, still: Callable[[], bool]) -> Step:
    """Remove the volume, while `still()` says that the record which names it is the one that was meant."""

    async def do() -> None:
        if still():
            storage, name = split(volid)
            await (await guests.storages.usable(storage)).free(name)

    return Step(f"remove {volid}", do)
