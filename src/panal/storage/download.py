"""Content fetched from a URL by a child that can only do that (storage/fetch.py in the jail).

Called by `api/node_storage_upload.py`. Whoever may download makes this node open connections, also to addresses that only
this node can reach (server-side request forgery): therefore it takes a network right beside the right on the storage, only
http and https are spoken, redirects are checked again, and of an answer nothing but its size, type and name is shown.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from panal.core.errors import BadInput, Conflict, Failed, NotFound
from panal.host import jail
from panal.storage import upload
from panal.storage.drivers.base import StorageDriver
from panal.storage.storages import Storages

_SCRIPT: Final = Path(__file__).with_name("fetch.py")
TIMEOUT_S: Final = 24 * 3600
METADATA_S: Final = 90
_MAX_LINE: Final = 4096
_SPARE: Final = 64 * 1024 * 1024


class _Lines:
    """Reads what the child says; the last line is its answer."""

    def __init__(self, progress: Callable[[int, int | None], None]) -> None:
        self._progress = progress
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[:_MAX_LINE]
        for line in lines:
            found = self._decode(line)
            if "done" in found:
                total = found.get("total")
                self._progress(int(found["done"]), int(total) if total is not None else None)

    @staticmethod
    def _decode(line: bytes) -> dict[str, Any]:
        try:
            return msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, ValueError):
            return {}

    @property
    def answer(self) -> dict[str, Any]:
        """What it ended with; Failed when it did not succeed."""
        found = self._decode(self._rest)
        if "size" not in found:
            raise Failed(f"download failed: {str(found.get('error', 'the connection broke'))[:400]}")
        return found


async def _fetch(
    url: str, fd: int, limit: int, verify: bool, head: bool, progress: Callable[[int, int | None], None]
) -> dict[str, Any]:
    lines = _Lines(progress)
    await jail.call(
        _SCRIPT, {"url": url, "fd": fd, "limit": limit, "verify": verify, "head": head},
        fds=[] if fd < 0 else [fd], timeout_s=METADATA_S if head else TIMEOUT_S, cpu_s=TIMEOUT_S, file_size=limit,
        network=True, on_output=lines.feed,
    )  # fmt: skip
    return lines.answer


async def metadata(url: str, verify: bool = True) -> dict[str, str | int]:
    """Size, type and proposed file name of what stands there, as far as the server says. BadInput on `url`."""
    try:
        found = await _fetch(url, -1, 0, verify, True, lambda done, total: None)
    except Failed as exc:
        raise BadInput("url", str(exc)) from exc
    return {key: found[key] for key in ("size", "mimetype", "filename") if found.get(key) is not None}


async def download(
    storages: Storages, storage_id: str, content: str, filename: str, url: str, *,
    checksum: upload.Checksum | None, verify: bool, log: Callable[[str], None],
) -> str:  # fmt: skip
    """Fetch into a new volume; its volume id. Conflict when it is there (unless the checksum says it is the same)."""
    driver = await storages.usable(storage_id)
    name = upload.check_name(driver, content, filename)
    if await _there(driver, name, checksum):
        log("OK, got correct file already, no need to download")
        return f"{storage_id}:{name}"
    limit = max(0, (await driver.usage()).available - _SPARE)
    place = await upload.begin(storages, storage_id, content)
    log(f"downloading {url} to {storage_id}:{name}")
    told = [-1]

    def progress(done: int, total: int | None) -> None:
        step = done * 20 // total if total else done >> 28
        if step != told[0]:
            told[0] = step
            log(f"{done >> 20} MiB" + (f" of {total >> 20} MiB ({100 * done // total}%)" if total else ""))

    try:
        found = await _fetch(url, place.fd, limit, verify, False, progress)
    except BaseException:
        await upload.abort(place)
        raise
    log(f"{found['size']} bytes received" + (f", checking {checksum.algorithm}" if checksum else ""))
    return await upload.finish(place, content, filename, checksum)


async def _there(driver: StorageDriver, name: str, checksum: upload.Checksum | None) -> bool:
    try:
        await driver.info(name)
    except NotFound:
        return False
    if checksum is not None:
        fd = await asyncio.to_thread(driver.open, name, write=False)
        try:
            if await upload.digest(fd, checksum.algorithm) == checksum.value:
                return True
        finally:
            os.close(fd)
    raise Conflict(f"refusing to override existing file '{name}'; delete it or choose another name")
