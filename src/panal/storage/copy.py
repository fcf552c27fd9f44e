"""Full copies between any two storages whose volumes QEMU can open. Used by drivers as their `copy`.

Invariant: a copy that fails or is cancelled leaves no target; a target that existed before is never touched.
"""

from __future__ import annotations

import asyncio
import os

from panal.core.errors import BadInput, NotFound, Unsupported
from panal.storage import images, qemu_img
from panal.storage.drivers.base import Progress, StorageDriver


async def full_copy(
    source: StorageDriver, name: str, target: StorageDriver, target_name: str, fmt: str,
    snapshot: str | None = None, progress: Progress | None = None, *, shared: bool = False, limit_bytes_s: int = 0,
) -> None:  # fmt: skip
    """Copy a volume (or its snapshot) to a new volume; see `StorageDriver.copy`."""
    vmid = target.parse(target_name).vmid
    if vmid is None:
        raise BadInput("target", f"{target_name} is no name of a guest's image")
    async with qemu_img.opened(source, name, write=False) as locking:
        opened = qemu_img.shared(locking) if shared else locking
        present, wanted = await _sizes(source, name, opened, snapshot)
        await target.allocate(vmid, target_name, fmt, present)
        try:
            async with qemu_img.opened(target, target_name, write=True) as into:
                await qemu_img.convert(
                    opened, into, snapshot, progress, target_is_zero=bool(into.fds), limit_bytes_s=limit_bytes_s
                )
                if wanted < present and into.fds:  # qemu-img copies a snapshot in the size the image has now
                    await qemu_img.qemu_img(
                        ["resize", "-q", "--shrink", "--image-opts", into.options, str(wanted)], into.fds
                    )
        except BaseException:
            await asyncio.shield(target.free(target_name))
            raise


async def export_raw(source: StorageDriver, name: str, fd: int, snapshot: str | None = None) -> None:
    """Write an image (or its snapshot) raw into an open regular file; see `StorageDriver.export`."""
    async with qemu_img.opened(source, name, write=False) as opened:
        present, wanted = await _sizes(source, name, opened, snapshot)
        await asyncio.to_thread(os.ftruncate, fd, 0)
        await asyncio.to_thread(os.ftruncate, fd, present)
        await qemu_img.convert(opened, qemu_img.of_fd(fd, "raw"), snapshot, None, target_is_zero=True)
        await asyncio.to_thread(os.ftruncate, fd, wanted)


async def _sizes(source: StorageDriver, name: str, opened: qemu_img.Opened, snapshot: str | None) -> tuple[int, int]:
    """Virtual size of the image now, and of what is copied; refuses images that name other files."""
    if not opened.fds:
        size = (await source.info(name)).size
        return size, size
    header = await images.require_plain(opened.fds[0], source.source(name).format, name)
    present = header.size or os.fstat(opened.fds[0]).st_size
    if snapshot is None:
        return present, present
    if snapshot not in dict(header.snapshots):
        raise NotFound(f"{name} has no snapshot '{snapshot}'")
    wanted = dict(header.snapshots)[snapshot]
    if wanted > present:  # qemu-img would cut it off at the present size without a word
        raise Unsupported(f"snapshot '{snapshot}' of {name} is bigger than the disk is now; grow the disk first")
    return present, wanted
