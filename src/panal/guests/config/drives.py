"""Drive keys and their typed form: `scsi0: local:100/vm-100-disk-0.qcow2,size=32G` ↔ `Drive`.

Called by the verbs (what to open, allocate, free), by `change.py` (what a drive string asks for) and by drivers. Pure.
Invariant: `parse_drive(key, format_drive(drive)) == drive`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final, Literal, cast

from panal.core.errors import BadInput
from panal.core.props import PropertyError, Schema, Value
from panal.guests.config.key import DISK, Key, sub_patterns

BUSES: Final = {"ide": 4, "sata": 6, "scsi": 31, "virtio": 16}
UNUSED_COUNT: Final = 256
_SIZE: Final = r"(\d+(\.\d+)?)([KMGT])?"
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_STORAGE: Final = r"[a-zA-Z][a-zA-Z0-9\-_.]*[a-zA-Z0-9]"
_VOLID: Final = re.compile(rf"(?P<storage>{_STORAGE}):(?P<name>[A-Za-z0-9_][^\s,:;=\x00-\x1f\x7f]*)")
_NEW: Final = re.compile(rf"(?P<storage>{_STORAGE}):(?P<size>\d+(\.\d+)?)")

_BASE: Final = (
    "file:string^* volume:alias:file aio:string=native|threads|io_uring backup:boolean "
    "bps:integer[0..] bps_max_length:integer[1..] bps_rd:integer[0..] bps_rd_max_length:integer[1..] "
    "bps_rd_length:alias:bps_rd_max_length bps_wr:integer[0..] bps_wr_max_length:integer[1..] "
    "bps_wr_length:alias:bps_wr_max_length cache:string=none|writethrough|writeback|unsafe|directsync "
    "detect_zeroes:boolean discard:string=ignore|on format:string=raw|qcow|qed|qcow2|vmdk|cloop import-from:string "
    "iops:integer[0..] iops_max:integer[0..] iops_max_length:integer[1..] iops_rd:integer[0..] iops_rd_max:integer[0..] "
    "iops_rd_max_length:integer[1..] iops_rd_length:alias:iops_rd_max_length iops_wr:integer[0..] iops_wr_max:integer[0..] "
    "iops_wr_max_length:integer[1..] iops_wr_length:alias:iops_wr_max_length mbps:number[0..] mbps_max:number[0..] "
    "mbps_rd:number[0..] mbps_rd_max:number[0..] mbps_wr:number[0..] mbps_wr_max:number[0..] media:string=cdrom|disk "
    "replicate:boolean rerror:string=ignore|report|stop serial:string shared:boolean size:string snapshot:boolean "
    "werror:string=enospc|ignore|report|stop "
)
_SCHEMAS: Final = {
    "ide": Schema.of(_BASE + "model:string ssd:boolean wwn:string"),
    "sata": Schema.of(_BASE + "ssd:boolean wwn:string"),
    "scsi": Schema.of(
        _BASE + "iothread:boolean product:string queues:integer[2..] ro:boolean scsiblock:boolean ssd:boolean "
        "vendor:string wwn:string"
    ),
    "virtio": Schema.of(_BASE + "iothread:boolean ro:boolean"),
    "efidisk": Schema.of(
        "file:string^* volume:alias:file efitype:string=2m|4m format:string=raw|qcow|qed|qcow2|vmdk|cloop "
        "import-from:string ms-cert:string=2011|2023|2023w|2023k pre-enrolled-keys:boolean size:string"
    ),
    "tpmstate": Schema.of(
        "file:string^* volume:alias:file format:string=raw|qcow2|vmdk import-from:string size:string "
        "version:string=v1.2|v2.0"
    ),
    "unused": Schema.of("file:string^* volume:alias:file"),
}
_NAME: Final = re.compile(r"(ide|sata|scsi|virtio|efidisk|tpmstate|unused)(0|[1-9]\d{0,2})")

Bus = Literal["ide", "sata", "scsi", "virtio", "efidisk", "tpmstate", "unused"]


@dataclass(frozen=True, slots=True)
class NewVolume:
    """What `STORAGE:SIZE` asks for: `size` in bytes."""

    storage: str
    size: int


@dataclass(frozen=True, slots=True)
class Drive:
    """One drive. `file` is what stands first in the string: a volume id, `none`, `cdrom`, or `STORAGE:SIZE_GiB`.

    `fmt` is None when the string does not say (the storage's driver knows); `size` in bytes or None; `options` are the
    other sub-keys with their types.
    """

    key: str
    bus: Bus
    index: int
    file: str
    media: Literal["disk", "cdrom"] = "disk"
    fmt: str | None = None
    size: int | None = None
    options: Mapping[str, Value] = field(default_factory=dict)

    @property
    def volid(self) -> str | None:
        """The existing volume; None for no medium, the host's own CD drive, and a volume still to be made."""
        return None if self.file in ("none", "cdrom") or self.new is not None else self.file

    @property
    def new(self) -> NewVolume | None:
        """The volume to be made, if the string asks for one."""
        m = _NEW.fullmatch(self.file)
        return None if m is None else NewVolume(m["storage"], round(Fraction(m["size"]) * (1 << 30)))

    @property
    def storage(self) -> str | None:
        """Storage of the volume, existing or new."""
        return None if self.file in ("none", "cdrom") else self.file.partition(":")[0]

    @property
    def cdrom(self) -> bool:
        """Whether it is a CD drive."""
        return self.media == "cdrom"

    @property
    def read_only(self) -> bool:
        """A CD, or a drive with `ro`."""
        return self.cdrom or bool(self.options.get("ro", False))

    def on(self, file: str, *, fmt: str | None = None, size: int | None = None) -> Drive:
        """The same drive with another volume."""
        return replace(self, file=file, fmt=fmt, size=size)


def is_drive(key: str) -> bool:
    """ide, sata, scsi, virtio, efidisk0, tpmstate0: keys that hold a volume in use; not `unused`."""
    return drive_bus(key) not in (None, "unused")


def drive_bus(key: str) -> Bus | None:
    """Bus of a drive's key (`unused` included), or None."""
    m = _NAME.fullmatch(key)
    if m is None:
        return None
    limit = BUSES.get(m[1], UNUSED_COUNT if m[1] == "unused" else 1)
    return cast("Bus", m[1]) if int(m[2]) < limit else None


def parse_drive(key: str, text: str) -> Drive:
    """Text → Drive. BadInput naming the key."""
    bus = drive_bus(key)
    if bus is None:
        raise BadInput(key, f"{key} is not the name of a drive")
    try:
        _CHECKS[bus](text)
        values = dict(_SCHEMAS[bus].parse(text))
        file = str(values.pop("file"))
        if "import-from" in values:
            raise PropertyError("importing a disk is not supported yet; upload the image and attach it", "import-from")
        _check_file(bus, file)
        media = "cdrom" if values.pop("media", "disk") == "cdrom" or file == "cdrom" else "disk"
        if file == "none" and media != "cdrom":
            raise PropertyError("none needs media=cdrom", "file")
        size = values.pop("size", None)
        fmt = values.pop("format", None)
        return Drive(
            key, bus, int(key.removeprefix(bus)), file, "cdrom" if media == "cdrom" else "disk",
            None if fmt is None else str(fmt), None if size is None else parse_size(str(size)), values,
        )  # fmt: skip
    except PropertyError as exc:
        raise BadInput(key, f"invalid format - {exc}") from None
    except ValueError as exc:
        raise BadInput(key, str(exc)) from None


def format_drive(drive: Drive) -> str:
    """Drive → text, as it is stored and shown: volume first, the rest by name."""
    values = dict(drive.options)
    values["file"] = drive.file
    if drive.cdrom:
        values["media"] = "cdrom"
    if drive.fmt is not None:
        values["format"] = drive.fmt
    if drive.size is not None:
        values["size"] = format_size(drive.size)
    return _SCHEMAS[drive.bus].format(values)


def read_drives(config: Mapping[str, str], *, unused: bool = False) -> list[Drive]:
    """All drives of a configuration, in the order of their names; with `unused`, the detached volumes too."""
    drives = [parse_drive(key, text) for key, text in config.items() if drive_bus(key) is not None]
    return sorted((d for d in drives if unused or d.bus != "unused"), key=lambda d: (d.bus, d.index))


def parse_size(text: str) -> int:
    """`32G`, `528K`, `512` → bytes. ValueError."""
    m = re.fullmatch(_SIZE, text)
    if m is None:
        raise ValueError(f"'{text}' is not a size; write a number with K, M, G or T")
    return round(Fraction(m[1]) * _UNITS[m[3] or ""])


def format_size(size: int) -> str:
    """Bytes → the largest unit without a fraction."""
    for unit in ("T", "G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def split_volid(volid: str) -> tuple[str, str]:
    """`local:100/vm-100-disk-0.qcow2` → storage and name. ValueError."""
    m = _VOLID.fullmatch(volid)
    if m is None or ".." in m["name"].split("/"):
        raise ValueError(f"'{volid}' is not a volume id (STORAGE:NAME)")
    return m["storage"], m["name"]


def volume_owner(volid: str) -> int | None:
    """The guest whose number stands in the volume's name; None for ISO images and other content."""
    name = volid.partition(":")[2]
    m = re.fullmatch(r"(?:.*/)?(?:vm|base|subvol)-(\d+)-[^/]+", name)
    return int(m[1]) if m else None


def _check_file(bus: str, file: str) -> None:
    if file in ("none", "cdrom"):
        if bus not in BUSES:
            raise PropertyError(f"{bus}0 needs a volume", "file")
        if file == "cdrom":
            raise PropertyError("the host's own CD drive cannot be passed through; take an ISO image", "file")
        return
    if file.endswith(":cloudinit"):
        raise PropertyError("cloud-init drives are not supported yet; leave this drive out", "file")
    if file.startswith("/"):
        raise PropertyError("paths of the host are not taken; give a volume of a storage (STORAGE:NAME)", "file")
    if not _NEW.fullmatch(file):
        try:
            split_volid(file)
        except ValueError as exc:
            raise PropertyError(str(exc), "file") from None
    elif bus == "unused":
        raise PropertyError("needs an existing volume", "file")


_ESCAPED: Final = r"[A-Za-z0-9_.:+%][A-Za-z0-9_.:+%-]"
_CHECKS: Final = {
    bus: sub_patterns(
        schema, size=_SIZE, serial=_ESCAPED + "{0,59}", model=_ESCAPED + "{0,119}",
        wwn=r"0x[0-9a-fA-F]{16}", vendor=r"[A-Za-z0-9_][A-Za-z0-9_ -]{0,7}", product=r"[A-Za-z0-9_][A-Za-z0-9_ -]{0,15}",
    )
    for bus, schema in _SCHEMAS.items()
}  # fmt: skip


DRIVE_KEYS: Final = (
    *(
        Key(bus, "string", f"Drive on the {label} bus: a volume, STORAGE:SIZE in GiB for a new one, or none,media=cdrom.",
            (DISK,), count=BUSES[bus], schema=_SCHEMAS[bus],
            tidy=lambda text, key=f"{bus}0": format_drive(parse_drive(key, text)),  # type: ignore[misc]
            note="CD drives need VM.Config.CDROM instead")
        for bus, label in (("ide", "IDE"), ("sata", "SATA"), ("scsi", "SCSI"), ("virtio", "virtio block"))
    ),
    Key("efidisk0", "string", "Volume that holds the UEFI variables; a new one gets its fixed size.", (DISK,),
        schema=_SCHEMAS["efidisk"], tidy=lambda text: format_drive(parse_drive("efidisk0", text))),
    Key("tpmstate0", "string", "Volume that holds the state of the TPM; a new one gets its fixed size.", (DISK,),
        schema=_SCHEMAS["tpmstate"], tidy=lambda text: format_drive(parse_drive("tpmstate0", text))),
    Key("unused", "string", "A volume of this guest that is not attached. Deleting the key removes the volume.", (DISK,),
        count=UNUSED_COUNT, schema=_SCHEMAS["unused"],
        tidy=lambda text: format_drive(parse_drive("unused0", text)), live=True),
    Key("cdrom", "string", "Another name of ide2 with media=cdrom.", (DISK,), schema=_SCHEMAS["ide"],
        note="stored as ide2"),
    Key("scsihw", "string", "Model of the SCSI controller.", ("VM.Config.HWType",), default="lsi",
        enum=("lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi")),
)  # fmt: skip
