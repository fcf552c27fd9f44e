"""SeaBIOS or OVMF, and where OVMF keeps its variables. Called by `machine.build`.

OVMF's variables live in efidisk0; an empty one (just allocated) is filled from the package's template before QEMU opens it.
"""

from __future__ import annotations

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
    nodes: dict[str, object] = {"driver": "file", "filename": argv.fdset(fd, write=True), "node-name": "file-efidisk0"}
    if disk is not None:
        nodes["locking"] = "on"
    argv.blockdev(nodes)
    inner = {"driver": fmt, "node-name": "drive-efidisk0", "file": "file-efidisk0"}
    argv.blockdev(inner if fmt == "raw" else {**inner, "backing": None})
    # the volume may be larger than the flash chip must be
    argv.blockdev({"driver": "raw", "node-name": "pflash1", "file": "drive-efidisk0", "size": size})
    machine: dict[str, object] = {"pflash0": "pflash0", "pflash1": "pflash1"}
    if chosen.code.name.endswith(".secboot.fd"):
        machine["smm"] = True
    return machine


async def _fill(fd: int, fmt: str, template: Path) -> None:
    """Write the template into a volume that holds nothing but zeros yet."""
    path = f"/dev/fd/{fd}"
    head = await run(
        ["qemu-img", "dd", "-f", fmt, "-O", "raw", f"if={path}", "of=/dev/stdout", "bs=4096", "count=1"],
        timeout_s=10, pass_fds=(fd,), check=False,
    ) if fmt != "raw" else None  # fmt: skip
    first = os.pread(fd, 4096, 0) if head is None else head.stdout
    if any(first):
        return
    await run(
        ["qemu-img", "convert", "-n", "--target-is-zero", "-f", "raw", "-O", fmt, str(template), path],
        timeout_s=30, pass_fds=(fd,),
    )  # fmt: skip
