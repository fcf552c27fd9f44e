"""What the fake hypervisor does to the images it has attached: over real storages as QEMU would, else byte by byte.

Given to `fake.FakeDriver` by `daemon/` and by tests.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import Final

from panal.core.errors import Failed
from panal.guests.drivers.base import CopyTarget
from panal.storage import qemu_img

_PIECE: Final = 1 << 20

DiskSnapshot = Callable[[int, str, str, bool], Awaitable[None]]
"""(descriptor, format, name, delete): how a snapshot is made in an attached image; None: only remembered."""
DiskCopy = Callable[[int, str, CopyTarget], Awaitable[None]]
"""(descriptor, format, target): how an attached image is copied; None: byte by byte."""


async def image_snapshot(fd: int, fmt: str, name: str, delete: bool) -> None:
    """What QEMU would do inside the attached image: for the fake driver over real storages."""
    flag = "-d" if delete else "-c"
    argv = ["snapshot", "-q", flag, name, "--image-opts", qemu_img.of_fd(fd, fmt).options]
    try:
        await qemu_img.qemu_img(argv, [fd])
    except Failed:
        if not delete:
            raise


async def image_copy(fd: int, fmt: str, target: CopyTarget) -> None:
    """What QEMU would do with the attached image: for the fake driver over real storages."""
    source, into = qemu_img.of_fd(fd, fmt), qemu_img.of_fd(target.fd, target.fmt)
    await qemu_img.convert(qemu_img.shared(source), into, None, None, target_is_zero=True)


async def copy_bytes(fd: int, fmt: str, target: CopyTarget) -> None:
    """What is in the file, holes left out."""
    end, at = os.fstat(fd).st_size, 0
    os.truncate(target.fd, end)
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return
            raise
        at += os.pwrite(target.fd, os.pread(fd, min(_PIECE, os.lseek(fd, at, os.SEEK_HOLE) - at), at), at)
