"""A TPM for the guest: swtpm, a process beside QEMU that keeps its state in the volume of tpmstate0.

Called by `machine.build` (refusals, arguments) and `launch.py` (the process). The two talk over a socket pair, so there is no
path; swtpm has the guest's uid and ends by itself when QEMU's end closes. Its state is opened through our descriptor, for
which the volume's file gets the guest's uid as its owner.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from panal.core.errors import BadInput
from panal.guests.config import parse_drive
from panal.guests.drivers.base import Disk
from panal.guests.drivers.qemu.argv import Argv, Companion, is_block_device
from panal.host import process

SWTPM: Final = Path("/usr/bin/swtpm")


def prepare(argv: Argv, config: Mapping[str, str], disks: Sequence[Disk]) -> None:
    """Arguments for QEMU, and what `start` needs. BadInput on tpmstate0."""
    if "tpmstate0" not in config:
        return
    disk = next((d for d in disks if d.key == "tpmstate0" and d.fd is not None), None)
    if disk is None or disk.fd is None:
        raise BadInput("tpmstate0", "tpmstate0: the volume of the TPM's state was not opened")
    if disk.fmt != "raw" or is_block_device(disk.fd):
        raise BadInput("tpmstate0", "tpmstate0: the TPM's state must be a raw image file; remove it and add it as raw")
    if not SWTPM.exists():
        raise BadInput("tpmstate0", f"tpmstate0: {SWTPM} is missing; install the package `swtpm`, or remove tpmstate0")
    version = parse_drive("tpmstate0", config["tpmstate0"]).options.get("version", "v2.0")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    fd = argv.inherit(ours.detach())
    link = theirs.detach()
    argv.taken.add(disk.fd)
    argv.companions.append(
        Companion(
            (
                str(SWTPM), "socket", "--terminate", "--ctrl", f"type=unixio,clientfd={link}", "--tpmstate",
                f"backend-uri=file:///proc/self/fd/{disk.fd}", *(["--tpm2"] if version == "v2.0" else []),
            ),
            (link, disk.fd), disk.fd,
        )
    )  # fmt: skip
    argv.add("-chardev", f"socket,id=tpm,fd={fd}", "-tpmdev", "emulator,id=tpmdev,chardev=tpm")
    argv.device({"driver": "tpm-tis", "id": "tpm0", "tpmdev": "tpmdev"})


def start(helper: Companion, uid: int | None, log_fd: int) -> process.Process:
    """Run it as the guest's user. Its descriptors stay the caller's to close."""
    if uid is not None:
        os.fchown(helper.state_fd, uid, uid)
    return process.spawn(helper.argv, fds=helper.fds, output_fd=log_fd, uid=uid)
