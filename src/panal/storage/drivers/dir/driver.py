"""The directory driver: images raw and qcow2, and files, below a path of this machine (or one somebody mounted there).

Also the base of every back end that is a mounted file system (NFS, CIFS, CephFS, Gluster): those mount in `activate`.
Invariants: those of `drivers/base.py`; images are opened through `host/files.py` only.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from panal.core.errors import BadInput, Conflict, Failed, NotFound, Unavailable, Unsupported
from panal.core.formats import check
from panal.host.files import Root, set_immutable
from panal.host.threads import whole
from panal.storage import copy, images, qemu_img
from panal.storage.drivers.base import Capabilities, Progress, StorageDriver, Usage, Volume, VolumeSource
from panal.storage.drivers.dir import layout
from panal.storage.drivers.dir.content import FILES, Files
from panal.storage.drivers.dir.listing import Images
from panal.storage.model import StorageConfig, VolumeName

MAX_SIZE: Final = 1 << 50
_BLOCK: Final = 512


class DirDriver:
    """One directory storage."""

    def __init__(self, config: StorageConfig) -> None:
        options = config.options
        self.id = config.id
        self._config = config
        self._root = Root(Path(str(options["path"])), self._require_mount)
        self._dirs = layout.directories(options)
        self._files = Files(self._root, self._dirs)
        self._preallocation = str(options.get("preallocation", "metadata"))
        self._swept = False
        self._listing = Images(self._root, self._dirs["images"])
        default = str(options.get("format", "raw"))
        self.capabilities = Capabilities(
            contents=config.contents,
            formats=layout.IMAGE_FORMATS,
            default_format=default,
            snapshot_formats=frozenset({"qcow2"}),
            lock="lock",
            shared=config.shared,
            upload=True,
        )

    # -- the storage itself ------------------------------------------------------------------------------------------

    async def activate(self) -> None:
        """Check the mount point, create directories. Unavailable when the path is not there."""
        await asyncio.to_thread(self._activate)

    def _activate(self) -> None:
        options = self._config.options
        self._require_mount()
        if not self._root.path.is_dir():
            if not (options.get("mkdir", True) and options.get("create-base-path", True)):
                raise Unavailable(f"storage '{self.id}' is not online: {self._root.path} is not a directory")
            try:
                self._root.path.mkdir(mode=0o755, parents=True, exist_ok=True)
            except OSError as exc:
                raise Unavailable(f"storage '{self.id}': cannot create {self._root.path}: {exc.strerror}") from exc
        if options.get("create-subdirs", True) and options.get("mkdir", True):
            for content in sorted(self.capabilities.contents):
                self._root.make_dirs(self._dirs[content])
        if not self._swept:
            self._files.sweep(shared=self._config.shared)
            self._swept = True

    def _require_mount(self) -> None:
        """Before every access: writing below a mount point without its mount fills the disk underneath."""
        mount = self._mount_point()
        if mount is not None and not mount.is_mount_point():
            raise Unavailable(f"storage '{self.id}' is not online: {mount.path} is not a mount point; mount it first")

    def _mount_point(self) -> Root | None:
        wanted = str(self._config.options.get("is_mountpoint", "no"))
        if wanted.lower() in ("no", "0", "off", "false"):
            return None
        return self._root if wanted.lower() in ("yes", "1", "on", "true") else Root(Path(wanted))

    async def deactivate(self) -> None:
        """Nothing to let go of."""

    async def usage(self) -> Usage:
        """Figures of the file system; not active when the path or its mount is missing."""
        return await asyncio.to_thread(self._usage)

    def _usage(self) -> Usage:
        try:
            figures = self._root.space()
        except (NotFound, Failed, Unavailable):
            return Usage(0, 0, 0, active=False)
        total = figures.f_blocks * figures.f_frsize
        available = figures.f_bavail * figures.f_frsize
        return Usage(total, total - figures.f_bfree * figures.f_frsize, available)

    # -- names -------------------------------------------------------------------------------------------------------

    def parse(self, name: str) -> VolumeName:
        """A name taken apart. BadInput."""
        try:
            return layout.parse_name(name)
        except ValueError:
            raise BadInput("volume", f"unable to parse directory volume name '{name[:200]}'") from None

    def image_name(self, vmid: int, stem: str, fmt: str) -> str:
        """`VMID/STEM.FMT`."""
        return layout.image_name(vmid, stem, fmt)

    def _path(self, parsed: VolumeName) -> str:
        if parsed.content == "images":
            return f"{self._dirs['images']}/{parsed.name}"
        return self._files.path(parsed)

    def _image(self, name: str) -> VolumeName:
        parsed = self.parse(name)
        if parsed.content != "images":
            raise BadInput("volume", f"{name} is not a disk image")
        return parsed

    def location(self, name: str) -> str:
        """Absolute path, for show."""
        return str(self._root.path / self._path(self.parse(name)))

    def source(self, name: str) -> VolumeSource:
        """A file; ISO images and the like are raw."""
        parsed = self.parse(name)
        fmt = parsed.format if parsed.format in layout.IMAGE_FORMATS else "raw"
        return VolumeSource(fmt, self.location(name))

    def open(self, name: str, *, write: bool) -> int:
        """A descriptor. Conflict for writing into a template's image."""
        parsed = self.parse(name)
        if write and parsed.base:
            raise Conflict(f"{name} is a template's image and stays as it is; clone the template")
        return self._root.open(self._path(parsed), write=write)

    # -- lists -------------------------------------------------------------------------------------------------------

    async def list(self, content: str | None = None, vmid: int | None = None) -> Sequence[Volume]:
        """What the configured kinds of content hold."""
        found: list[Volume] = []
        if content in (None, "images") and "images" in self.capabilities.contents:
            found += await self._listing.all(vmid)
        for kind in FILES:
            if content in (None, kind) and kind in self.capabilities.contents:
                files = await asyncio.to_thread(self._files.list, kind)
                found += [v for v in files if vmid is None or v.vmid == vmid]
        return sorted(found, key=lambda v: v.name)

    async def info(self, name: str) -> Volume:
        """One volume. NotFound."""
        parsed = self.parse(name)
        if parsed.content != "images":
            return await asyncio.to_thread(self._files.info, parsed)
        return await self._listing.one(parsed)

    # -- images ------------------------------------------------------------------------------------------------------

    async def allocate(self, vmid: int, name: str, fmt: str, size: int) -> None:
        """A new image. Conflict, BadInput, Failed (full)."""
        parsed = self._image(name)
        if parsed.vmid != vmid or parsed.format != fmt:
            raise BadInput("volume", f"'{name}' is no name for a {fmt} image of guest {vmid}")
        if "images" not in self.capabilities.contents:
            raise BadInput("storage", f"storage '{self.id}' does not take disk images; allow content 'images' there")
        if not 0 < size <= MAX_SIZE:
            raise BadInput("size", f"the size must be between 1 byte and {MAX_SIZE >> 40} TiB")
        size = -(-size // _BLOCK) * _BLOCK
        await asyncio.to_thread(self._root.make_dirs, f"{self._dirs['images']}/{vmid}")

        def forget(fd: int) -> None:
            os.close(fd)
            self._remove_image(parsed)

        fd = await whole(lambda: self._root.create(self._path(parsed)), forget)
        try:
            await self._fill(fd, fmt, size)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._remove_image, parsed))
            raise
        finally:
            os.close(fd)

    async def _fill(self, fd: int, fmt: str, size: int) -> None:
        sparse = self._preallocation in ("off", "metadata")
        if fmt == "raw" and sparse:
            try:
                await asyncio.to_thread(os.ftruncate, fd, size)
            except OSError as exc:
                raise Failed(f"an image of {size} bytes cannot be made here: {exc.strerror}") from exc
            return
        options = f"preallocation={self._preallocation}" + (",compat=1.1" if fmt == "qcow2" else "")
        await qemu_img.qemu_img(
            ["create", "-q", "-f", fmt, "-o", options, f"/proc/self/fd/{fd}", str(size)], [fd],
            timeout_s=qemu_img.QUICK_S if sparse else qemu_img.COPY_S,
        )  # fmt: skip

    def _remove_image(self, parsed: VolumeName) -> None:
        path = self._path(parsed)
        if parsed.base:
            try:
                fd = self._root.open(path)
            except NotFound:
                return
            set_immutable(fd, False)
            os.close(fd)
        self._root.remove(path)
        self._root.remove_empty_dir(f"{self._dirs['images']}/{parsed.vmid}")

    async def free(self, name: str) -> None:
        """Remove an image or a file."""
        parsed = self.parse(name)
        await asyncio.to_thread(self._remove_image if parsed.content == "images" else self._files.remove, parsed)

    async def resize(self, name: str, size: int) -> None:
        """Grow."""
        parsed = self._image(name)
        fd = await asyncio.to_thread(self.open, name, write=True)
        try:
            present = (await images.require_plain(fd, parsed.format, name)).size or os.fstat(fd).st_size
            size = -(-size // _BLOCK) * _BLOCK
            if size < present:
                raise BadInput("size", f"{name} has {present} bytes; shrinking disks is not supported")
            if size == present:
                return
            if size > MAX_SIZE:
                raise BadInput("size", f"the size must not be over {MAX_SIZE >> 40} TiB")
            await qemu_img.qemu_img(
                ["resize", "-q", "--image-opts", qemu_img.of_fd(fd, parsed.format).options, str(size)], [fd]
            )
        finally:
            os.close(fd)

    async def copy(
        self, name: str, target: StorageDriver, target_name: str, fmt: str,
        snapshot: str | None = None, progress: Progress | None = None, *, shared: bool = False,
        limit_bytes_s: int = 0,
    ) -> None:  # fmt: skip
        """Through QEMU, with any target it can open."""
        if snapshot is not None:
            self._snapshottable(name, snapshot)
        await copy.full_copy(
            self, name, target, target_name, fmt, snapshot, progress, shared=shared, limit_bytes_s=limit_bytes_s
        )

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def _snapshottable(self, name: str, snapshot: str) -> VolumeName:
        parsed = self._image(name)
        if parsed.format not in self.capabilities.snapshot_formats:
            raise Unsupported(
                f"{name} is a {parsed.format} image, which has no snapshots; move the disk to format qcow2"
            )
        try:
            check("pve-snapshot", snapshot)
        except ValueError as exc:
            raise BadInput("snapname", str(exc)) from None
        return parsed

    async def _snapshot_command(self, flag: str, name: str, snapshot: str) -> None:
        parsed = self._snapshottable(name, snapshot)
        fd = await asyncio.to_thread(self.open, name, write=True)
        try:
            there = snapshot in dict((await images.require_plain(fd, parsed.format, name)).snapshots)
            if flag == "-c" and there:
                raise Conflict(f"{name} has a snapshot '{snapshot}' already; choose another name")
            if flag == "-a" and not there:
                raise NotFound(f"{name} has no snapshot '{snapshot}'")
            if flag == "-d" and not there:
                return
            await qemu_img.qemu_img(
                ["snapshot", "-q", flag, snapshot, "--image-opts", qemu_img.of_fd(fd, parsed.format).options], [fd]
            )
        finally:
            os.close(fd)

    async def snapshot(self, name: str, snapshot: str) -> None:
        """Internal snapshot."""
        await self._snapshot_command("-c", name, snapshot)

    async def rollback(self, name: str, snapshot: str) -> None:
        """Back to it."""
        await self._snapshot_command("-a", name, snapshot)

    async def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Remove it."""
        await self._snapshot_command("-d", name, snapshot)

    async def snapshots(self, name: str) -> Sequence[str]:
        """From the header."""
        parsed = self._image(name)
        if parsed.format not in self.capabilities.snapshot_formats:
            return ()
        fd = await asyncio.to_thread(self.open, name, write=False)
        try:
            return [found for found, _ in (await images.require_plain(fd, parsed.format, name)).snapshots]
        finally:
            os.close(fd)

    async def make_base(self, name: str) -> str:
        """Rename, read-only, immutable where the file system can."""
        parsed = self._image(name)
        if parsed.base:
            return name
        base = name.replace(f"/vm-{parsed.vmid}-", f"/base-{parsed.vmid}-", 1)
        await asyncio.to_thread(self._make_base, parsed, self._image(base))
        return base

    def _make_base(self, parsed: VolumeName, base: VolumeName) -> None:
        old, new = self._path(parsed), self._path(base)
        if self._root.exists(old):
            self._root.rename(old, new)
        fd = self._root.open(new)
        try:
            if os.fstat(fd).st_mode & 0o777 != 0o400:  # an immutable file refuses even that
                os.fchmod(fd, 0o400)
            set_immutable(fd, True)
        finally:
            os.close(fd)

    # -- files -------------------------------------------------------------------------------------------------------

    def create_upload(self, content: str) -> tuple[int, str]:
        """A hidden file in the content's directory."""
        if content not in self.capabilities.contents:
            raise BadInput("content", f"storage '{self.id}' does not support content type '{content}'")
        return self._files.begin(content)

    async def finish_upload(self, token: str, content: str, filename: str) -> str:
        """Its name."""
        return (await asyncio.to_thread(self._files.finish, token, content, filename)).name

    async def abort_upload(self, token: str) -> None:
        """Gone."""
        await asyncio.to_thread(self._files.abort, token)

    async def set_attributes(self, name: str, *, notes: str | None = None, protected: bool | None = None) -> None:
        """Files beside it."""
        await asyncio.to_thread(self._files.set_attributes, self.parse(name), notes, protected)

    async def export(self, name: str, fd: int, snapshot: str | None = None) -> None:
        """Through QEMU for images, byte by byte for files."""
        parsed = self.parse(name)
        if parsed.content == "images":
            await copy.export_raw(self, name, fd, snapshot)
            return
        source = await asyncio.to_thread(self.open, name, write=False)
        try:
            await asyncio.to_thread(_pour, source, fd)
        finally:
            os.close(source)


def _pour(source: int, target: int) -> None:
    while data := os.read(source, 1 << 20):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
