"""Content that comes from outside: received by an upload or a download, checked, then named.

Called by `api/node_storage_upload.py` and `storage/download.py`. Invariant: until `finish` returns, nothing shows up as
content; whatever fails, `abort` leaves nothing. Images are looked at in the jail before they get a name.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from typing import Final

from panal.core.errors import BadInput, Failed
from panal.storage import images
from panal.storage.drivers.base import StorageDriver
from panal.storage.drivers.dir.layout import IMAGE_FORMATS, file_name
from panal.storage.storages import Storages

ALGORITHMS: Final = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the content must hash to."""

    algorithm: str
    value: str

    @classmethod
    def of(cls, algorithm: str | None, value: str | None) -> Checksum | None:
        """Both or neither; BadInput naming the missing or malformed one."""
        if algorithm is None and value is None:
            return None
        if algorithm not in ALGORITHMS:
            raise BadInput("checksum-algorithm", f"one of {', '.join(ALGORITHMS)} belongs to a checksum")
        if value is None or not re.fullmatch(rf"[0-9a-fA-F]{{{ALGORITHMS[algorithm]}}}", value):
            raise BadInput("checksum", f"a {algorithm} checksum has {ALGORITHMS[algorithm]} hexadecimal digits")
        return cls(algorithm, value.lower())


@dataclass(frozen=True, slots=True)
class Place:
    """Where content is being written. The descriptor is closed by `finish` or `abort`."""

    driver: StorageDriver
    storage: str
    fd: int
    token: str


async def begin(storages: Storages, storage_id: str, content: str) -> Place:
    """A place on the storage. NotFound, Unavailable, BadInput on `content`."""
    driver = await storages.usable(storage_id)
    if not driver.capabilities.upload:
        raise BadInput("storage", f"storage '{storage_id}' holds disk images only; upload to one of type 'dir'")
    fd, token = await asyncio.to_thread(driver.create_upload, content)
    return Place(driver, storage_id, fd, token)


def check_name(driver: StorageDriver, content: str, filename: str) -> str:
    """The volume name that content gets; BadInput on `content` or `filename` before anything is transferred."""
    if content not in driver.capabilities.contents:
        raise BadInput("content", f"storage '{driver.id}' does not support content type '{content}'")
    name = f"{content}/{file_name(filename)}"
    try:
        driver.parse(name)
    except BadInput:
        raise BadInput("filename", f"'{filename[:100]}' has the wrong extension for content '{content}'") from None
    if content == "import" and name.lower().rpartition(".")[2] not in IMAGE_FORMATS:
        raise BadInput(
            "filename", "disk images are taken as qcow2 or raw; convert others with 'qemu-img convert' first"
        )
    return name


async def finish(place: Place, content: str, filename: str, checksum: Checksum | None) -> str:
    """Check and name what was written; its volume id. On any error nothing is left."""
    try:
        if checksum is not None:
            found = await digest(place.fd, checksum.algorithm)
            if not hmac.compare_digest(found, checksum.value):
                raise Failed(f"checksum mismatch: got '{found}' != expect '{checksum.value}'; the file was not kept")
        if content == "import":
            await images.require_plain(
                place.fd, check_name(place.driver, content, filename).rpartition(".")[2].lower(), filename, "filename"
            )
        name = await place.driver.finish_upload(place.token, content, filename)
    except BaseException:
        await asyncio.shield(abort(place))
        raise
    os.close(place.fd)
    return f"{place.storage}:{name}"


async def abort(place: Place) -> None:
    """Leave nothing."""
    os.close(place.fd)
    await place.driver.abort_upload(place.token)


async def digest(fd: int, algorithm: str) -> str:
    """Hexadecimal hash of an open file; hashing lets others run."""
    total = hashlib.new(algorithm, usedforsecurity=False)
    offset = 0
    while data := await asyncio.to_thread(os.pread, fd, _CHUNK, offset):
        await asyncio.to_thread(total.update, data)
        offset += len(data)
    return total.hexdigest()
