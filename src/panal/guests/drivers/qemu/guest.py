"""A running QEMU as the driver holds it: process, monitor, record. Made by `launch.py` or `adopt.py`."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import Any

from panal.core.errors import Unavailable
from panal.guests.drivers.base import GuestEvent
from panal.guests.drivers.qemu.qmp import COMMAND_S, Monitor
from panal.guests.drivers.qemu.records import Record
from panal.host.process import Process

MAX_EVENTS = 1000


@dataclass(eq=False, slots=True)
class Guest:
    """One guest. `busy` serialises what must not overlap (RAM streams, screenshots, console sessions)."""

    record: Record
    process: Process
    monitor: Monitor | None
    status: str = "prelaunch"
    """QEMU's run state, kept up by events"""
    version: str = ""
    leaving: bool = False
    """we or the guest asked for its end: its death is no crash"""
    sessions: dict[int, socket.socket] = field(default_factory=dict)
    watcher: asyncio.Task[None] | None = None
    teller: asyncio.Task[None] | None = None
    events: asyncio.Queue[GuestEvent] = field(default_factory=lambda: asyncio.Queue(MAX_EVENTS))
    companions: list[Process] = field(default_factory=list)
    """swtpm; it ends by itself with QEMU"""
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    copying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """held by the copy of its drives"""
    cleaner: asyncio.Task[None] | None = None
    """waits for a QEMU that hangs to take back what a copy left (copies.py)"""
    thawer: asyncio.Task[None] | None = None
    """asks the guest's agent to thaw what an earlier daemon may have frozen"""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """set when the last trace is cleaned up"""
    cpu_seen: tuple[float, float] | None = None
    """moment and CPU seconds of the last sample"""
    probe: asyncio.Task[None] | None = None
    """waits for a QEMU that did not answer in time (sample.py)"""
    balloon_polled: bool = False

    @property
    def vmid(self) -> int:
        """Its number."""
        return self.record.vmid

    def speaking(self) -> Monitor:
        """The monitor. Unavailable when there is none."""
        if self.monitor is None or self.monitor.closed.is_set():
            raise Unavailable(f"QEMU of VM {self.vmid} does not answer on its monitor; stop the guest to free it")
        return self.monitor

    async def call(self, command: str, arguments: dict[str, object] | None = None, timeout_s: float = COMMAND_S) -> Any:
        """A QMP command. CommandFailed, Unavailable."""
        return await self.speaking().call(command, arguments, timeout_s)
