"""Who uses a volume: what storage asks before it removes one."""

from __future__ import annotations

from panal.guests.config import read_drives
from panal.guests.context import Guests
from panal.guests.model import Guest


def named_by(guests: Guests, guest: Guest) -> set[str]:
    """Every volume that a guest's configuration, its pending changes or its snapshots name; CD images too."""
    pending = {k: v for k, v in guest.pending.items() if v is not None}
    snapshots = guests.snapshots(guest.vmid)
    configs = (guest.config, pending, *(s.config for s in snapshots))
    named = {d.volid for c in configs for d in read_drives(c, unused=True) if d.volid}
    return named | {s.vmstate for s in snapshots if s.vmstate}


def named_by_another(guests: Guests, volid: str, birth: str | None) -> bool:
    """Whether a record names the volume that is not the one (a guest's or a snapshot's) with this birth."""
    for guest in guests.list():
        snapshots = [s for s in guests.snapshots(guest.vmid) if s.birth != birth]
        pending = {k: v for k, v in guest.pending.items() if v is not None}
        own = () if guest.birth == birth else (guest.config, pending)
        configs = (*own, *(s.config for s in snapshots))
        if any(s.vmstate == volid for s in snapshots) or any(
            d.volid == volid for c in configs for d in read_drives(c, unused=True)
        ):
            return True
    return False


def user_of(guests: Guests, volid: str) -> str | None:
    """`VM 100`, or None when no guest names the volume."""
    for guest in guests.list():
        if volid in named_by(guests, guest):
            return f"VM {guest.vmid}"
    return None


def user_of_storage(guests: Guests, storage: str) -> str | None:
    """`VM 100`, or None when no guest names a volume of the storage."""
    for guest in guests.list():
        if any(volid.startswith(f"{storage}:") for volid in named_by(guests, guest)):
            return f"VM {guest.vmid}"
    return None
