"""QEMU/KVM as a guest driver: each verb of `drivers/base.py` in a few lines over the other files here.

Built by `daemon/`, called by the verbs in `guests/`. One `Guest` object a running QEMU; a watcher a guest sees it end (pidfd),
cleans up, and tells. Invariant: a guest is in `_guests` exactly while its process or a trace of it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from panal.core.errors import Conflict, Failed, NotFound, PanalError, Unavailable
from panal.guests.drivers.base import CopyTarget, GuestEvent, Live, Running, StartSpec
from panal.guests.drivers.qemu import adopt, console, copies, launch, sample, streams
from panal.guests.drivers.qemu.blockdev import node_of
from panal.guests.drivers.qemu.guest import Guest
from panal.guests.drivers.qemu.launch import Host
from panal.guests.drivers.qemu.qmp import CommandFailed, Event
from panal.guests.drivers.qemu.records import Places
from panal.host import cgroups, kvm, systemd
from panal.host.process import find
from panal.host.run import run
from panal.network import Ports

_QUIT_S: Final = 2
_DISK_S: Final = 60
_KINDS: Final = {
    "STOP": "paused",
    "RESUME": "resumed",
    "RESET": "reset",
    "SHUTDOWN": "shutdown",
    "BLOCK_IO_ERROR": "io-error",
}
_FOREVER_S: Final = 365 * 24 * 3600


class QemuDriver:
    """See GuestDriver. `open` finds out what the machine offers; nothing else may be called before."""

    def __init__(self, host: Host, on_error: Callable[[str, BaseException], None] | None = None) -> None:
        """`on_error(what, error)` is told of failures nobody waits for: cleaning up, a callback of `watch`."""
        self.host = host
        self._guests: dict[int, Guest] = {}
        self._starting: set[int] = set()
        self._callbacks: list[Callable[[GuestEvent], Awaitable[None]]] = []
        self._on_error = on_error or _ignore

    @classmethod
    async def open(
        cls, run_dir: Path, node: str, ports: Ports, on_error: Callable[[str, BaseException], None] | None = None
    ) -> QemuDriver:
        """Look at the machine once. Unavailable when QEMU is not installed."""
        reason = launch.installed()
        if reason:
            raise Unavailable(reason)
        version = await run([launch.QEMU, "--version"], timeout_s=10)
        words = version.text.split("version ", 1)[-1].split(".")
        places = Places(run_dir)
        host = Host(
            places, ports, cgroups.detect(node), await kvm.decide(run_dir, launch.QEMU),
            f"{words[0]}.{words[1]}", systemd.running(), f"panal-{node}-",
        )  # fmt: skip
        return cls(host, on_error)

    # life

    async def start(self, spec: StartSpec, log: Callable[[str], None]) -> Running:
        """See GuestDriver."""
        if spec.vmid in self._guests or spec.vmid in self._starting:
            for disk in spec.disks:
                if disk.fd is not None:
                    os.close(disk.fd)
            raise Conflict(f"VM {spec.vmid} already running", vmid=spec.vmid)
        self._starting.add(spec.vmid)
        try:
            guest = await launch.launch(self.host, spec, log, self._handler(spec.vmid))
            self._hold(guest)
        except BaseException:
            self._hold_what_would_not_die(spec.vmid)
            raise
        finally:
            self._starting.discard(spec.vmid)
        self._tell(guest, "started")
        return guest.record.running()

    def _hold_what_would_not_die(self, vmid: int) -> None:
        """A process that hangs in the kernel after a failed start: the guest is not stopped, and nobody may think so."""
        record = self.host.places.read(vmid)
        held = find(record.pid, record.started) if record else None
        if record is not None and held is not None:
            self._hold(Guest(record, held, None, leaving=True))

    def _hold(self, guest: Guest) -> None:
        self._guests[guest.vmid] = guest
        guest.watcher = asyncio.create_task(self._watch(guest), name=f"guest {guest.vmid}")
        guest.teller = asyncio.create_task(self._deliver(guest), name=f"events {guest.vmid}")

    async def stop(self, vmid: int, timeout_s: float = 10) -> None:
        """See GuestDriver."""
        guest = self._guests.get(vmid)
        if guest is None:
            return
        guest.leaving = True
        patience_s = 0.0
        with contextlib.suppress(PanalError):
            # QEMU writes its caches out on quit; one that does not answer gets SIGKILL at once
            await guest.call("quit", timeout_s=_QUIT_S)
            patience_s = timeout_s
        if not await guest.process.wait(patience_s):
            await guest.process.kill(timeout_s)
        if not await self.wait_stopped(vmid, timeout_s):
            raise Failed(f"VM {vmid} has ended, but what it leaves behind cannot be removed; see the daemon's log")

    async def shutdown(self, vmid: int) -> None:
        """See GuestDriver."""
        await self._get(vmid).call("system_powerdown")

    async def reset(self, vmid: int) -> None:
        """See GuestDriver."""
        await self._get(vmid).call("system_reset")

    async def pause(self, vmid: int) -> None:
        """See GuestDriver."""
        guest = self._get(vmid)
        await guest.call("stop", timeout_s=_DISK_S)  # waits for the drives' requests in flight
        guest.status = "paused"

    async def resume(self, vmid: int) -> None:
        """See GuestDriver."""
        guest = self._get(vmid)
        await guest.call("cont", timeout_s=_DISK_S)
        guest.status = "running"

    async def wait_stopped(self, vmid: int, timeout_s: float) -> bool:
        """See GuestDriver."""
        guest = self._guests.get(vmid)
        if guest is None:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await guest.ended.wait()
        except TimeoutError:
            return False
        return True

    # drives and memory

    async def resize_disk(self, vmid: int, key: str, size: int) -> None:
        """See GuestDriver."""
        await self._get(vmid).call("block_resize", {"node-name": node_of(key), "size": size}, _DISK_S)

    async def snapshot_disks(self, vmid: int, keys: Sequence[str], name: str) -> None:
        """See GuestDriver."""
        actions = [
            {"type": "blockdev-snapshot-internal-sync", "data": {"device": node_of(key), "name": name}} for key in keys
        ]
        if actions:
            await self._get(vmid).call("transaction", {"actions": actions}, _DISK_S)

    async def delete_disk_snapshot(self, vmid: int, key: str, name: str) -> None:
        """See GuestDriver."""
        try:
            await self._get(vmid).call(
                "blockdev-snapshot-delete-internal-sync", {"device": node_of(key), "name": name}, _DISK_S
            )
        except CommandFailed as exc:
            if "does not exist" not in exc.text:
                raise

    async def copy_disks(
        self, vmid: int, targets: Mapping[str, CopyTarget], progress: Callable[[int, int], None], *,
        limit_bytes_s: int = 0,
    ) -> None:  # fmt: skip
        """See GuestDriver."""
        try:
            door = self.host.places.directory(vmid) / "agent"
            await copies.copy(self._get(vmid), targets, progress, limit_bytes_s, door)
        finally:
            for target in targets.values():
                os.close(target.fd)

    async def save_ram(self, vmid: int, fd: int, progress: Callable[[int, int], None]) -> None:
        """See GuestDriver."""
        guest = self._get(vmid)
        if sample.status_of(guest.status) == "running":
            raise Failed(f"VM {vmid} must be paused before its RAM is saved")
        async with guest.busy:
            await streams.save(guest, fd, progress)

    # console

    async def screenshot(self, vmid: int) -> bytes:
        """See GuestDriver."""
        return await console.screenshot(self._get(vmid))

    async def send_keys(self, vmid: int, keys: Sequence[str]) -> None:
        """See GuestDriver."""
        await console.send_keys(self._get(vmid), keys)

    def serial(self, vmid: int, port: int) -> int:
        """See GuestDriver."""
        return console.serial(self.host.places, self._get(vmid), port)

    # state

    async def sample(self) -> Sequence[Live]:
        """See GuestDriver."""
        return await asyncio.gather(*(self._sample(guest) for guest in list(self._guests.values())))

    async def info(self, vmid: int) -> Live:
        """See GuestDriver."""
        guest = self._guests.get(vmid)
        return Live(vmid, "stopped") if guest is None else await self._sample(guest)

    async def adopt(self) -> Sequence[Running]:
        """See GuestDriver."""
        for guest in await adopt.adopt(self.host, self._handler):
            self._hold(guest)
        return [guest.record.running() for guest in self._guests.values()]

    def watch(self, callback: Callable[[GuestEvent], Awaitable[None]]) -> None:
        """See GuestDriver."""
        self._callbacks.append(callback)

    async def close(self) -> None:
        """See GuestDriver."""
        guests, self._guests = list(self._guests.values()), {}
        for guest in guests:
            for task in (guest.watcher, guest.teller, guest.probe, guest.cleaner, guest.thawer):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
            if guest.monitor is not None:
                await guest.monitor.close()
            for process in (guest.process, *guest.companions):
                process.close()
        self.host.cgroups.leave()

    # inside

    def _get(self, vmid: int) -> Guest:
        guest = self._guests.get(vmid)
        if guest is None:
            raise NotFound(f"VM {vmid} not running", vmid=vmid)
        return guest

    async def _sample(self, guest: Guest) -> Live:
        if guest.monitor is None or guest.monitor.closed.is_set():
            await adopt.connect(self.host, guest, self._handler(guest.vmid), sample.QMP_S)
        self.host.places.trim_log(guest.vmid)
        return await sample.sample(guest)

    def _handler(self, vmid: int) -> Callable[[Event], None]:
        def handle(event: Event) -> None:
            guest = self._guests.get(vmid)
            if guest is not None:
                self._event(guest, event)

        return handle

    def _event(self, guest: Guest, event: Event) -> None:
        name, data = str(event.get("event")), event.get("data") or {}
        if name == "SHUTDOWN":
            guest.leaving = True  # QEMU ends by itself now
        elif name == "RESUME":
            guest.status = "running"
        elif name == "STOP":
            guest.status = "paused"
        if name in _KINDS:
            self._tell(
                guest, _KINDS[name], str(data.get("reason") or data.get("node-name") or data.get("device") or "")
            )

    def _tell(self, guest: Guest, kind: str, detail: str = "") -> None:
        # a guest that floods us (I/O errors) loses events, never the last one: see _watch
        with contextlib.suppress(asyncio.QueueFull):
            guest.events.put_nowait(GuestEvent(guest.vmid, kind, detail))

    async def _deliver(self, guest: Guest) -> None:
        while True:
            event = await guest.events.get()
            for callback in self._callbacks:
                try:
                    await callback(event)
                except Exception as exc:
                    self._on_error(f"event {event.kind} of VM {guest.vmid}", exc)
            if event.kind in ("stopped", "crashed"):
                return

    async def _watch(self, guest: Guest) -> None:
        while not await guest.process.wait(_FOREVER_S):
            continue
        why = guest.process.status()
        clean = guest.leaving or why == "exit status 0"
        try:
            await launch.discard(self.host, guest)
        except Exception as exc:
            self._on_error(f"cleaning up after VM {guest.vmid}", exc)
        self._guests.pop(guest.vmid, None)
        guest.status = "stopped"
        guest.ended.set()
        if guest.events.full():
            guest.events.get_nowait()
        self._tell(guest, "stopped" if clean else "crashed", why)


def _ignore(what: str, error: BaseException) -> None:
    """Where nobody listens."""
