"""Lists the images of a directory storage, with the virtual sizes of qcow2 files from their headers. Used by the driver.

Headers are read in the jail, many at once, and remembered until the file changes.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from panal.core.errors import Failed, NotFound
from panal.host.files import Entry, Root
from panal.storage import images
from panal.storage.drivers.base import Volume
from panal.storage.drivers.dir import layout
from panal.storage.model import VolumeName

_REMEMBERED: Final = 20_000
_Key = tuple[int, float, int]


class Images:
    """The directory of images."""

    def __init__(self, root: Root, directory: str) -> None:
        self._root = root
        self._dir = directory
        self._sizes: dict[_Key, int] = {}

    async def all(self, vmid: int | None) -> list[Volume]:
        """Images of one guest, or all."""
        entries = await asyncio.to_thread(self._entries, vmid)
        unknown = [p for p, e in entries if p.format != "raw" and _key(e) not in self._sizes]
        for start in range(0, len(unknown), images.BATCH):
            await self._learn(unknown[start : start + images.BATCH])
        return [self._volume(parsed, entry) for parsed, entry in entries]

    async def one(self, parsed: VolumeName) -> Volume:
        """One image. NotFound."""
        entry = await asyncio.to_thread(self._root.entry, f"{self._dir}/{parsed.name}")
        if entry.is_dir:
            raise NotFound(f"{parsed.name} does not exist")
        if parsed.format != "raw" and _key(entry) not in self._sizes:
            await self._learn([parsed])
        return self._volume(parsed, entry)

    def _entries(self, vmid: int | None) -> list[tuple[VolumeName, Entry]]:
        owners = [str(vmid)] if vmid is not None else [e.name for e in self._root.list(self._dir) if e.is_dir]
        found = []
        for owner in owners:
            for entry in self._root.list(f"{self._dir}/{owner}"):
                try:
                    parsed = layout.parse_name(f"{owner}/{entry.name}")
                except ValueError:
                    continue
                if not entry.is_dir and parsed.content == "images":
                    found.append((parsed, entry))
        return found

    def _volume(self, parsed: VolumeName, entry: Entry) -> Volume:
        size = entry.size if parsed.format == "raw" else self._sizes.get(_key(entry), entry.size)
        return Volume(parsed.name, "images", parsed.format, size, entry.used, int(entry.mtime_s), parsed.vmid)

    async def _learn(self, names: list[VolumeName]) -> None:
        fds: list[int] = []
        keys: list[_Key] = []
        try:
            for parsed in names:
                try:
                    fds.append(await asyncio.to_thread(self._root.open, f"{self._dir}/{parsed.name}"))
                except (NotFound, Failed):
                    continue
                info = os.fstat(fds[-1])
                keys.append((info.st_ino, info.st_mtime, info.st_size))
            if not fds:
                return
            if len(self._sizes) > _REMEMBERED:
                self._sizes.clear()
            for key, header in zip(keys, await images.inspect(fds), strict=True):
                if header.format == "qcow2" and not header.broken:
                    self._sizes[key] = header.size
        finally:
            for fd in fds:
                os.close(fd)


def _key(entry: Entry) -> _Key:
    return entry.inode, entry.mtime_s, entry.size
