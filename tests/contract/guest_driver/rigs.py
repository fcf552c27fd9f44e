"""Rigs: a driver of each kind with disks to run guests on. The suite knows nothing else of a driver."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from panal.guests.drivers.base import Disk, GuestDriver, GuestEvent, Running, StartSpec
from panal.guests.drivers.fake import FakeDriver, FakeMachine
from panal.guests.drivers.fake_disks import image_copy, image_snapshot


class Rig:
    """One machine. `reconnect` is a restart of the daemon: another driver object, the same processes."""

    driver: GuestDriver

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pnl", dir="/tmp"))
        self.events: list[GuestEvent] = []
        self.log: list[str] = []

    async def _saw(self, event: GuestEvent) -> None:
        self.events.append(event)

    def image(self, name: str = "disk.qcow2", size: str = "8M") -> Path:
        path = self.directory / name
        if not path.exists():
            subprocess.run(["qemu-img", "create", "-q", "-f", path.suffix[1:], str(path), size], check=True)
            path.chmod(0o600)
        return path

    def disk(self, key: str = "scsi0", name: str = "disk.qcow2", *, read_only: bool = False) -> Disk:
        path = self.image(name)
        flags = os.O_RDONLY if read_only else os.O_RDWR
        return Disk(key, path.suffix[1:], os.open(path, flags | os.O_CLOEXEC), read_only)

    def spec(self, *disks: Disk, vmid: int = 100, epoch: int = 1, **more: Any) -> StartSpec:
        config = {
            "memory": "64", "vga": "none", "serial0": "socket", "scsihw": "virtio-scsi-pci", **more.pop("config", {}),
        }  # fmt: skip
        config |= {d.key: f"tt:{d.key},size=8M" for d in disks}
        return StartSpec(vmid, f"vm{vmid}", config, disks, epoch, "n1:boot1", **more)

    async def start(self, *disks: Disk, **more: Any) -> Running:
        return await self.driver.start(self.spec(*disks, **more), self.log.append)

    async def saw(self, kind: str, vmid: int = 100) -> None:
        await self.until(lambda: any(e.kind == kind and e.vmid == vmid for e in self.events))

    async def until(self, done: Callable[[], bool]) -> None:
        for _ in range(1000):
            if done():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"never came; events {self.events}, log {self.log}")

    async def reconnect(self) -> None:
        raise AssertionError("each rig has its own")

    def kill(self, vmid: int, pid: int) -> None:
        raise AssertionError("each rig has its own")

    async def close(self) -> None:
        for vmid in (100, 101):
            with contextlib.suppress(Exception):
                await self.driver.stop(vmid)
        await self.driver.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class FakeRig(Rig):
    """No processes."""

    driver: FakeDriver

    def __init__(self) -> None:
        super().__init__()
        self.machine = FakeMachine()

    async def reconnect(self) -> None:
        if hasattr(self, "driver"):
            await self.driver.close()
        self.driver = FakeDriver(self.machine, disk_snapshot=image_snapshot, disk_copy=image_copy)
        self.driver.watch(self._saw)

    def kill(self, vmid: int, pid: int) -> None:
        self.driver.crash(vmid)


class QemuRig(Rig):
    """Real ones."""

    async def reconnect(self) -> None:
        from panal.guests.drivers.qemu import QemuDriver
        from panal.network import Ports

        if hasattr(self, "driver"):
            await self.driver.close()
        run = self.directory / "run"
        run.mkdir(exist_ok=True)
        self.driver = await QemuDriver.open(run, f"test-{self.directory.name}", Ports())
        self.driver.watch(self._saw)

    def kill(self, vmid: int, pid: int) -> None:
        os.kill(pid, 9)

    async def close(self) -> None:
        host = self.driver.host  # type: ignore[attr-defined]
        names, paths = host.cgroups.names(), host.cgroups.paths("x")
        await super().close()
        for group in names:
            host.cgroups.remove(group)
        for path in paths:
            with contextlib.suppress(OSError):
                path.parent.rmdir()


async def opened(kind: str) -> AsyncIterator[Rig]:
    made: Rig = FakeRig() if kind == "fake" else QemuRig()
    await made.reconnect()
    try:
        yield made
    finally:
        await made.close()
