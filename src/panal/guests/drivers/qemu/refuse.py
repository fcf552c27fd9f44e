"""What this driver cannot do, said before anything starts. Pure; called first by `machine.build`.

Invariant: every refusal is a BadInput that names the key and says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from panal.core.errors import BadInput
from panal.guests.config import read, read_drives

_REFUSED: Final = {
    r"hostpci\d+": "passing a PCI device of the host through is not supported yet",
    r"usb\d+": "USB devices need SPICE or pass-through, and neither is supported yet",
    r"parallel\d+": "parallel ports of the host are not supported yet",
    r"virtiofs\d+": "virtio-fs is not supported yet",
    r"ivshmem": "shared memory between guests is not supported yet",
    r"amd-sev": "AMD SEV is not supported yet",
    r"intel-tdx": "Intel TDX is not supported yet",
}
_TEXTS: Final = frozenset({"description", "sshkeys"})
"""keys that may hold several lines and never reach QEMU"""
_VGA: Final = {
    "virtio-gl": "the host's graphics card cannot be used yet; take virtio",
    **{f"qxl{n}": "several screens need SPICE, which is not supported yet; take qxl" for n in (2, 3, 4)},
}


def refuse(config: Mapping[str, str]) -> None:
    """BadInput for the first thing that cannot be done."""
    for key, text in config.items():
        if key not in _TEXTS and any(ord(c) < 32 or ord(c) == 127 for c in text):
            raise BadInput(key, f"{key} must not contain control characters")
        for pattern, reason in _REFUSED.items():
            if re.fullmatch(pattern, key):
                raise BadInput(key, f"{key}: {reason}; remove it to start the guest")
    if config.get("arch", "x86_64") != "x86_64":
        raise BadInput("arch", "arch: guests of another architecture than x86_64 are not supported yet")
    for n, target in read.serials(config).items():
        if target != "socket":
            raise BadInput(f"serial{n}", f"serial{n}: a serial device of the host is not supported yet; use socket")
    screen = read.vga(config).kind
    if screen in _VGA:
        raise BadInput("vga", f"vga: {_VGA[screen]}")
    if screen.startswith("serial") and int(screen[-1]) not in read.serials(config):
        raise BadInput("vga", f"vga: the screen is {screen}, but there is no {screen}; add `{screen}: socket`")
    if read.machine(config).viommu:
        raise BadInput("machine", "machine: viommu is not supported yet; remove it")
    for drive in read_drives(config):
        for option in ("scsiblock", "snapshot"):
            if drive.options.get(option):
                raise BadInput(drive.key, f"{drive.key}: {option} is not supported; remove it from the drive")
