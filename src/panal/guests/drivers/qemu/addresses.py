"""Where each device sits on the PCI buses: a fixed place a key, so that nothing moves when a device is added or removed.

Called by `devices.py` while a machine is built. What was pinned at an earlier start (`Running.hardware`, keys `pci.<device>`)
always wins over the table, so that the table may change without changing machines that exist. Both machine families share one
conventional bus `pci.0`; bridges `pci.1` to `pci.3` hang on it and appear in that order, because a bus number that
appears in the middle would move all later ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from panal.core.errors import Failed

BRIDGES: Final = {1: 0x1A, 2: 0x1B, 3: 0x1C}
_PREFIX: Final = "pci."


def _table() -> Iterator[tuple[str, int, int]]:
    fixed = {
        "vga": 0x02, "balloon0": 0x03, "watchdog0": 0x04, "scsihw0": 0x05, "scsihw1": 0x06, "ahci0": 0x07,
        "vserial0": 0x08, "audio0": 0x09, "rng0": 0x18, "ahci1": 0x19, "scsihw2": 0x10, "scsihw3": 0x11, "scsihw4": 0x1D,
    }  # fmt: skip
    for key, slot in fixed.items():
        yield key, 0, slot
    for n in range(16):
        yield f"virtio{n}", *((0, 0x0A + n) if n < 6 else (2, 1 + n - 6))
    for n in range(31):
        yield f"virtioscsi{n}", 1, 1 + n
    for n in range(32):
        yield f"net{n}", *((0, 0x12 + n) if n < 6 else (2, 0x0B + n - 6) if n < 20 else (3, 1 + n - 20))


TABLE: Final = {key: (bus, slot) for key, bus, slot in _table()}


class Addresses:
    """Gives out addresses for one start and remembers them."""

    def __init__(self, pinned: Mapping[str, str]) -> None:
        self._pins: dict[str, tuple[int, int]] = {}
        for key, text in pinned.items():
            if key.startswith(_PREFIX):
                bus, _, slot = text.partition("/")
                self._pins[key.removeprefix(_PREFIX)] = (int(bus), int(slot, 16))
        self._buses: set[int] = {0}

    def place(self, key: str) -> dict[str, object]:
        """Bus and slot of a device, as properties for `-device`."""
        if key not in self._pins:
            self._pins[key] = self._free(key)
        bus, slot = self._pins[key]
        self._buses.add(bus)
        return {"bus": f"pci.{bus}", "addr": f"0x{slot:x}"}

    @property
    def bridges(self) -> list[dict[str, object]]:
        """The bridges that the placed devices need, and all before them, as `-device` properties."""
        return [
            {"driver": "pci-bridge", "id": f"pci.{n}", "chassis_nr": n, "bus": "pci.0", "addr": f"0x{slot:x}"}
            for n, slot in BRIDGES.items()
            if n <= max(self._buses)
        ]

    @property
    def pins(self) -> dict[str, str]:
        """What to pin: devices that are gone keep their place."""
        return {f"{_PREFIX}{key}": f"{bus}/0x{slot:02x}" for key, (bus, slot) in sorted(self._pins.items())}

    def _free(self, key: str) -> tuple[int, int]:
        wanted = TABLE[key]
        taken = set(self._pins.values())
        if wanted not in taken:
            return wanted
        for bus in (0, *BRIDGES):  # only when an older table gave this place to another device
            for slot in range(1, 32):
                if (bus, slot) not in taken and (bus, slot) not in TABLE.values() and (bus or slot not in _RESERVED):
                    return bus, slot
        raise Failed(f"no free PCI slot for {key}; remove a device")


_RESERVED: Final = frozenset({0, 1, 0x1E, 0x1F, *BRIDGES.values()})
