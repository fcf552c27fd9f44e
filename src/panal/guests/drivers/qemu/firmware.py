"""SeaBIOS or OVMF, and where OVMF keeps its variables. Called by `machine.build`.

OVMF's variables live in efidisk0; an empty one (just allocated) is filled from the package's template before QEMU opens it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from panal.core.errors import BadInput
from panal.guests.config import parse_drive, read
from panal.guests.drivers.base import Disk
from panal.guests.drivers.qemu.argv import Argv
from panal.host.run import run

OVMF: Final = Path("/usr/share/OVMF")


@dataclass(frozen=True, slots=True)
class Files:
    """Code and template of the variables."""

    code: Path
    variables: Path


def files(*, large: bool, keys: bool, q35: bool) -> Files:
    """The package's files. With `keys` Microsoft's are enrolled and Secure Boot is on (needs q35)."""
    size = "_4M" if large or not (OVMF / "OVMF_CODE.fd").exists() else ""
    secure = keys and q35
    code = f"OVMF_CODE{size}{'.secboot' if secure else ''}.fd"
    return Files(OVMF / code, OVMF / f"OVMF_VARS{size}{'.ms' if secure else ''}.fd")


async def firmware(argv: Argv, config: Mapping[str, str], disks: Sequence[Disk]) -> dict[str, object]:
    """Add the firmware's block nodes; returns machine properties. BadInput naming `bios` when the package is missing."""
    if config.get("bios", "seabios") != "ovmf":
        spare = next((d for d in disks if d.key == "efidisk0"), None)
        if spare is not None and spare.fd is not None:  # not on the machine, but in its snapshots
            _variables(argv, spare.fd, spare.fmt, name="drive-efidisk0", locking=True)
        return {}
    drive = parse_drive("efidisk0", config["efidisk0"]) if "efidisk0" in config else None
    large = drive is None or drive.options.get("efitype", "2m") == "4m"
    keys = bool(drive and drive.options.get("pre-enrolled-keys"))
    chosen = files(large=large, keys=keys, q35=read.is_q35(config))
    if not chosen.code.exists() or not chosen.variables.exists():
        raise BadInput("bios", f"bios: {chosen.code} is missing; install the package `ovmf`, or take seabios")
    code = argv.fdset(os.open(chosen.code, os.O_RDONLY | os.O_CLOEXEC), write=False)
    argv.blockdev({
        "driver": "raw", "node-name": "pflash0", "read-only": True,
        "file": {"driver": "file", "filename": code, "read-only": True},
    })  # fmt: skip
    size = chosen.variables.stat().st_size
    disk = next((d for d in disks if d.key == "efidisk0"), None)
    if disk is None or disk.fd is None:
        argv.notes.append("bios: there is no efidisk0, so what the firmware remembers is lost when the guest stops")
        fd, fmt = os.memfd_create("efivars", os.MFD_CLOEXEC), "raw"
        os.write(fd, chosen.variables.read_bytes())
    else:
        fd, fmt = disk.fd, disk.fmt
        await _fill(fd, fmt, chosen.variables)
    _variables(argv, fd, fmt, name="format-efidisk0", locking=disk is not None)
    # The volume may be larger than the flash chip must be. The topmost node has the drive's name: snapshots want a root.
    argv.blockdev({"driver": "raw", "node-name": "drive-efidisk0", "file": "format-efidisk0", "size": size})
    machine: dict[str, object] = {"pflash0": "pflash0", "pflash1": "drive-efidisk0"}
    if chosen.code.name.endswith(".secboot.fd"):
        machine["smm"] = True
    return machine


def _variables(argv: Argv, fd: int, fmt: str, *, name: str, locking: bool) -> None:
    protocol: dict[str, object] = {
        "driver": "file",
        "node-name": "file-efidisk0",
        "filename": argv.fdset(fd, write=True),
    }
    argv.blockdev(protocol | ({"locking": "on"} if locking else {}))
    node: dict[str, object] = {"driver": fmt, "node-name": name, "file": "file-efidisk0"}
    argv.blockdev(node | ({"backing": None} if fmt == "qcow2" else {}))


async def _fill(fd: int, fmt: str, template: Path) -> None:
    """Write the template into a volume that holds nothing yet; one that holds anything is never touched."""
    path = f"/dev/fd/{fd}"
    shown = await run(["qemu-img", "map", "--output=json", "-f", fmt, path], timeout_s=10, pass_fds=(fd,))
    blank = not any(extent["data"] and not extent["zero"] for extent in json.loads(shown.stdout))
    if not blank and fmt == "raw":  # a file system may have written zeros out
        blank = not any(os.pread(fd, 1 << 20, 0))
    if blank:
        await run(
            ["qemu-img", "convert", "-n", "-f", "raw", "-O", fmt, str(template), path], timeout_s=30, pass_fds=(fd,)
        )
