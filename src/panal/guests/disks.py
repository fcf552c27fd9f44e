"""Which volumes a set of drive strings asks for, by name and size; nothing is made here.

Called by the plans of configure and create. Looks at storages (sizes, free names), changes nothing. What comes out holds no
`STORAGE:SIZE` any more: every drive names its volume and shows its true size.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from panal.core.errors import BadInput, NotFound, PanalError
from panal.guests.config.drives import Drive, drive_bus, format_drive, parse_drive
from panal.guests.context import Guests
from panal.guests.making import choose_format, image_driver
from panal.guests.volumes import Namer, Planned, split

KIB: Final = 1024
# UEFI variables: 528 KiB holds those of every firmware build; a TPM's state is 4 MiB by definition
FIXED_SIZES: Final = {"efidisk": 528 * KIB, "tpmstate": 4096 * KIB}


async def plan_disks(
    guests: Guests, vmid: int, texts: Mapping[str, str], known: Collection[str] = ()
) -> tuple[dict[str, str], list[Planned]]:
    """The texts with volumes named (other keys untouched), and the volumes to make. BadInput naming the drive.

    `known`: volumes that the guest's record names already; they are not looked up again when their size is given.
    """
    out = dict(texts)
    made: list[Planned] = []
    namer = Namer(guests, vmid)
    for key, text in texts.items():
        if drive_bus(key) is None:
            continue
        drive = parse_drive(key, text)
        if drive.new is not None:
            planned = await _new(guests, vmid, drive, namer)
            made.append(planned)
            out[key] = format_drive(drive.on(planned.volid, size=planned.size))
        elif drive.volid is not None and not (
            drive.volid in known and (drive.size is not None or drive.bus == "unused")
        ):
            out[key] = await _existing(guests, vmid, drive)
    return out, made


async def _new(guests: Guests, vmid: int, drive: Drive, namer: Namer) -> Planned:
    assert drive.new is not None  # noqa: S101
    if drive.cdrom:
        raise BadInput(drive.key, "a CD drive takes an existing image or none; leave media=cdrom out for a disk")
    driver = image_driver(guests, drive.new.storage, drive.key)
    raw = "raw" if drive.bus == "tpmstate" else None
    fmt = choose_format(driver, drive.fmt, raw, drive.key)
    # QEMU refuses a raw image whose size its blocks of 4 KiB do not divide
    size = FIXED_SIZES.get(drive.bus) or -(-drive.new.size // (4 * KIB)) * 4 * KIB
    if size <= 0:
        raise BadInput(drive.key, f"give the size of the new volume in GiB, like {drive.new.storage}:32")
    try:
        name = await namer.disk(driver.id, fmt)
    except PanalError as exc:
        raise BadInput(drive.key, f"storage '{driver.id}' cannot be used: {exc}") from exc
    return Planned(drive.key, driver.id, name, fmt, size)


async def _existing(guests: Guests, vmid: int, drive: Drive) -> str:
    storage, name = split(drive.volid or "")
    try:
        driver = await guests.storages.usable(storage)
        volume = await driver.info(name)
    except (NotFound, BadInput) as exc:
        raise BadInput(drive.key, f"volume '{drive.volid}' does not exist: {exc}") from exc
    if volume.content == "iso" and not drive.cdrom:
        raise BadInput(drive.key, f"'{drive.volid}' is a CD image; add media=cdrom")
    if volume.content not in ("images", "iso"):
        raise BadInput(drive.key, f"'{drive.volid}' is no disk image but {volume.content}")
    if drive.bus == "unused":
        return format_drive(drive)
    return format_drive(drive.on(drive.file, size=volume.size))
