"""Keys of names, notes, boot, start order and the like. Joined in `keys.py`; pure data."""

from __future__ import annotations

import re
from typing import Final

from panal.core import formats
from panal.core.props import PropertyError, Schema
from panal.guests.config.drives import split_volid
from panal.guests.config.key import DISK, OPTIONS, POWER, Key

AGENT_SCHEMA: Final = Schema.of(
    "enabled:boolean^* freeze-fs:boolean freeze-fs-on-backup:alias:freeze-fs fstrim_cloned_disks:boolean "
    "guest-fsfreeze:alias:freeze-fs type:string=virtio|isa"
)
BOOT_SCHEMA: Final = Schema.of("legacy:string^ order:string")
STARTUP_SCHEMA: Final = Schema.of("order:integer[0..]^ up:integer[0..] down:integer[0..]")
_BOOT_DEVICE: Final = r"(ide|sata|scsi|virtio|net|usb|hostpci)\d{1,2}"
LOCKS: Final = (
    "backup", "clone", "create", "migrate", "rollback", "snapshot", "snapshot-delete", "suspending", "suspended",
)  # fmt: skip


def _boot(text: str) -> None:
    values = BOOT_SCHEMA.parse(text)
    if "legacy" in values and not re.fullmatch(r"[acdn]{1,4}", str(values["legacy"])):
        raise PropertyError("value is neither order=DEVICE;DEVICE nor letters of acdn", "legacy")
    if "order" in values and not re.fullmatch(rf"({_BOOT_DEVICE}(;{_BOOT_DEVICE})*)?", str(values["order"])):
        raise PropertyError("value is not a list of devices: scsi0;net0", "order")


def _tags(text: str) -> None:
    for tag in formats.split_list(text):
        formats.check("pve-tag", tag)


def _tidy_tags(text: str) -> str:
    # compared without case, kept in the order given, each once
    seen = {tag.lower(): tag.lower() for tag in formats.split_list(text)}
    return ";".join(seen.values())


OPTION_KEYS: Final = (
    Key("name", "string", "Name of the guest.", (OPTIONS,), format="dns-name", max_length=253, live=True),
    Key("description", "string", "Notes, in Markdown.", (OPTIONS,), max_length=8192, lines=True, live=True),
    Key("tags", "string", "Tags, divided by semicolons.", (OPTIONS,), check=_tags, tidy=_tidy_tags, live=True),
    Key("onboot", "boolean", "Start the guest when the node has started.", (OPTIONS,), default=False, live=True),
    Key("startup", "string", "Order of start, and seconds to wait after start (up) and for shutdown (down).",
        (OPTIONS,),
        schema=STARTUP_SCHEMA, live=True),
    Key("protection", "boolean", "Refuse to remove the guest or its disks.", (OPTIONS,), default=False, live=True),
    Key("agent", "string", "Whether the guest runs the QEMU guest agent, and what it is used for.", (OPTIONS,),
        schema=AGENT_SCHEMA,
        note="so far only a clone of a running guest uses it: file systems are frozen for its instant"),
    Key("ostype", "string", "Operating system of the guest: sets fitting defaults.", (OPTIONS,), default="other",
        enum=("other", "wxp", "w2k", "w2k3", "w2k8", "wvista", "win7", "win8", "win10", "win11", "l24", "l26",
        "solaris")),
    Key("keyboard", "string", "Keyboard of the console; the guest's own setting decides when not set.", (OPTIONS,),
        enum=("de", "de-ch", "da", "en-gb", "en-us", "es", "fi", "fr", "fr-be", "fr-ca", "fr-ch", "hu", "is", "it",
        "ja",
              "lt", "mk", "nl", "no", "pl", "pt", "pt-br", "sv", "sl", "tr")),
    Key("localtime", "boolean", "Real-time clock in local time; the default depends on ostype.", (OPTIONS,)),
    Key("startdate", "string", "Start value of the real-time clock.", (OPTIONS,), default="now",
        pattern=r"(now|\d{4}-\d{1,2}-\d{1,2}(T\d{1,2}:\d{1,2}:\d{1,2})?)"),
    Key("tdf", "boolean", "Time drift fix.", (OPTIONS,), default=False),
    Key("reboot", "boolean", "Restart when the guest reboots; else it stops.", (OPTIONS,), default=True),
    Key("freeze", "boolean", "Do not run the processors after start.", (POWER,)),
    Key("template", "boolean", "Whether the guest is a template; make one with the template call.", (OPTIONS,),
        default=False,
        live=True),
    Key("migrate_downtime", "number", "Longest pause at the end of a migration, in seconds.", (OPTIONS,), minimum=0,
        default=0.1,
        status="stored", live=True),
    Key("migrate_speed", "integer", "Limit of a migration in MB/s; 0 for none.", (OPTIONS,), minimum=0, default=0,
        status="stored",
        live=True),
    Key("autostart", "boolean", "Obsolete, without effect.", (OPTIONS,), default=False, status="ignored"),
    Key("boot", "string", "Order of boot devices: order=scsi0;net0.", (DISK,), schema=BOOT_SCHEMA, check=_boot),
    Key("bootdisk", "string", "Obsolete: use boot with order=.", (DISK,), pattern=r"(ide|sata|scsi|virtio)\d+",
        note="used with the old letters in boot only"),
    Key("vmstatestorage", "string", "Storage for the RAM of snapshots and hibernation.", (DISK,),
        format="pve-storage-id", live=True),
    Key("hookscript", "string", "Script run around start and stop, as a volume of snippets.", (OPTIONS,), root=True,
        status="stored",
        check=split_volid, live=True),
    Key("args", "string", "More arguments for QEMU, for experts.", (OPTIONS,), root=True, max_length=8192),
    Key("lock", "string", "Lock of the guest.", (OPTIONS,), root=True, enum=LOCKS, live=True),
)  # fmt: skip
