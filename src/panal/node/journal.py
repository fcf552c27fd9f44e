"""The machine's log: systemd's journal, else /var/log/syslog, else our own file.

Called by `api/node_system.py` for `journal` (lines between two cursors) and `syslog` (numbered lines), by
`api/qemu_firewall.py` for what firewalls logged. Bounded: at most
MAX_LINES lines an answer; what a program or file has beyond is counted or left out, never kept.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from panal.core.errors import BadInput
from panal.node.context import NodeInfo

MAX_LINES: Final = 5_000
DEFAULT_LINES: Final = 500
MAX_LINE: Final = 4_096
TIMEOUT_S: Final = 60.0
_CURSOR = re.compile(r"[A-Za-z0-9=;_-]{1,512}")
_SERVICE = re.compile(r"[A-Za-z0-9@_.:-]{1,128}")
_OWN_CURSOR = re.compile(r"line=(\d{1,12})")


@dataclass(frozen=True, slots=True)
class Window:
    """Seconds since the epoch; None: open."""

    since: int | None = None
    until: int | None = None


async def entries(
    info: NodeInfo, window: Window, last: int | None, start_cursor: str | None, end_cursor: str | None
) -> list[str]:
    """Cursor of the first line, the lines, cursor of the last line (as the API's `journal` has it); [] when there is none.

    `start_cursor`: what comes after it; `end_cursor`: what comes before it.
    """
    for field_name, cursor in (("startcursor", start_cursor), ("endcursor", end_cursor)):
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise BadInput(field_name, "this is not a cursor; take one from an earlier answer")
    if start_cursor is not None and window.since is not None:
        raise BadInput("startcursor", "conflicts with 'since'; give one of them")
    if end_cursor is not None and window.until is not None:
        raise BadInput("endcursor", "conflicts with 'until'; give one of them")
    count = min(
        MAX_LINES if last is None and (start_cursor or window.since is not None) else last or DEFAULT_LINES, MAX_LINES
    )
    if info.journal:
        pairs = await _from_journal(info, window, count, start_cursor, end_cursor)
    else:
        pairs = await asyncio.to_thread(_from_file, info, window, count, start_cursor, end_cursor)
    return [pairs[0][0], *(line for _, line in pairs), pairs[-1][0]] if pairs else []


async def _from_journal(
    info: NodeInfo, window: Window, count: int, start: str | None, end: str | None
) -> list[tuple[str, str]]:
    argv = ["journalctl", "--no-pager", "--quiet", "--output=json"]
    argv.append("--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_PID,_HOSTNAME")
    argv += [f"--since=@{window.since}"] if window.since is not None else []
    argv += [f"--until=@{window.until}"] if window.until is not None else []
    argv += [f"--after-cursor={start}"] if start else []
    if end is None:
        argv.append(f"--lines={count}")
    rows: deque[tuple[str, str]] = deque(maxlen=count)
    done = False

    def take(line: bytes) -> None:
        nonlocal done
        row = json.loads(line)
        done = done or (end is not None and row["__CURSOR"] == end)
        if not done:
            rows.append((row["__CURSOR"], _format(row)))

    await _stream(info, argv, take)
    return list(rows)


def _format(row: dict[str, object]) -> str:
    message = row.get("MESSAGE")
    if isinstance(message, list):  # not text: journald gives the bytes
        message = bytes(b & 0xFF for b in message if isinstance(b, int)).decode(errors="replace")
    when = datetime.fromtimestamp(int(str(row.get("__REALTIME_TIMESTAMP", 0))) / 1e6).strftime("%b %d %H:%M:%S")
    pid = f"[{row['_PID']}]" if "_PID" in row else ""
    return f"{when} {row.get('_HOSTNAME', '')} {row.get('SYSLOG_IDENTIFIER', 'unknown')}{pid}: {message}"[:MAX_LINE]


async def _stream(info: NodeInfo, argv: list[str], take: Callable[[bytes], None]) -> None:
    rest = b""

    def feed(data: bytes) -> None:
        nonlocal rest
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            take(line)

    await info.run(argv, timeout_s=TIMEOUT_S, on_output=feed)
    if rest:
        take(rest)


def _file(info: NodeInfo) -> Path | None:
    candidates = [info.path("/var/log/syslog"), info.path("/var/log/messages"), info.log_file]
    return next((path for path in candidates if path is not None and path.is_file()), None)


def stamp(line: str, year: int) -> float | None:
    """When a line of a log file was written; None when it does not say."""
    try:
        return datetime.fromisoformat(line.split(" ", 1)[0]).timestamp()
    except ValueError:
        pass
    try:
        return datetime.strptime(f"{year} {line[:15]}", "%Y %b %d %H:%M:%S").timestamp()
    except ValueError:
        pass
    if line.startswith("{"):  # our own: JSON lines
        found = re.search(r'"timestamp": ?"([^"]+)"', line)
        try:
            return datetime.fromisoformat(found[1]).timestamp() if found else None
        except ValueError:
            return None
    return None


def _lines(info: NodeInfo, window: Window) -> Iterator[tuple[int, str]]:
    """Numbered lines of the file within the window; a line without a time belongs to the one before."""
    path = _file(info)
    if path is None:
        return
    year = datetime.fromtimestamp(info.clock.wall_s()).year
    inside = window.since is None
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.rstrip("\n")[:MAX_LINE]
            if window != Window():
                when = stamp(line, year)
                if when is not None:
                    inside = (window.since is None or when >= window.since) and (
                        window.until is None or when <= window.until
                    )
            if inside:
                yield number, line


def _number(cursor: str | None, field_name: str) -> int | None:
    if cursor is None:
        return None
    found = _OWN_CURSOR.fullmatch(cursor)
    if found is None:
        raise BadInput(field_name, "this cursor belongs to another log; take one from an earlier answer")
    return int(found[1])


def _from_file(info: NodeInfo, window: Window, count: int, start: str | None, end: str | None) -> list[tuple[str, str]]:
    after, before = _number(start, "startcursor"), _number(end, "endcursor")
    found: Iterable[tuple[int, str]] = (
        (n, line) for n, line in _lines(info, window) if (after is None or n > after) and (before is None or n < before)
    )
    return [(f"line={n}", line) for n, line in deque(found, maxlen=count)]


async def syslog(
    info: NodeInfo, window: Window, service: str | None, start: int, limit: int
) -> tuple[list[tuple[int, str]], int]:
    """Numbered lines from index `start`, at most `limit`, oldest first; and how many there are."""
    if service is not None and (not _SERVICE.fullmatch(service) or service.startswith("-")):
        raise BadInput("service", "value does not look like a service name")
    limit = min(limit, MAX_LINES)
    rows: list[tuple[int, str]] = []
    total = 0

    def take(line: str) -> None:
        nonlocal total
        total += 1
        if total > start and len(rows) < limit:
            rows.append((total, line[:MAX_LINE]))

    if info.journal:
        argv = ["journalctl", "--no-pager", "--quiet", "--output=short"]
        argv += [f"--since=@{window.since}"] if window.since is not None else []
        argv += [f"--until=@{window.until}"] if window.until is not None else []
        argv += [f"--unit={service}"] if service else []
        await _stream(info, argv, lambda line: take(line.decode(errors="replace")))
        return rows, total

    def work() -> None:
        for _, line in _lines(info, window):
            if service is None or f" {service}[" in line or f" {service}:" in line:
                take(line)

    await asyncio.to_thread(work)
    return rows, total


async def kernel_lines(info: NodeInfo, window: Window, needle: str) -> list[str]:
    """Lines of the kernel that hold `needle`, oldest first: the newest MAX_LINES."""
    found: deque[str] = deque(maxlen=MAX_LINES)

    def take(line: str) -> None:
        if needle in line:
            found.append(line[:MAX_LINE])

    if info.journal:
        argv = ["journalctl", "--no-pager", "--quiet", "--output=short", "--dmesg"]
        argv += [f"--since=@{window.since}"] if window.since is not None else []
        argv += [f"--until=@{window.until}"] if window.until is not None else []
        await _stream(info, argv, lambda line: take(line.decode(errors="replace")))
        return list(found)

    def work() -> None:
        for _, line in _lines(info, window):
            take(line)

    await asyncio.to_thread(work)
    return list(found)
