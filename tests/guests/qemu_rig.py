"""A QEMU driver with a run directory of its own, and disks for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from panal.guests.config import read_drives
from panal.guests.drivers.base import Disk, GuestEvent, Running, StartSpec
from panal.guests.drivers.qemu import QemuDriver
from panal.network import Ports


class Rig:
    """Volumes are files `<name>.<fmt>` in one directory, volume ids `tt:<name>.<fmt>`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.run = directory / "run"
        self.driver: QemuDriver
        self.events: list[GuestEvent] = []
        self.log: list[str] = []

    @classmethod
    async def open(cls) -> Rig:
        self = cls(Path(tempfile.mkdtemp(prefix="pnl", dir="/tmp")))
        self.run.mkdir()
        await self.connect()
        return self

    async def connect(self) -> None:
        """A new driver object, as after a restart of the daemon."""
        # the node's name goes into the control groups: tests at the same time must not share them
        self.driver = await QemuDriver.open(self.run, f"test-{self.directory.name}", Ports())
        self.driver.watch(self._event)

    async def _event(self, event: GuestEvent) -> None:
        self.events.append(event)

    def kinds(self, vmid: int = 100) -> list[str]:
        return [e.kind for e in self.events if e.vmid == vmid]

    def disk(self, name: str, fmt: str = "qcow2", size: str = "64M", source: Path | None = None) -> str:
        path = self.directory / f"{name}.{fmt}"
        if not path.exists():
            if source is not None:
                shutil.copyfile(source, path)
            else:
                subprocess.run(["qemu-img", "create", "-q", "-f", fmt, str(path), size], check=True)
            path.chmod(0o600)
        return f"tt:{name}.{fmt}"

    def path(self, volid: str) -> Path:
        return self.directory / volid.removeprefix("tt:")

    async def start(
        self, config: Mapping[str, str], vmid: int = 100, *, hardware: Mapping[str, str] | None = None,
        incoming: int | None = None, paused: bool = False, epoch: int = 1,
    ) -> Running:  # fmt: skip
        disks = []
        for drive in read_drives(config):
            if drive.volid is None:
                disks.append(Disk(drive.key, "raw", None, read_only=True))
                continue
            path = self.path(drive.volid)
            flags = os.O_RDONLY if drive.cdrom else os.O_RDWR
            disks.append(Disk(drive.key, path.suffix[1:], os.open(path, flags | os.O_CLOEXEC), drive.cdrom))
        full = {"memory": "128", "scsihw": "virtio-scsi-pci", **config}
        spec = StartSpec(vmid, f"vm{vmid}", full, disks, epoch, "boot-1", hardware or {}, incoming, paused)
        return await self.driver.start(spec, self.log.append)

    async def settle(self, done: Callable[[], bool]) -> None:
        for _ in range(500):
            if done():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"never came; events {self.events}, log {self.log}")

    def processes(self) -> list[int]:
        """QEMU processes that write their messages into our directory."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "fd/2").startswith(str(self.run)):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    async def _remove_group(self, group: Path) -> None:
        """A killed process counts until its parent has reaped it."""
        for _ in range(100):
            for inner in [*group.glob("*/"), group] if group.is_dir() else []:
                with contextlib.suppress(OSError):
                    inner.rmdir()
            if not group.is_dir():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{group} stays busy")

    async def close(self) -> None:
        try:
            for vmid in list(self.driver._guests):
                await self.driver.stop(vmid)
            await self.driver.close()
        finally:
            for pid in self.processes():
                os.kill(pid, 9)
            for group in self.driver.host.cgroups.names():
                self.driver.host.cgroups.remove(group)
            for path in self.driver.host.cgroups.paths("x"):
                await self._remove_group(path.parent)
            shutil.rmtree(self.directory)
