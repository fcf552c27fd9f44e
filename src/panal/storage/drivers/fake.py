"""A storage in memory that behaves: for tests, the lab and benches with thousands of guests. Not offered by the API.

Images hold real bytes as soon as somebody opens them (a memfd), so guests, copies and exports work; before that a volume is a
few words. `fake_type()` makes a type whose content outlives changes of configuration, as disks do:

    Storages(..., types={**TYPES, "fake": fake_type(capacity=1 << 40)})

Whatever the format is called, the bytes are raw: snapshots are copies.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from panal.core.errors import BadInput, Conflict, Failed, NotFound
from panal.storage import copy
from panal.storage.drivers.base import Capabilities, DriverType, Progress, StorageDriver, Usage, Volume, VolumeSource
from panal.storage.drivers.dir import layout
from panal.storage.model import CONTENTS, Option, StorageConfig, VolumeName

_CHUNK: Final = 8 << 20
_UPLOADS: Final = frozenset({"iso", "vztmpl", "snippets", "import"})


@dataclass(slots=True)
class _Bytes:
    """Content, made when first needed. `size` in bytes."""

    size: int
    fd: int = -1

    def opened(self) -> int:
        if self.fd < 0:
            self.fd = os.memfd_create("panal-fake-volume", os.MFD_CLOEXEC)
            os.ftruncate(self.fd, self.size)
        return self.fd

    def resize(self, size: int) -> None:
        self.size = size
        if self.fd >= 0:
            os.ftruncate(self.fd, size)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(slots=True)
class _Item:
    """A volume."""

    data: _Bytes
    ctime: int = field(default_factory=lambda: int(time.time()))
    snapshots: dict[str, _Bytes] = field(default_factory=dict)
    notes: str | None = None
    protected: bool = False


@dataclass(slots=True)
class _Shelf:
    """What one storage holds."""

    items: dict[str, _Item] = field(default_factory=dict)
    uploads: dict[str, _Bytes] = field(default_factory=dict)


class FakeStorage:
    """One storage in memory. `capacity` in bytes: an allocation over it fails as on a full disk."""

    def __init__(self, config: StorageConfig, shelf: _Shelf, capacity: int) -> None:
        self.id = config.id
        self._shelf = shelf
        self._capacity = capacity
        self.capabilities = Capabilities(
            contents=config.contents, formats=layout.IMAGE_FORMATS, default_format=str(config.options.get("format", "qcow2")),
            snapshot_formats=frozenset(layout.IMAGE_FORMATS), lock="none", shared=config.shared, upload=True,
        )  # fmt: skip

    async def activate(self) -> None:
        """Always."""

    async def deactivate(self) -> None:
        """Never."""

    async def usage(self) -> Usage:
        """Every byte counts, also those nobody wrote."""
        used = self._used()
        return Usage(self._capacity, used, self._capacity - used)

    def _used(self) -> int:
        return sum(i.data.size + sum(s.size for s in i.snapshots.values()) for i in self._shelf.items.values())

    def parse(self, name: str) -> VolumeName:
        """As `dir`."""
        try:
            return layout.parse_name(name)
        except ValueError:
            raise BadInput("volume", f"unable to parse volume name '{name[:200]}'") from None

    def image_name(self, vmid: int, stem: str, fmt: str) -> str:
        """As `dir`."""
        return layout.image_name(vmid, stem, fmt)

    def _item(self, name: str) -> _Item:
        self.parse(name)
        if name not in self._shelf.items:
            raise NotFound(f"{name} does not exist")
        return self._shelf.items[name]

    def _volume(self, name: str, item: _Item) -> Volume:
        parsed = layout.parse_name(name)
        return Volume(
            name, parsed.content, parsed.format, item.data.size, item.data.size if item.data.fd >= 0 else 0, item.ctime,
            parsed.vmid, None, item.notes, item.protected,
        )  # fmt: skip

    async def list(self, content: str | None = None, vmid: int | None = None) -> Sequence[Volume]:
        """Sorted by name."""
        found = [self._volume(name, item) for name, item in sorted(self._shelf.items.items())]
        return [v for v in found if content in (None, v.content) and (vmid is None or v.vmid == vmid)]

    async def info(self, name: str) -> Volume:
        """One."""
        return self._volume(name, self._item(name))

    async def allocate(self, vmid: int, name: str, fmt: str, size: int) -> None:
        """Words, no bytes yet."""
        parsed = self.parse(name)
        if parsed.content != "images" or parsed.vmid != vmid or parsed.format != fmt:
            raise BadInput("volume", f"'{name}' is no name for a {fmt} image of guest {vmid}")
        if not 0 < size <= 1 << 50:
            raise BadInput("size", "the size must be between 1 byte and 1024 TiB")
        if name in self._shelf.items:
            raise Conflict(f"{name} exists already; choose another name")
        self._room(size)
        self._shelf.items[name] = _Item(_Bytes(size))

    def _room(self, size: int) -> None:
        if self._used() + size > self._capacity:
            raise Failed("no space left on the storage; free some or choose another one")

    async def free(self, name: str) -> None:
        """Gone."""
        self.parse(name)
        item = self._shelf.items.get(name)
        if item is None:
            return
        if item.protected:
            raise Conflict(f"can't remove protected volume '{name}'; clear its protection first")
        del self._shelf.items[name]
        for data in (item.data, *item.snapshots.values()):
            data.close()

    async def resize(self, name: str, size: int) -> None:
        """Grow."""
        item = self._writable(name)
        if size < item.data.size:
            raise BadInput("size", f"{name} has {item.data.size} bytes; shrinking disks is not supported")
        self._room(size - item.data.size)
        item.data.resize(size)

    def _writable(self, name: str) -> _Item:
        if self.parse(name).base:
            raise Conflict(f"{name} is a template's image and stays as it is; clone the template")
        return self._item(name)

    async def copy(
        self, name: str, target: StorageDriver, target_name: str, fmt: str,
        snapshot: str | None = None, progress: Progress | None = None, *, shared: bool = False,
        limit_bytes_s: int = 0,
    ) -> None:  # fmt: skip
        """Bytes to another fake, QEMU to the rest."""
        data = self._data(name, snapshot)
        if not isinstance(target, FakeStorage):
            if snapshot is not None:
                raise BadInput("snapname", "a snapshot in memory is copied to storages in memory only")
            await copy.full_copy(
                self, name, target, target_name, fmt, snapshot, progress, shared=shared, limit_bytes_s=limit_bytes_s
            )
            return
        vmid = target.parse(target_name).vmid
        await target.allocate(vmid or 0, target_name, fmt, data.size)
        try:
            await _pour(data, target._item(target_name).data, progress)
        except BaseException:
            await target.free(target_name)
            raise

    def _data(self, name: str, snapshot: str | None) -> _Bytes:
        item = self._item(name)
        if snapshot is None:
            return item.data
        if snapshot not in item.snapshots:
            raise NotFound(f"{name} has no snapshot '{snapshot}'")
        return item.snapshots[snapshot]

    async def snapshot(self, name: str, snapshot: str) -> None:
        """A copy."""
        item = self._writable(name)
        if snapshot in item.snapshots:
            raise Conflict(f"{name} has a snapshot '{snapshot}' already; choose another name")
        kept = _Bytes(item.data.size)
        await _pour(item.data, kept, None)
        item.snapshots[snapshot] = kept

    async def rollback(self, name: str, snapshot: str) -> None:
        """The copy back."""
        kept, item = self._data(name, snapshot), self._writable(name)
        item.data.resize(0)
        item.data.resize(kept.size)
        await _pour(kept, item.data, None)

    async def delete_snapshot(self, name: str, snapshot: str) -> None:
        """The copy gone."""
        kept = self._item(name).snapshots.pop(snapshot, None)
        if kept is not None:
            kept.close()

    async def snapshots(self, name: str) -> Sequence[str]:
        """Oldest first."""
        return list(self._item(name).snapshots)

    async def make_base(self, name: str) -> str:
        """A new name."""
        parsed = self.parse(name)
        base = name.replace(f"/vm-{parsed.vmid}-", f"/base-{parsed.vmid}-", 1)
        if name != base and name in self._shelf.items:
            self._shelf.items[base] = self._shelf.items.pop(name)
        self._item(base)
        return base

    def source(self, name: str) -> VolumeSource:
        """Raw bytes, by descriptor."""
        return VolumeSource("raw", self.location(name))

    def open(self, name: str, *, write: bool) -> int:
        """A descriptor of its own."""
        item = self._writable(name) if write else self._item(name)
        return os.open(f"/proc/self/fd/{item.data.opened()}", (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)

    def location(self, name: str) -> str:
        """Where our process keeps it."""
        return f"/proc/{os.getpid()}/fd/{self._item(name).data.opened()}" if name in self._shelf.items else name

    def create_upload(self, content: str) -> tuple[int, str]:
        """Bytes without a name."""
        if content not in self.capabilities.contents & _UPLOADS:
            raise BadInput("content", f"storage '{self.id}' does not take content type '{content}'")
        token = secrets.token_hex(16)
        data = self._shelf.uploads[token] = _Bytes(0)
        return os.open(f"/proc/self/fd/{data.opened()}", os.O_RDWR | os.O_CLOEXEC), token

    async def finish_upload(self, token: str, content: str, filename: str) -> str:
        """A name."""
        if token not in self._shelf.uploads:
            raise BadInput("tmpfilename", "not the token of an upload")
        name = f"{content}/{layout.file_name(filename)}"
        if content not in _UPLOADS or self.parse(name).content != content:
            raise BadInput("content", f"'{content}' cannot be uploaded")
        old = self._shelf.items.get(name)
        if old is not None and old.protected:
            raise Conflict(f"'{name}' exists and is protected; clear its protection or choose another name")
        data = self._shelf.uploads.pop(token)
        data.size = os.fstat(data.opened()).st_size
        await self.free(name)
        self._shelf.items[name] = _Item(data)
        return name

    async def abort_upload(self, token: str) -> None:
        """Gone."""
        data = self._shelf.uploads.pop(token, None)
        if data is not None:
            data.close()

    async def set_attributes(self, name: str, *, notes: str | None = None, protected: bool | None = None) -> None:
        """Remembered."""
        item = self._item(name)
        if notes is not None:
            item.notes = notes or None
        if protected is not None:
            item.protected = protected

    async def export(self, name: str, fd: int, snapshot: str | None = None) -> None:
        """The bytes."""
        data = self._data(name, snapshot)
        os.ftruncate(fd, data.size)
        await _pour(data, _Bytes(data.size, fd), None)


async def _pour(source: _Bytes, target: _Bytes, progress: Progress | None) -> None:
    """Copy what was ever written; holes stay holes. Lets others run, and can be cancelled, after each piece."""
    at = 0
    while source.fd >= 0 and at < source.size:
        try:
            start = os.lseek(source.fd, at, os.SEEK_DATA)
            end = os.lseek(source.fd, start, os.SEEK_HOLE)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                break
            raise
        piece = await asyncio.to_thread(os.pread, source.fd, min(end - start, _CHUNK), start)
        await asyncio.to_thread(os.pwrite, target.opened(), piece, start)
        at = start + len(piece)
        if progress is not None:
            progress(at / source.size)
    if progress is not None:
        progress(1.0)


def _check(options: Mapping[str, Option]) -> None:
    if options.get("format", "raw") not in layout.IMAGE_FORMATS:
        raise BadInput("format", f"one of {', '.join(layout.IMAGE_FORMATS)}")


def fake_type(capacity: int = 1 << 40) -> DriverType:
    """A type of its own memory."""
    shelves: dict[str, _Shelf] = {}

    def build(config: StorageConfig) -> StorageDriver:
        return FakeStorage(config, shelves.setdefault(config.id, _Shelf()), capacity)

    return DriverType(
        type="fake", contents=frozenset(CONTENTS), default_contents=("images",), required=(), fixed=(),
        options=frozenset({"format"}), check=_check, parse_name=layout.parse_name, build=build,
    )  # fmt: skip
