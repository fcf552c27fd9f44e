"""A hypervisor with the behaviour of one and no processes: for tests, demos and benches (`--driver fake`).

`FakeMachine` is the machine: its guests outlive a `FakeDriver`, as real processes outlive the daemon. Disks are really locked
(open-file-description locks on the descriptors), so a guest that would run twice is refused by its own disk and recorded in
`FakeMachine.double_runs`. Faults are made with `crash`, `hang`, `fail_next`. Timings are waited on the injected clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import socket
import struct
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from panal.core.clock import Clock, SystemClock
from panal.core.errors import Failed, NotFound, Unavailable
from panal.guests.drivers.base import CopyTarget, Disk, GuestEvent, Live, Running, StartSpec, Status
from panal.guests.drivers.fake_disks import DiskCopy, DiskSnapshot, copy_bytes

_OFD_SETLK: Final = 37
_MIB: Final = 1024 * 1024
MAGIC: Final = b"FAKERAM1"


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that things take."""

    start_s: float = 0.0
    stop_s: float = 0.0
    shutdown_s: float = 0.0
    save_ram_s: float = 0.0
    copy_s: float = 0.0


@dataclass(slots=True)
class FakeGuest:
    """A process that is not there. `ram` is what a snapshot with RAM must bring back."""

    spec: StartSpec
    pid: int
    started_s: float
    hardware: Mapping[str, str]
    status: Status = "running"
    hung: bool = False
    acpi: bool = True
    """whether it obeys the power button"""
    resets: int = 0
    keys: list[tuple[str, ...]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    snapshots: set[tuple[str, str]] = field(default_factory=set)
    copying: set[str] = field(default_factory=set)
    """drives that are being copied: a second copy is refused until the first is over"""
    ram: str = ""
    consoles: dict[int, socket.socket] = field(default_factory=dict)
    memory: int = 512 * _MIB
    vcpus: int = 1


@dataclass(slots=True)
class FakeMachine:
    """What survives the driver."""

    guests: dict[int, FakeGuest] = field(default_factory=dict)
    next_pid: int = 100_000
    double_runs: list[int] = field(default_factory=list)
    """guests whose disk was open for writing elsewhere when they were started: must stay empty"""
    starts: int = 0


class FakeDriver:
    """See GuestDriver."""

    def __init__(
        self, machine: FakeMachine | None = None, clock: Clock | None = None, timings: Timings | None = None,
        disk_snapshot: DiskSnapshot | None = None, disk_copy: DiskCopy | None = None,
    ) -> None:  # fmt: skip
        self.machine = machine or FakeMachine()
        self.timings = timings or Timings()
        self._clock = clock or SystemClock()
        self._disk_snapshot = disk_snapshot
        self._disk_copy = disk_copy or copy_bytes
        self._callbacks: list[Callable[[GuestEvent], Awaitable[None]]] = []
        self._queue: deque[GuestEvent] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._failures: dict[str, deque[Exception]] = {}

    # faults

    def fail_next(self, method: str, error: Exception) -> None:
        """The next call of `method` raises."""
        self._failures.setdefault(method, deque()).append(error)

    def crash(self, vmid: int) -> None:
        """Kill the process."""
        self._gone(vmid, "crashed")

    def power_off(self, vmid: int) -> None:
        """The guest switches itself off."""
        self._gone(vmid, "stopped")

    def hang(self, vmid: int, hung: bool = True) -> None:
        """The process lives and answers nothing; only `stop` helps."""
        self.machine.guests[vmid].hung = hung

    def _fault(self, method: str) -> None:
        waiting = self._failures.get(method)
        if waiting:
            raise waiting.popleft()

    # life

    async def start(self, spec: StartSpec, log: Callable[[str], None]) -> Running:
        """See GuestDriver."""
        try:
            self._fault("start")
            if spec.vmid in self.machine.guests:
                raise Failed(f"a process of VM {spec.vmid} runs already")
            for disk in spec.disks:
                self._lock(spec.vmid, disk)
            ram = _read_ram(spec.incoming) if spec.incoming is not None else f"booted at epoch {spec.epoch}"
            if self.timings.start_s:
                await self._clock.sleep(self.timings.start_s)
        except BaseException:
            _close(spec)
            raise
        self.machine.starts += 1
        guest = self.seed(spec, ram)
        log(f"fake guest started, pid {guest.pid}")
        self._tell(spec.vmid, "started")
        return self._running(guest)

    def seed(self, spec: StartSpec, ram: str = "") -> FakeGuest:
        """Put a guest onto the machine as if it had been started before (populate.py); no locks, no event."""
        self.machine.next_pid += 1
        hardware = dict(spec.hardware) or {"machine": spec.config.get("machine") or "pc-i440fx-7.2+panal0"}
        guest = FakeGuest(
            spec, self.machine.next_pid, self._clock.monotonic_s(), hardware, "paused" if spec.paused else "running",
            acpi=spec.config.get("acpi", "1") != "0", ram=ram, memory=_memory(spec.config), vcpus=_vcpus(spec.config),
        )  # fmt: skip
        self.machine.guests[spec.vmid] = guest
        return guest

    def _lock(self, vmid: int, disk: Disk) -> None:
        if disk.fd is None:
            return
        kind = fcntl.F_RDLCK if disk.read_only else fcntl.F_WRLCK
        try:
            fcntl.fcntl(disk.fd, _OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, 0, 1, 0))
        except OSError as exc:
            if exc.errno not in (errno.EACCES, errno.EAGAIN):
                raise Failed(f"drive {disk.key} cannot be locked: {exc}") from exc
            self.machine.double_runs.append(vmid)
            raise Failed(
                f"drive {disk.key} is in use by another process: is another guest using the same image?"
            ) from exc

    def _running(self, guest: FakeGuest) -> Running:
        spec = guest.spec
        return Running(spec.vmid, guest.pid, spec.epoch, spec.incarnation, guest.hardware, spec.config)

    def _gone(self, vmid: int, kind: str) -> None:
        guest = self.machine.guests.pop(vmid, None)
        if guest is None:
            return
        _close(guest.spec)
        for console in guest.consoles.values():
            _end_console(console)
        self._tell(vmid, kind)

    async def stop(self, vmid: int, timeout_s: float = 10) -> None:
        """See GuestDriver."""
        self._fault("stop")
        if vmid in self.machine.guests and self.timings.stop_s:
            await self._clock.sleep(self.timings.stop_s)
        self._gone(vmid, "stopped")

    def _get(self, vmid: int) -> FakeGuest:
        guest = self.machine.guests.get(vmid)
        if guest is None:
            raise NotFound(f"VM {vmid} not running", vmid=vmid)
        if guest.hung:
            raise Unavailable(f"VM {vmid} does not answer; stop it")
        return guest

    async def shutdown(self, vmid: int) -> None:
        """See GuestDriver."""
        self._fault("shutdown")
        guest = self._get(vmid)
        if not guest.acpi or guest.status != "running":
            return

        async def obey() -> None:
            await self._clock.sleep(self.timings.shutdown_s)
            if self.machine.guests.get(vmid) is guest:
                self._gone(vmid, "stopped")

        task = asyncio.create_task(obey())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def reset(self, vmid: int) -> None:
        """See GuestDriver."""
        self._get(vmid).resets += 1
        self._tell(vmid, "reset")

    async def pause(self, vmid: int) -> None:
        """See GuestDriver."""
        self._fault("pause")
        self._get(vmid).status = "paused"
        self._tell(vmid, "paused")

    async def resume(self, vmid: int) -> None:
        """See GuestDriver."""
        self._fault("resume")
        self._get(vmid).status = "running"
        self._tell(vmid, "resumed")

    async def wait_stopped(self, vmid: int, timeout_s: float) -> bool:
        """See GuestDriver."""
        end = self._clock.monotonic_s() + timeout_s
        while vmid in self.machine.guests:
            if self._clock.monotonic_s() >= end:
                return False
            await self._clock.sleep(min(0.02, timeout_s))
        return True

    # disks and memory

    async def resize_disk(self, vmid: int, key: str, size: int) -> None:
        """See GuestDriver."""
        self._fault("resize_disk")
        guest = self._get(vmid)
        disk = self._disk(guest, key)
        if disk.fmt == "raw" and disk.fd is not None:
            os.truncate(disk.fd, size)
        guest.sizes[key] = size

    @staticmethod
    def _disk(guest: FakeGuest, key: str) -> Disk:
        found = next((d for d in guest.spec.disks if d.key == key and d.fd is not None), None)
        if found is None:
            raise NotFound(f"VM {guest.spec.vmid} has no drive {key}")
        return found

    async def snapshot_disks(self, vmid: int, keys: Sequence[str], name: str) -> None:
        """See GuestDriver."""
        self._fault("snapshot_disks")
        guest = self._get(vmid)
        done: list[str] = []
        try:
            for key in keys:
                await self._image_snapshot(guest, key, name, delete=False)
                done.append(key)
        except BaseException:
            for key in done:
                await self._image_snapshot(guest, key, name, delete=True)
            raise

    async def _image_snapshot(self, guest: FakeGuest, key: str, name: str, *, delete: bool) -> None:
        disk = self._disk(guest, key)
        if self._disk_snapshot is not None and disk.fd is not None:
            await self._disk_snapshot(disk.fd, disk.fmt, name, delete)
        if delete:
            guest.snapshots.discard((key, name))
        else:
            guest.snapshots.add((key, name))

    async def delete_disk_snapshot(self, vmid: int, key: str, name: str) -> None:
        """See GuestDriver."""
        self._fault("delete_disk_snapshot")
        await self._image_snapshot(self._get(vmid), key, name, delete=True)

    async def copy_disks(
        self, vmid: int, targets: Mapping[str, CopyTarget], progress: Callable[[int, int], None], *,
        limit_bytes_s: int = 0,
    ) -> None:  # fmt: skip
        """See GuestDriver. The instant is the end, as with QEMU's mirrors."""
        try:
            self._fault("copy_disks")
            guest = self._get(vmid)
            sources = {key: self._disk(guest, key) for key in targets}
            if guest.copying:
                raise Failed(f"the disks of VM {vmid} are being copied already")
            guest.copying |= set(sources)
            await self._copy(guest, sources, targets, progress)
        finally:
            for target in targets.values():
                os.close(target.fd)

    async def _copy(
        self, guest: FakeGuest, sources: Mapping[str, Disk], targets: Mapping[str, CopyTarget],
        progress: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        total = sum(os.fstat(disk.fd or 0).st_size for disk in sources.values())
        was, vmid = guest.status, guest.spec.vmid
        try:
            progress(0, total)
            if self.timings.copy_s:
                await self._clock.sleep(self.timings.copy_s)
            if self.machine.guests.get(vmid) is not guest:
                raise Failed(f"VM {vmid} ended while its disks were copied; try again")
            guest.status = "paused"
            self._fault("copy_instant")
            for key, disk in sources.items():
                await self._disk_copy(disk.fd or 0, disk.fmt, targets[key])
            progress(total, total)
        finally:
            guest.status = was
            guest.copying.clear()

    async def save_ram(self, vmid: int, fd: int, progress: Callable[[int, int], None]) -> None:
        """See GuestDriver."""
        self._fault("save_ram")
        guest = self._get(vmid)
        if guest.status != "paused":
            raise Failed(f"VM {vmid} must be paused before its RAM is saved")
        progress(0, guest.memory)
        if self.timings.save_ram_s:
            await self._clock.sleep(self.timings.save_ram_s)
        text = json.dumps({"ram": guest.ram, "hardware": dict(guest.hardware)}).encode()
        os.pwrite(fd, MAGIC + struct.pack(">I", len(text)) + text, 0)
        progress(guest.memory, guest.memory)

    # screen, keys, console

    async def screenshot(self, vmid: int) -> bytes:
        """See GuestDriver."""
        self._get(vmid)
        return png(64, 48, vmid & 0xFF)

    async def send_keys(self, vmid: int, keys: Sequence[str]) -> None:
        """See GuestDriver."""
        self._get(vmid).keys.append(tuple(keys))

    def serial(self, vmid: int, port: int) -> int:
        """See GuestDriver. The guest's end greets and echoes."""
        guest = self._get(vmid)
        if f"serial{port}" not in guest.spec.config:
            raise NotFound(f"VM {vmid} has no serial port {port}: set serial{port}=socket and start it again")
        if port in guest.consoles:
            _end_console(guest.consoles.pop(port))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        guest.consoles[port] = ours
        loop = asyncio.get_running_loop()

        def echo() -> None:
            try:
                data = ours.recv(4096)
                if data:
                    ours.send(data)
                    return
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                pass
            _end_console(ours)

        loop.add_reader(ours, echo)
        ours.send(f"fake guest {vmid} serial {port}\r\n".encode())
        return theirs.detach()

    # watching

    def _live(self, guest: FakeGuest) -> Live:
        up = max(0, int(self._clock.monotonic_s() - guest.started_s))
        vmid = guest.spec.vmid
        share = 0.0 if guest.status == "paused" else ((vmid * 37 + up * 11) % 100) / 400
        return Live(
            vmid, guest.status, guest.status, guest.pid, up, share, guest.memory * (40 + (vmid + up) % 20) // 100,
            guest.memory // 2, up * 1000 + vmid, up * 800, up * 4096, up * 2048, guest.memory,
            guest.hardware.get("machine"), "7.2.0",
        )  # fmt: skip

    async def sample(self) -> Sequence[Live]:
        """See GuestDriver."""
        self._fault("sample")
        return [self._live(guest) for guest in self.machine.guests.values()]

    async def info(self, vmid: int) -> Live:
        """See GuestDriver."""
        guest = self.machine.guests.get(vmid)
        if guest is None:
            return Live(vmid, "stopped")
        return replace(self._live(guest), qmpstatus="unknown") if guest.hung else self._live(guest)

    async def adopt(self) -> Sequence[Running]:
        """See GuestDriver."""
        for guest in self.machine.guests.values():
            guest.copying.clear()
        return [self._running(guest) for guest in self.machine.guests.values()]

    def watch(self, callback: Callable[[GuestEvent], Awaitable[None]]) -> None:
        """See GuestDriver."""
        self._callbacks.append(callback)

    def _tell(self, vmid: int, kind: str) -> None:
        if not self._callbacks:
            return
        self._queue.append(GuestEvent(vmid, kind))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._deliver(), name="fake guest events")

    async def _deliver(self) -> None:
        while self._queue:
            event = self._queue.popleft()
            for callback in self._callbacks:
                await callback(event)

    async def close(self) -> None:
        """See GuestDriver. The guests stay on the machine."""
        self._callbacks.clear()
        for task in [*self._background, *([self._pump] if self._pump else [])]:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for guest in self.machine.guests.values():
            for console in guest.consoles.values():
                _end_console(console)
            guest.consoles.clear()


def _close(spec: StartSpec) -> None:
    for fd in [*(d.fd for d in spec.disks), spec.incoming]:
        if fd is not None:
            os.close(fd)


def _end_console(console: socket.socket) -> None:
    if console.fileno() >= 0:
        with contextlib.suppress(RuntimeError):  # no loop any more
            asyncio.get_running_loop().remove_reader(console)
        console.close()


def _read_ram(fd: int) -> str:
    head = os.pread(fd, len(MAGIC) + 4, 0)
    if not head.startswith(MAGIC) or len(head) < len(MAGIC) + 4:
        raise Failed("the saved RAM is no fake RAM stream: it is damaged or was made by another hypervisor")
    (length,) = struct.unpack(">I", head[len(MAGIC) :])
    text: str = json.loads(os.pread(fd, length, len(MAGIC) + 4))["ram"]
    return text


def _memory(config: Mapping[str, str]) -> int:
    text = config.get("memory", "512").removeprefix("current=").split(",")[0]
    return (int(text) if text.isdigit() else 512) * _MIB


def _vcpus(config: Mapping[str, str]) -> int:
    return int(config.get("cores", "1")) * int(config.get("sockets", "1"))


def png(width: int, height: int, shade: int) -> bytes:
    """A grey PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([shade]) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
