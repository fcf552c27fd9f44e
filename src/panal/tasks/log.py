"""The log files of tasks: one a task under `<state>/tasks/log/<two digits>/`, named by its UPID, read while it is written.

Bounded: a log over MAX_BYTES says so once and takes no more lines but the last one (the task's end). No secrets: every line
goes through `core.redact`.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from panal.core.redact import redact

MAX_BYTES: Final = 8 * 1024 * 1024
MAX_NAME_BYTES: Final = 200
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def path_of(directory: Path, upid: str) -> Path:
    """The file; `upid` must have been parsed before (its pattern has no slash)."""
    raw = upid.encode()
    # a long token name and a long id together would not fit into a file name
    name = upid if len(raw) <= MAX_NAME_BYTES else hashlib.sha256(raw).hexdigest()
    return directory / f"{sum(raw) & 0xFF:02x}" / name


class LogWriter:
    """Appends lines; each is visible to readers when the call returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, text: str, *, last: bool = False) -> None:
        """One or more lines. A full disk loses log lines, never the task."""
        lines = _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", redact(text)).splitlines() or [""]
        data = ("\n".join(lines) + "\n").encode(errors="replace")
        if self._size > MAX_BYTES and not last:
            return
        if self._size + len(data) > MAX_BYTES and not last:
            data = b"(log is full, further lines are left out)\n"
            self._size = MAX_BYTES
        try:
            os.write(self._fd, data)
        except OSError:
            return
        self._size += len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read(path: Path, start: int, limit: int) -> tuple[list[tuple[int, str]], int]:
    """Lines (numbered from 1) from index `start`, at most `limit` (0: all), and the number of lines. Blocking."""
    lines: list[tuple[int, str]] = []
    total = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for total, line in enumerate(file, start=1):
                if total > start and (limit == 0 or len(lines) < limit):
                    lines.append((total, line.rstrip("\n")))
    except FileNotFoundError:
        return [], 0
    return lines, total
