"""The drives of a configuration, as the verbs need them: which volumes, at which keys.

Pure. Formats and allocation are storage's; what a key means to QEMU is guests/config's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

DRIVE_KEY: Final = re.compile(r"(?:ide[0-3]|sata[0-5]|scsi(?:[12]?\d|30)|virtio(?:\d|1[0-5])|efidisk0|tpmstate0)")
UNUSED_KEY: Final = re.compile(r"unused(?:\d{1,2}|1\d\d|2[0-4]\d|25[0-5])")


@dataclass(frozen=True, slots=True)
class Drive:
    """One drive. `volid` is `STORAGE:VOLUME`, or None for an empty CD drive. `options` are the other sub-keys, as text."""

    key: str
    volid: str | None
    cdrom: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def storage(self) -> str:
        """Storage of the volume."""
        return (self.volid or "").partition(":")[0]

    @property
    def volume(self) -> str:
        """Name of the volume on its storage."""
        return (self.volid or "").partition(":")[2]

    def text(self, volid: str | None = None) -> str:
        """The property string, with another volume if given."""
        first = volid or self.volid or "none"
        return ",".join([first, *(f"{k}={v}" for k, v in self.options.items())])


def parse(key: str, text: str) -> Drive:
    """One value; it was validated when it was stored."""
    first, *rest = text.split(",")
    options = dict(part.partition("=")[::2] for part in rest if "=" in part)
    if first.startswith(("file=", "volume=")):
        first = first.partition("=")[2]
    elif "=" in first:
        options = {first.partition("=")[0]: first.partition("=")[2], **options}
        first = options.pop("file", options.pop("volume", "none"))
    cdrom = options.get("media") == "cdrom" or first in ("cdrom", "none")
    volid = first if ":" in first else None
    return Drive(key, volid, cdrom, options)


def drives(config: Mapping[str, str]) -> Iterator[Drive]:
    """All drives that a guest starts with, in order of their keys."""
    for key in sorted(config):
        if DRIVE_KEY.fullmatch(key):
            yield parse(key, config[key])


def owned(config: Mapping[str, str], vmid: int) -> list[Drive]:
    """Drives (`unused` ones too) whose volumes belong to this guest: what delete removes and clone copies."""
    found = [d for d in drives(config) if d.volid and not d.cdrom and owner(d.volume) == vmid]
    for key in sorted(config):
        if UNUSED_KEY.fullmatch(key):
            drive = parse(key, config[key])
            if drive.volid and owner(drive.volume) == vmid:
                found.append(drive)
    return found


def owner(volume: str) -> int | None:
    """Whose volume it is by its name (`100/vm-100-disk-0.qcow2`, `base-100-disk-0`, `…/100/vm-100-…`)."""
    m = re.fullmatch(r"(?:.*/)?(?:vm|base)-(\d{3,9})-[^/]+", volume)
    return int(m[1]) if m else None
