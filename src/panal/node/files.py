"""Replacing one of the machine's own files: whole or not at all, and only if it is still what the caller has seen."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from panal.core.errors import Conflict, Failed

# clients of PVE match on this sentence
CHANGED = "detected modified configuration - file changed by other user? Try again."


def digest(data: bytes) -> str:
    """What the API calls a file's digest (SHA-1, no secret in it)."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def check_digest(data: bytes, wanted: str | None) -> None:
    """Conflict when the caller has seen other content."""
    if wanted and wanted != digest(data):
        raise changed()


def changed() -> Conflict:
    """The error for a stale digest."""
    return Conflict(CHANGED)


def read(path: Path) -> bytes:
    """The content; empty when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def replace(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write the new content aside and rename it over the file, keeping its mode and owner. Failed when that does not work."""
    target = path  # a link is replaced, not followed: it may lead anywhere
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            st = target.stat()
            mode = st.st_mode & 0o7777 or mode
        except FileNotFoundError:
            st = None
        fd, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(fd, mode)
                if st is not None and os.geteuid() == 0:
                    os.fchown(fd, st.st_uid, st.st_gid)
                os.fsync(fd)
            _put(name, target, data)
        finally:
            with suppress(FileNotFoundError):
                Path(name).unlink()
    except OSError as exc:
        raise Failed(f"{path} cannot be written: {exc.strerror}") from exc


def _put(name: str, target: Path, data: bytes) -> None:
    try:
        Path(name).rename(target)
    except OSError as exc:
        if exc.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        # a file that is mounted into a container cannot be replaced, only written
        with target.open("r+b") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
