"""How answers are shown: tables and lists for people, JSON for programs.

`rich` is imported only when a table is drawn. Control characters in names or notes never reach the terminal.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BYTES: Final = frozenset({"mem", "maxmem", "disk", "maxdisk", "size", "used", "avail", "total", "netin", "netout"})
_TIMES: Final = frozenset({"starttime", "endtime", "ctime", "snaptime", "time"})
_HEADINGS: Final = {
    "maxcpu": "cpus",
    "maxmem": "memory",
    "maxdisk": "disk size",
    "ugid": "who",
    "roleid": "role",
    "t": "",
}


def human(key: str, value: object) -> str:
    """One value as a person reads it; bytes with binary units, times in the local zone."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        if key in _BYTES:
            return size(value)
        if key in _TIMES and value > 0:
            return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        if key == "cpu":
            return f"{value * 100:.1f} %"
        if key == "uptime":
            return duration(int(value))
    if isinstance(value, (list, dict)):
        return _CONTROL.sub("?", json.dumps(value, ensure_ascii=False))
    return _CONTROL.sub("?", str(value))


def size(count: float) -> str:
    """Bytes → `3.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def duration(seconds: int) -> str:
    """Seconds → `2d 03:04:05`."""
    days, rest = divmod(seconds, 86_400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}d {clock}" if days else clock


def show(data: Any, columns: Sequence[str] = (), *, as_json: bool = False) -> None:
    """Print an answer to standard output."""
    if as_json:
        print(json.dumps(data, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))
    elif data is None:
        return
    elif isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
        _rows(data, columns)
    elif isinstance(data, list):
        for item in data:
            print(human("", item))
    elif isinstance(data, dict):
        _rows([{"key": key, "value": human(key, data[key])} for key in sorted(data)], ("key", "value"))
    else:
        print(_CONTROL.sub(lambda m: m[0] if m[0] in "\n\t" else "?", str(data)))


def _rows(rows: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> None:
    columns = [c for c in wanted if any(c in row for row in rows)] or sorted({key for row in rows for key in row})
    if columns == ["t"]:  # log lines are lines, not a table
        for row in rows:
            print(human("t", row.get("t")))
        return
    cells = [[human(column, row.get(column)) for column in columns] for row in rows]
    if not sys.stdout.isatty():
        # plain and stable for pipes: no colours, no cutting at the terminal's width
        widths = [max(len(h), *(len(r[i]) for r in cells)) for i, h in enumerate(map(_heading, columns))]
        for line in [[_heading(c) for c in columns], *cells]:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(_heading(column), justify="right" if column in _BYTES | {"cpu", "maxcpu", "vmid"} else "left")
    for line in cells:
        table.add_row(*map(Text, line))  # Text: names are never read as markup
    Console().print(table)


def _heading(column: str) -> str:
    return _HEADINGS.get(column, column)
