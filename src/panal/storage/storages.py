"""The context of everything about storages on this node: configuration, drivers, volume ids, names, status.

Built once by the daemon, given to verbs of `guests` and handlers of `api`. Invariants: a driver is built anew when its
configuration changes; no two callers of `free_name` get the same name; `status` never waits for a storage that hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from panal.cluster.store import Mirror
from panal.core.clock import Clock
from panal.core.errors import BadInput, Conflict, NotFound, PanalError, Unavailable
from panal.storage import config as configuration
from panal.storage.drivers import TYPES
from panal.storage.drivers.base import DriverType, StorageDriver, Usage
from panal.storage.model import Status, StorageConfig, Volid, split_volid

ACTIVE_S: Final = 10
STATUS_S: Final = 5
STATUS_WAIT_S: Final = 2
RESERVED_S: Final = 3600
_INACTIVE: Final = Usage(0, 0, 0, active=False)


class Storages:
    """All storages as seen from this node."""

    def __init__(
        self, *, store: Mirror, state: Path, clock: Clock, node: str, types: Mapping[str, DriverType] = TYPES
    ) -> None:
        """`state` is the node's state directory; `types` the back ends there are."""
        self.store = store
        self.state = state
        self.clock = clock
        self.node = node
        self.types = types
        self.in_use: Callable[[str], str | None] = lambda volid: None
        """set by `guests`: who uses this volume id (`VM 100`), or None"""
        self.storage_in_use: Callable[[str], str | None] = lambda storage_id: None
        """set by `guests`: who uses any volume of this storage"""
        self._drivers: dict[str, tuple[StorageConfig, StorageDriver]] = {}
        self._active_until: dict[str, float] = {}
        self._usage: dict[str, tuple[float, Usage]] = {}
        self._asking: dict[str, asyncio.Task[Usage]] = {}
        self._reserved: dict[tuple[str, str], float] = {}
        self._naming = asyncio.Lock()

    # -- configuration -----------------------------------------------------------------------------------------------

    def configs(self) -> list[StorageConfig]:
        """All configured storages, by id."""
        return [
            StorageConfig(item.key.partition("/")[2], str(item.value["type"]), item.value["options"])
            for item in self.store.list("storage/")
        ]

    def config(self, storage_id: str) -> StorageConfig:
        """One of them. NotFound."""
        value = self.store.value(f"storage/{storage_id}")
        if value is None:
            raise NotFound(f"storage '{storage_id}' does not exist")
        return StorageConfig(storage_id, str(value["type"]), value["options"])

    async def ensure_default(self, storage_id: str = "local") -> None:
        """On a node without any storage: one of type `dir` for everything, below the state directory."""
        if self.store.list("storage/"):
            return
        path = self.state.absolute() / "storage" / storage_id
        await configuration.create(
            self, storage_id, "dir", {"path": str(path), "content": "images,rootdir,iso,vztmpl,snippets,backup,import"}
        )

    # -- drivers and volume ids --------------------------------------------------------------------------------------

    def _built(self, config: StorageConfig) -> StorageDriver:
        known = self._drivers.get(config.id)
        if known is None or known[0] != config:
            kind = self.types.get(config.type)
            if kind is None:
                raise Unavailable(f"storage '{config.id}' is of type '{config.type}', which this version does not have")
            known = (config, kind.build(config))
            self._drivers[config.id] = known
            self._active_until.pop(config.id, None)
            self._usage.pop(config.id, None)
        return known[1]

    def driver(self, storage_id: str) -> StorageDriver:
        """The driver, which may not be active yet. NotFound; Unavailable when it is disabled or not for this node."""
        config = self.config(storage_id)
        if config.disabled:
            raise Unavailable(f"storage '{storage_id}' is disabled; enable it first")
        if not config.used_on(self.node):
            raise Unavailable(f"storage '{storage_id}' is not available on node '{self.node}'")
        driver = self._built(config)
        if driver.capabilities.unavailable:
            raise Unavailable(f"storage '{storage_id}' cannot be used here: {driver.capabilities.unavailable}")
        return driver

    async def usable(self, storage_id: str) -> StorageDriver:
        """The driver, activated. Errors of `driver`, and Unavailable when the storage cannot be reached."""
        driver = self.driver(storage_id)
        now = self.clock.monotonic_s()
        if self._active_until.get(storage_id, -1.0) < now:
            await driver.activate()
            self._active_until[storage_id] = now + ACTIVE_S
        return driver

    def image_storages(self) -> list[str]:
        """Ids of the storages that hold disk images and are for this node."""
        return [c.id for c in self.configs() if c.used_on(self.node) and "images" in c.contents]

    def parse_volid(self, text: str, field: str = "volume") -> Volid:
        """`local:100/vm-100-disk-0.qcow2` taken apart. BadInput on `field`; NotFound when there is no such storage.

        Whether the volume exists is not asked.
        """
        storage_id, name = split_volid(text, field)
        config = self.config(storage_id)
        kind = self.types.get(config.type)
        try:
            if kind is None:
                raise ValueError(name)
            parsed = kind.parse_name(name)
        except ValueError:
            raise BadInput(field, f"unable to parse volume name '{name[:200]}' of storage '{storage_id}'") from None
        return Volid(storage_id, parsed.name, parsed.content, parsed.format, parsed.vmid, parsed.base)

    async def free_name(self, storage_id: str, vmid: int, fmt: str, *, taken: Iterable[str] = ()) -> str:
        """The next free `vm-VMID-disk-N` as a volume name, reserved for an hour or until `release`.

        `taken`: volume names that must not be chosen though they are not there yet (or any more).
        """
        driver = await self.usable(storage_id)
        async with self._naming:
            now = self.clock.monotonic_s()
            self._reserved = {key: until for key, until in self._reserved.items() if until > now}
            # Reservations are read before the list: one that is released while we list stands on the storage by then.
            used = {name for storage, name in self._reserved if storage == storage_id} | set(taken)
            used |= {volume.name for volume in await driver.list("images", vmid)}
            stems = {name.rpartition("/")[2].split(".")[0].replace("base-", "vm-", 1) for name in used}
            number = next(n for n in range(len(stems) + 1) if f"vm-{vmid}-disk-{n}" not in stems)
            name = driver.image_name(vmid, f"vm-{vmid}-disk-{number}", fmt)
            self._reserved[storage_id, name] = now + RESERVED_S
            return name

    async def free_volume(self, volid: Volid) -> None:
        """Remove content. Conflict while a guest uses it (or it is protected); NotFound when it is not there."""
        user = self.in_use(str(volid))
        if user is not None:
            raise Conflict(f"cannot remove volume '{volid}': it is in use by {user}; detach it there first")
        driver = await self.usable(volid.storage)
        await driver.info(volid.name)
        await driver.free(volid.name)

    async def set_attributes(self, volid: Volid, notes: str | None, protected: bool | None) -> None:
        """Change notes or protection. NotFound; Conflict over `max-protected-backups`; Unsupported."""
        driver = await self.usable(volid.storage)
        limit = int(self.config(volid.storage).options.get("max-protected-backups", -1))
        if protected and volid.content == "backup" and limit >= 0 and not (await driver.info(volid.name)).protected:
            others = [v for v in await driver.list("backup", volid.vmid) if v.protected]
            if len(others) >= limit:
                raise Conflict(
                    f"guest {volid.vmid} has {len(others)} protected backups, the limit of '{volid.storage}'"
                )
        await driver.set_attributes(volid.name, notes=notes, protected=protected)

    def release(self, storage_id: str, name: str) -> None:
        """A name from `free_name` is not needed any more, or stands on the storage now."""
        self._reserved.pop((storage_id, name), None)

    # -- status ------------------------------------------------------------------------------------------------------

    async def status(self, storage_id: str) -> Status:
        """Whether it is usable here, and its figures, at most STATUS_S old; not active when it takes too long. NotFound."""
        config = self.config(storage_id)
        if not config.used_on(self.node):
            return Status(config, enabled=not config.disabled, active=False)
        usage = await self._usage_of(config)
        return Status(config, True, usage.active, usage.total, usage.used, usage.available)

    async def statuses(self) -> list[Status]:
        """Of all storages for this node, disabled ones included."""
        mine = [c for c in self.configs() if not c.nodes or self.node in c.nodes]
        return list(await asyncio.gather(*(self.status(c.id) for c in mine)))

    async def _usage_of(self, config: StorageConfig) -> Usage:
        now = self.clock.monotonic_s()
        self._built_or_none(config)
        at, usage = self._usage.get(config.id, (-STATUS_S - 1.0, _INACTIVE))
        if now - at <= STATUS_S:
            return usage
        asking = self._asking.get(config.id)
        if asking is None:
            asking = asyncio.create_task(self._ask(config), name=f"usage of {config.id}")
            self._asking[config.id] = asking
            asking.add_done_callback(lambda _: self._asking.pop(config.id, None))
        # A thread in a dead NFS mount cannot be stopped: it is left alone, and asked for once, not once a request.
        done, _ = await asyncio.wait([asking], timeout=STATUS_WAIT_S)
        return asking.result() if done else _INACTIVE

    def _built_or_none(self, config: StorageConfig) -> StorageDriver | None:
        try:
            return self._built(config)
        except PanalError:
            return None

    async def _ask(self, config: StorageConfig) -> Usage:
        try:
            usage = await (await self.usable(config.id)).usage()
        except PanalError:
            usage = _INACTIVE
        self._usage[config.id] = (self.clock.monotonic_s(), usage)
        return usage

    async def close(self) -> None:
        """Stop asking."""
        for task in list(self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
