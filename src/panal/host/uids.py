"""User ids for guests, out of a reserved range: each running guest has one of its own (design D5).

Called by the guest drivers. A taken uid is a lock on `<directory>/<uid>` that the guest's process inherits: it is free again
when that process has ended, however it ended, and no two daemons of one machine can hand out the same one. The range lies
above those that distributions and systemd give to people, services and containers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from panal.core.errors import Busy

BASE: Final = 0x7000_0000
COUNT: Final = 0x1_0000
DIRECTORY: Final = Path("/run/panal-uids")


@dataclass(frozen=True, slots=True)
class Lease:
    """A uid that is ours while any copy of `fd` is open. The taker closes its copy after giving one to the process."""

    uid: int
    fd: int


def take(directory: Path = DIRECTORY, base: int = BASE, count: int = COUNT, hint: int = 0) -> Lease:
    """The first free uid at or after `base + hint % count`. Raises Busy when the whole range is taken."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for step in range(count):
        uid = base + (hint + step) % count
        fd = os.open(directory / str(uid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        if not _is(directory / str(uid), fd):  # given back by another just now: we hold a file that is gone
            os.close(fd)
            continue
        return Lease(uid, fd)
    raise Busy(f"all {count} user ids for guests are taken on this machine; stop a guest first")


def give_back(uid: int, directory: Path = DIRECTORY) -> None:
    """Remove the lock file of a uid whose process has ended; nothing happens while anybody still holds it."""
    path = directory / str(uid)
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(path, fd):
                path.unlink()
        finally:
            os.close(fd)


def _is(path: Path, fd: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False
