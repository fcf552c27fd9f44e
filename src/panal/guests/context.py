"""What every verb of guests takes: one object with the things they depend on.

Built once by `daemon/` (`Guests.build`), kept in `api/services.py`. The order at the start of the daemon, each before the
next: store and storages ready → `Guests.build` → `boot.begin` (adopt, kill, free claims) → `tasks.start()` (undo or finish
what a crash left) → serve → `boot.autostart`; `boot.end` at the end.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from panal.cluster.incarnation import Incarnation
from panal.cluster.store import Json, Mirror
from panal.core.clock import Clock
from panal.core.errors import NotFound
from panal.guests.catalog import Catalog
from panal.guests.drivers.base import GuestDriver
from panal.guests.live import LiveTable
from panal.guests.model import Guest, RunRecord, Snapshot, run_key, snapshot_key, snapshot_prefix
from panal.storage.drivers.base import StorageDriver
from panal.tasks.runner import Tasks

if TYPE_CHECKING:
    from panal.guests.firewall import Filtering
    from panal.guests.nextid import NextIds
    from panal.guests.stop import Reaper

TURN_TIMEOUT_S: Final = 60.0


class Volumes(Protocol):
    """What the verbs need of `storage.Storages`."""

    def driver(self, storage_id: str, /) -> StorageDriver:
        """The driver of a configured storage, maybe not active yet; NotFound, Unavailable."""

    async def usable(self, storage_id: str, /) -> StorageDriver:
        """The driver, activated. Errors of `driver`, and Unavailable when the storage cannot be reached."""

    def image_storages(self) -> Sequence[str]:
        """Names of all storages that hold images on this node."""


@dataclass(slots=True)
class Guests:
    """One node's guests."""

    node: str
    incarnation: Incarnation
    store: Mirror
    tasks: Tasks
    storages: Volumes
    driver: GuestDriver
    clock: Clock
    rng: random.Random
    live: LiveTable
    catalog: Catalog
    locks: dict[int, str] = field(default_factory=dict)
    """guest → what is being done with it now (`snapshot`, `rollback` …): shown as PVE's `lock`, hinders nobody"""
    readers: Counter[int] = field(default_factory=Counter)
    """templates that are being cloned, how many times: they must not go away meanwhile"""
    facts: dict[int, object] = field(default_factory=dict)
    """cache of status.py"""
    nextids: NextIds = field(init=False)
    reaper: Reaper | None = None
    on_removed: list[Callable[[int], Awaitable[None]]] = field(default_factory=list)
    """told of every removed guest, before its number is free again (pools, rights); must be idempotent"""
    on_created: list[Callable[[int, str, str], Awaitable[None]]] = field(default_factory=list)
    """told (number, pool, user) when a guest is to be put into a pool"""

    filtering: Filtering = field(init=False)
    """the guests' firewalls in the kernel (firewall.py)"""

    def __post_init__(self) -> None:
        """What follows the store is part of the context."""
        from panal.guests.firewall import Filtering
        from panal.guests.nextid import NextIds

        self.filtering = Filtering(self.store, f"panal-{self.node}")

        self.nextids = NextIds(self)

    @classmethod
    def build(
        cls, node: str, incarnation: Incarnation, store: Mirror, tasks: Tasks, storages: Volumes, driver: GuestDriver,
        clock: Clock, rng: random.Random | None = None,
    ) -> Guests:  # fmt: skip
        """The store's mirror must have been started."""
        return cls(
            node, incarnation, store, tasks, storages, driver, clock, rng or random.SystemRandom(),
            LiveTable(driver, clock), Catalog(store),
        )  # fmt: skip

    def get(self, vmid: int) -> Guest:
        """The guest's record. NotFound with the sentence that clients of PVE look for."""
        guest = self.catalog.get(vmid)
        if guest is None:
            raise NotFound(f"Configuration file 'nodes/{self.node}/qemu-server/{vmid}.conf' does not exist", vmid=vmid)
        return guest

    def list(self) -> list[Guest]:
        """All guests of the cluster, by number."""
        return self.catalog.list()

    def run_record(self, vmid: int) -> RunRecord:
        """What it was last started with."""
        return RunRecord.of(self.store.value(run_key(vmid)))

    def running_config(self, vmid: int) -> dict[str, str] | None:
        """The configuration that the running process was started with; None when it does not run here."""
        return dict(self.run_record(vmid).config) if vmid in self.live.running() else None

    def snapshot(self, vmid: int, name: str) -> Snapshot:
        """One snapshot. NotFound."""
        item = self.store.get(snapshot_key(vmid, name))
        if item is None:
            raise NotFound(f"snapshot '{name}' does not exist", vmid=vmid, snapshot=name)
        return Snapshot.of(vmid, item)

    def snapshots(self, vmid: int) -> Sequence[Snapshot]:
        """All snapshots of a guest, oldest first."""
        found = [Snapshot.of(vmid, item) for item in self.store.list(snapshot_prefix(vmid))]
        return sorted(found, key=lambda s: (s.snaptime, s.revision))

    def lock_of(self, guest: Guest) -> str | None:
        """What PVE's clients know as `lock`."""
        return guest.lock or self.locks.get(guest.vmid)

    @contextmanager
    def locked(self, vmid: int, what: str) -> Iterator[None]:
        """Show `what` as the guest's lock inside the block (the queue is what keeps others out)."""
        self.locks[vmid] = what
        try:
            yield
        finally:
            self.locks.pop(vmid, None)

    @asynccontextmanager
    async def turn(self, vmid: int, who: str, timeout_s: float = TURN_TIMEOUT_S) -> AsyncIterator[None]:
        """Work on one guest, alone: for changes that are no task. Busy when its turn does not come in time."""
        async with self.tasks.queues.turn(queue_of(vmid), who, timeout_s=timeout_s):
            yield

    async def update(self, vmid: int, **fields: object) -> Json | None:
        """Set fields of the configuration record (not `config`: configure.py does that); None removes one."""

        def change(old: Json | None) -> Json | None:
            if old is None:
                return None
            new = {k: v for k, v in {**old, **fields}.items() if v is not None}
            return None if new == old else new

        return await self.store.update(f"guest/{vmid}/config", change)

    def word(self) -> str:
        """A random word of 16 hex digits."""
        return f"{self.rng.getrandbits(64):016x}"


def queue_of(vmid: int) -> str:
    """Name of the queue that all work on a guest goes through."""
    return f"guest/{vmid}"
