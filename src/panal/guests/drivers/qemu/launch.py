"""Brings a QEMU to life: sockets, uid, process, limits, handshake, run record, and only then the vCPUs.

Called by the driver's `start`. Invariant: it returns a guest that runs (or is paused, if asked), or raises and nothing is left:
no process, tap, control group, socket, descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from panal.core.errors import Failed, PanalError, Unavailable
from panal.guests.config import read
from panal.guests.drivers.base import StartSpec
from panal.guests.drivers.qemu import machine, processor, streams, tpm
from panal.guests.drivers.qemu.argv import Argv
from panal.guests.drivers.qemu.guest import Guest
from panal.guests.drivers.qemu.qmp import Event, Monitor
from panal.guests.drivers.qemu.records import MONITORS, Places, Record
from panal.host import kvm as kvm_device
from panal.host import process, systemd, uids
from panal.host.cgroups import Cgroups, Limits
from panal.host.kvm import Kvm
from panal.network import Ports

QEMU: Final = "/usr/bin/qemu-system-x86_64"
HANDSHAKE_S: Final = 30
"""generous: firmware, big memory and a loaded machine; a QEMU that died is noticed at once"""
OVERHEAD: Final = 2 << 30
"""RAM that QEMU itself may use beside the guest's (caches of images, the emulator's translations)"""


@dataclass(frozen=True, slots=True)
class Host:
    """What this machine offers, found out once."""

    places: Places
    ports: Ports
    cgroups: Cgroups
    kvm: Kvm
    version: str
    systemd: bool
    scope_prefix: str


async def launch(host: Host, spec: StartSpec, log: Callable[[str], None], on_event: Callable[[Event], None]) -> Guest:
    """Run the guest. BadInput, Unavailable, Failed (with QEMU's own last words)."""
    host.places.prepare(spec.vmid)
    argv: Argv | None = None
    guest: Guest | None = None
    try:
        kvm = _accelerator(host, spec, log)
        argv = await machine.build(
            spec, host.ports, lambda name: host.places.listen(spec.vmid, name), version=host.version, kvm=kvm
        )
        for note in argv.notes:
            log(note)
        child, uid, companions = _spawn(host, spec, argv, kvm_groups=(kvm_device.groups() or ()) if kvm else ())
        argv_taps, pins = dict(argv.taps), {**spec.hardware, **argv.pins}
        record = Record(
            spec.vmid, child.pid, child.started, uid, spec.epoch, spec.incarnation, pins, dict(spec.config), argv_taps, kvm,
            begun=False,
        )  # fmt: skip
        guest = Guest(record, child, None, companions=companions)
        host.places.write(record)
        await _confine(host, spec, [child, *companions], log)
        await _handshake(host, guest, on_event)
        await _begin(guest, spec, argv)
        guest.record = replace(record, begun=True)
        host.places.write(guest.record)
        return guest
    except BaseException:
        if guest is not None:
            await asyncio.shield(discard(host, guest))
        host.places.remove(spec.vmid)
        raise
    finally:
        if argv is not None:
            argv.close()
        if spec.incoming is not None:
            with contextlib.suppress(OSError):
                os.close(spec.incoming)


async def discard(host: Host, guest: Guest) -> None:
    """Kill what is left of it and remove every trace. Failed when the process does not die."""
    guest.leaving = True
    for session in guest.sessions.values():
        session.close()
    guest.sessions.clear()
    for waiting in (guest.probe, guest.cleaner, guest.thawer):
        if waiting is not None:
            waiting.cancel()
    await guest.process.kill(10)
    for helper in guest.companions:
        if not await helper.wait(1):
            await helper.kill(5)
        helper.close()
    if guest.monitor is not None:
        await guest.monitor.close()
    guest.process.close()
    if guest.record.uid is not None:
        uids.give_back(guest.record.uid)
    host.cgroups.remove(str(guest.vmid))
    host.places.remove(guest.vmid)


def _accelerator(host: Host, spec: StartSpec, log: Callable[[str], None]) -> bool:
    if not read.flag(spec.config, "kvm", True):
        log("the guest runs without KVM, as configured")
        return False
    if not host.kvm.usable:
        log(f"{host.kvm.reason}; the guest is emulated (slow)")
    return host.kvm.usable


def _spawn(
    host: Host, spec: StartSpec, argv: Argv, *, kvm_groups: Sequence[int]
) -> tuple[process.Process, int | None, list[process.Process]]:
    own: list[int] = []
    log = host.places.log_fd(spec.vmid)
    uid = None
    companions: list[process.Process] = []
    try:
        for name in MONITORS:
            own.append(fd := host.places.listen(spec.vmid, name))
            argv.add("-chardev", f"socket,id={name},fd={fd},server=on,wait=off", "-mon", f"chardev={name},mode=control")
        if spec.incoming is not None:
            argv.add("-incoming", "defer")
        if os.geteuid() == 0:
            lease = uids.take(hint=spec.vmid)
            own.append(lease.fd)
            uid = lease.uid
        companions += [tpm.start(helper, uid, log) for helper in argv.companions]
        fds = [*argv.fds, *own]
        child = process.spawn([QEMU, *argv.args], fds=fds, output_fd=log, uid=uid, groups=kvm_groups)
        return child, uid, companions
    except BaseException:
        for helper in companions:
            helper.signal(signal.SIGKILL)
            helper.close()
        raise
    finally:
        for fd in (*own, log):
            os.close(fd)


async def _confine(host: Host, spec: StartSpec, members: list[process.Process], log: Callable[[str], None]) -> None:
    """Limits: a scope of systemd, or a control group, or a word that there is none."""
    weight = read.number(spec.config, "cpuunits", 0) or None
    memory = (read.memory_mib(spec.config) << 20) * 5 // 4 + OVERHEAD
    limits = Limits(read.cpulimit(spec.config), weight, memory)
    pids = [member.pid for member in members]
    if host.systemd:
        await systemd.start_scope(f"{host.scope_prefix}{spec.vmid}.scope", pids, f"VM {spec.vmid}", limits)
    elif host.cgroups.version:
        try:
            host.cgroups.create(str(spec.vmid), limits)
            for pid in pids:
                host.cgroups.add(str(spec.vmid), pid)
        except OSError as exc:
            raise Failed(f"cannot limit the guest's processors and memory: {exc}") from exc
    elif limits.cpus or weight:
        log(f"cpulimit and cpuunits have no effect: {host.cgroups.reason}")


async def _handshake(host: Host, guest: Guest, on_event: Callable[[Event], None]) -> None:
    """Connect as soon as QEMU listens; if it dies instead, say why with its own words."""
    path = host.places.directory(guest.vmid) / MONITORS[0]
    connecting = asyncio.ensure_future(Monitor.connect(path, on_event, HANDSHAKE_S))
    dying = asyncio.ensure_future(guest.process.wait(HANDSHAKE_S))
    try:
        await asyncio.wait({connecting, dying}, return_when=asyncio.FIRST_COMPLETED)
        if dying.done() and dying.result():
            words = host.places.last_words(guest.vmid) or f"it ended with {guest.process.status()}"
            raise Failed(f"QEMU cannot start the guest: {words}")
        guest.monitor = await connecting
        guest.version = guest.monitor.version
    except Unavailable as exc:
        words = host.places.last_words(guest.vmid)
        raise Failed(f"QEMU does not come up: {exc}{'; ' + words if words else ''}") from exc
    finally:
        for waiting in (connecting, dying):
            if not waiting.done():
                waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, PanalError):
                await waiting


async def _begin(guest: Guest, spec: StartSpec, argv: Argv) -> None:
    if "affinity" in spec.config:
        _pin_threads(guest.process.pid, processor.numbers("affinity", spec.config["affinity"]))
    for command, arguments in argv.after:
        await guest.call(command, arguments)
    if spec.incoming is not None:
        await streams.load(guest, spec.incoming)
    if spec.paused or read.flag(spec.config, "freeze", False):
        guest.status = "paused"
        return
    await guest.call("cont")
    guest.status = "running"


def _pin_threads(pid: int, cpus: set[int]) -> None:
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cpus)
    except OSError as exc:
        raise Failed(
            f"affinity: the guest cannot run on the chosen processors of this machine: {exc.strerror}"
        ) from exc


def installed() -> str | None:
    """Why there is no QEMU here; None when there is."""
    return None if shutil.which(QEMU) else f"{QEMU} is missing; install the package qemu-system-x86"
