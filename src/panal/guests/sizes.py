"""What a guest may use: processors, memory, boot disk; parsed once a change of its configuration, not once a list.

Read by lists (`/nodes/{node}/qemu`, `/cluster/resources`) and by the series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from panal.core.errors import BadInput
from panal.guests.config.drives import read_drives
from panal.guests.config.read import boot_order, memory_mib, topology
from panal.guests.model import Guest

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sizes:
    """Processors; bytes of memory and of the boot disk."""

    maxcpu: int
    maxmem: int
    maxdisk: int


_NONE: Final = Sizes(1, 0, 0)


class SizeTable:
    """vmid → Sizes, kept while the guest's record is the same object."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Guest, Sizes]] = {}

    def of(self, guest: Guest) -> Sizes:
        """Sizes of a guest."""
        known = self._known.get(guest.vmid)
        if known is not None and known[0] is guest:
            return known[1]
        found = read(guest)
        self._known[guest.vmid] = (guest, found)
        return found

    def forget(self, vmid: int) -> None:
        """The guest is gone."""
        self._known.pop(vmid, None)


def read(guest: Guest) -> Sizes:
    """Parse. A configuration that cannot be read must not take the whole list with it."""
    config = guest.config
    try:
        drives = {d.key: d for d in read_drives(config)}
        disk = next((drives[key].size for key in boot_order(config) if key in drives and not drives[key].cdrom), None)
        return Sizes(topology(config).vcpus, memory_mib(config) * _MIB, disk or 0)
    except (BadInput, ValueError):
        return _NONE
