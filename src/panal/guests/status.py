"""A guest's row as lists show it: what it is configured to have, what it uses now. Names and types are PVE's.

Used by `GET /nodes/{node}/qemu`, `status/current` and `/cluster/resources`. What is derived from the configuration is worked
out once a change of it (`facts`), so that 10,000 rows cost no parsing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from panal.guests.config import read_drives
from panal.guests.config.read import agent, boot_order, memory_mib, serials, tags, topology
from panal.guests.context import Guests
from panal.guests.drivers.base import Live
from panal.guests.model import Guest

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Facts:
    """What follows from the configuration. Bytes."""

    revision: int
    cpus: int
    maxmem: int
    maxdisk: int
    tags: str
    agent: bool
    serial: bool


def facts(guests: Guests, guest: Guest) -> Facts:
    """From the cache, or worked out."""
    known = guests.facts.get(guest.vmid)
    if not isinstance(known, Facts) or known.revision != guest.revision:
        known = work_out(guest)
        guests.facts[guest.vmid] = known
    return known


def work_out(guest: Guest) -> Facts:
    """Pure."""
    config = guest.config
    disks = {d.key: d.size or 0 for d in read_drives(config) if not d.cdrom}
    first = next((key for key in boot_order(config) if key in disks), next(iter(disks), ""))
    serial = any(text == "socket" for text in serials(config).values())
    return Facts(
        guest.revision, topology(config).vcpus, memory_mib(config) * _MIB, disks.get(first, 0),
        ";".join(tags(config)), agent(config).enabled, serial,
    )  # fmt: skip


def row(guests: Guests, guest: Guest, live: Live | None = None) -> dict[str, Any]:
    """What every list shows; a stopped guest uses nothing."""
    known = facts(guests, guest)
    now = live or guests.live.get(guest.vmid)
    running = now.status != "stopped"
    out: dict[str, Any] = {
        "vmid": guest.vmid, "name": guest.name, "status": "running" if running else "stopped", "cpus": known.cpus,
        "maxmem": known.maxmem, "maxdisk": known.maxdisk, "disk": 0, "cpu": now.cpu, "mem": now.mem,
        "uptime": now.uptime_s, "netin": now.netin, "netout": now.netout, "diskread": now.diskread,
        "diskwrite": now.diskwrite,
    }  # fmt: skip
    if running:
        out["pid"] = now.pid
        out["memhost"] = now.memhost
    if known.tags:
        out["tags"] = known.tags
    if guest.template:
        out["template"] = 1
    if known.serial:
        out["serial"] = 1
    lock = guests.lock_of(guest)
    if lock:
        out["lock"] = lock
    return out


def full_row(guests: Guests, guest: Guest, live: Live | None = None) -> dict[str, Any]:
    """With what the hypervisor says of itself."""
    now = live or guests.live.get(guest.vmid)
    out = row(guests, guest, now)
    out["qmpstatus"] = now.qmpstatus
    if now.status != "stopped":
        if now.balloon is not None:
            out["balloon"] = now.balloon
        if now.machine:
            out["running-machine"] = now.machine
        if now.qemu:
            out["running-qemu"] = now.qemu
    return out


async def current(guests: Guests, vmid: int) -> dict[str, Any]:
    """The answer of `status/current`, from a fresh sample. NotFound."""
    guest = guests.get(vmid)
    live = await guests.live.refresh(vmid)
    out = full_row(guests, guest, live)
    out["ha"] = {"managed": 0}
    if facts(guests, guest).agent:
        out["agent"] = 1
    return out
