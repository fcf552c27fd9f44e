"""A node with guests for tests: a real store and tasks in a short directory, the fake hypervisor, a file storage.

`World` survives its `Node`s: `world.boot()` is a daemon's start over what the one before left behind.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from panal.cluster import incarnation
from panal.cluster.store import Mirror, SqliteStore
from panal.core.clock import SystemClock
from panal.core.errors import Conflict, NotFound, Unsupported
from panal.guests import boot, firewall, operations
from panal.guests.context import Guests
from panal.guests.drivers.fake import FakeDriver, FakeMachine
from panal.guests.stop import Reaper
from panal.storage.drivers.base import Capabilities, Progress, StorageDriver, Usage, Volume, VolumeSource
from panal.storage.model import VolumeName
from panal.tasks.runner import Tasks

USER = "root@pam"


def sparse_copy(source: Path, target: Path) -> None:
    """The head, and holes: the tests write nothing further."""
    with target.open("wb") as file:
        with source.open("rb") as old:
            file.write(old.read(4096))
        file.truncate(source.stat().st_size)


class FileStorage:
    """Volumes are files, snapshots are copies beside them (`FILE@NAME`)."""

    def __init__(self, id: str, root: Path, snapshot_formats: frozenset[str] = frozenset({"qcow2"})) -> None:
        self.id = id
        self.root = root
        root.mkdir(exist_ok=True, parents=True)
        self.capabilities = Capabilities(
            frozenset({"images", "iso"}), ("raw", "qcow2"), "qcow2", snapshot_formats, lock="lock"
        )

    def path(self, name: str) -> Path:
        return self.root / name

    async def activate(self) -> None:
        pass

    async def deactivate(self) -> None:
        pass

    def parse(self, name: str) -> VolumeName:
        head = name.split("/", maxsplit=1)[0]
        return VolumeName(
            name, "images", name.rpartition(".")[2], int(head) if head.isdigit() else None, "/base-" in name
        )

    def image_name(self, vmid: int, stem: str, fmt: str) -> str:
        return f"{vmid}/{stem}.{fmt}"

    def location(self, name: str) -> str:
        return str(self.path(name))

    async def set_attributes(self, name: str, *, notes: str | None = None, protected: bool | None = None) -> None:
        raise NotImplementedError

    async def usage(self) -> Usage:
        return Usage(10**12, 0, 10**12)

    async def list(self, content: str | None = None, vmid: int | None = None) -> Sequence[Volume]:
        names = sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file() and "@" not in p.name)
        return [v for v in [await self.info(n) for n in names] if vmid is None or v.vmid == vmid]

    async def info(self, name: str) -> Volume:
        if not self.path(name).exists():
            raise NotFound(f"no such volume '{self.id}:{name}'")
        head = name.split("/", maxsplit=1)[0]
        return Volume(
            name, "images", self.source(name).format, self.path(name).stat().st_size,
            vmid=int(head) if head.isdigit() else None,
        )  # fmt: skip

    async def allocate(self, vmid: int, name: str, fmt: str, size: int) -> None:
        path = self.path(name)
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            raise Conflict(f"{name} exists")
        with path.open("xb") as file:
            file.truncate(size)

    async def free(self, name: str) -> None:
        path = self.path(name)
        for snap in path.parent.glob(path.name + "@*"):
            snap.unlink()
        path.unlink(missing_ok=True)
        if path.parent != self.root and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()

    async def resize(self, name: str, size: int) -> None:
        os.truncate(self.path(name), size)

    async def copy(
        self, name: str, target: StorageDriver, target_name: str, fmt: str, snapshot: str | None = None,
        progress: Progress | None = None, *, shared: bool = False, limit_bytes_s: int = 0,
    ) -> None:  # fmt: skip
        assert isinstance(target, FileStorage)
        source = self.path(name if snapshot is None else f"{name}@{snapshot}")
        if not source.exists():
            raise NotFound(f"{name} has no snapshot {snapshot}")
        destination = target.path(target_name)
        if destination.exists():
            raise Conflict(f"{target_name} exists")
        destination.parent.mkdir(exist_ok=True)
        sparse_copy(source, destination)

    async def snapshot(self, name: str, snapshot: str) -> None:
        if self.source(name).format not in self.capabilities.snapshot_formats:
            raise Unsupported("raw cannot")
        if self.path(f"{name}@{snapshot}").exists():
            raise Conflict(f"{name} has a snapshot {snapshot}")
        sparse_copy(self.path(name), self.path(f"{name}@{snapshot}"))

    async def rollback(self, name: str, snapshot: str) -> None:
        sparse_copy(self.path(f"{name}@{snapshot}"), self.path(name))

    async def delete_snapshot(self, name: str, snapshot: str) -> None:
        self.path(f"{name}@{snapshot}").unlink(missing_ok=True)

    async def snapshots(self, name: str) -> Sequence[str]:
        path = self.path(name)
        return sorted(p.name.partition("@")[2] for p in path.parent.glob(path.name + "@*"))

    async def make_base(self, name: str) -> str:
        new = name.replace("/vm-", "/base-")
        if self.path(name).exists():
            self.path(name).rename(self.path(new))
        return new

    def source(self, name: str) -> VolumeSource:
        return VolumeSource(name.rpartition(".")[2] if "." in name else "raw", str(self.path(name)))

    def open(self, name: str, *, write: bool) -> int:
        try:
            return os.open(self.path(name), (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"no such volume '{self.id}:{name}'") from None

    def create_upload(self, content: str) -> tuple[int, str]:
        raise NotImplementedError

    async def finish_upload(self, token: str, content: str, filename: str) -> str:
        raise NotImplementedError

    async def abort_upload(self, token: str) -> None:
        raise NotImplementedError

    async def export(self, name: str, fd: int, snapshot: str | None = None) -> None:
        raise NotImplementedError

    def files(self) -> set[str]:
        """`STORAGE:VOLUME` of every file, snapshots as `…@NAME`."""
        return {f"{self.id}:{p.relative_to(self.root)}" for p in self.root.rglob("*") if p.is_file()}


class FileStorages:
    """Two storages: `local` (qcow2 can be snapshotted) and `plain` (nothing can)."""

    def __init__(self, root: Path) -> None:
        self.drivers = {
            "local": FileStorage("local", root / "local"),
            "plain": FileStorage("plain", root / "plain", frozenset()),
        }

    def driver(self, storage_id: str) -> StorageDriver:
        if storage_id not in self.drivers:
            raise NotFound(f"storage '{storage_id}' does not exist")
        return self.drivers[storage_id]

    async def usable(self, storage_id: str) -> StorageDriver:
        return self.driver(storage_id)

    def image_storages(self) -> Sequence[str]:
        return sorted(self.drivers)

    def files(self) -> set[str]:
        return set().union(*(d.files() for d in self.drivers.values()))


async def snapshot_file(fd: int, fmt: str, name: str, delete: bool) -> None:
    """What QEMU would do to an attached image of FileStorage."""
    path = Path(os.readlink(f"/proc/self/fd/{fd}"))
    target = path.with_name(f"{path.name}@{name}")
    if delete:
        target.unlink(missing_ok=True)
    else:
        sparse_copy(path, target)


@dataclass
class Node:
    """A running daemon's part."""

    guests: Guests
    driver: FakeDriver
    reaper: Reaper
    notes: list[str]
    settled: boot.Settled

    async def ended(self, upid: str) -> str:
        """Wait for a task; its end."""
        return (await self.guests.tasks.wait(upid, 30)).status or ""

    async def ok(self, upid: str) -> None:
        """Wait for a task that must end well."""
        status = await self.ended(upid)
        log, _ = await self.guests.tasks.read_log(upid, 0, 0)
        assert status == "OK", (status, log)


class World:
    """What a crash leaves."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or Path(tempfile.mkdtemp(prefix="pnl", dir="/tmp"))
        self.machine = FakeMachine()
        self.storages = FileStorages(self.directory / "storage")
        self.boot_id = "boot1"
        self.boots = 0

    @asynccontextmanager
    async def boot(self, seed: int = 1) -> AsyncIterator[Node]:
        """A daemon, from start to a polite end."""
        store = Mirror(SqliteStore(self.directory / "store.db"))
        await store.start()
        clock = SystemClock()
        errors: list[BaseException] = []
        tasks = Tasks("n1", self.directory / "tasks", clock, lambda upid, exc: errors.append(exc))
        self.boots += 1
        tasks._counter = self.boots * 0x10000  # all daemons of a world share a pid, so names could repeat in a second
        driver = FakeDriver(self.machine, clock, disk_snapshot=snapshot_file)
        me = await incarnation.register(store, "n1", self.boot_id)
        guests = Guests.build("n1", me, store, tasks, self.storages, driver, clock, random.Random(seed))
        operations.register(guests)
        reaper = Reaper(guests)
        notes: list[str] = []
        settled = await boot.settle(guests, notes.append)
        await firewall.begin(guests, notes.append)
        await tasks.start()
        try:
            yield Node(guests, driver, reaper, notes, settled)
        finally:
            await reaper.close()
            await guests.live.close()
            await tasks.close()
            await firewall.end(guests)
            await driver.close()
            await store.close()
        assert not errors, errors

    def close(self) -> None:
        for vmid in list(self.machine.guests):
            for disk in self.machine.guests[vmid].spec.disks:
                if disk.fd is not None:
                    os.close(disk.fd)
        shutil.rmtree(self.directory, ignore_errors=True)
