"""Writes the method table into `client/methods.json`: `python -m panal.api.export`.

The command line is made of that file (`client/methods.py`), so that it starts fast and needs no daemon code. A test compares
the packaged file with the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

import panal.client
from panal.api.all_routes import table
from panal.api.permission import World
from panal.api.table import Method, Param, Table


def rows(methods: Table) -> list[dict[str, Any]]:
    """One row a method, in order of path and verb."""
    return [_row(m) for m in sorted(methods.methods, key=lambda m: (m.path, m.verb))]


def _row(method: Method) -> dict[str, Any]:
    out: dict[str, Any] = {
        "verb": method.verb,
        "path": method.path,
        "description": method.description,
        "permission": method.permission.describe(),
        "params": [_param(p) for p in method.params],
        "returns": method.returns,
    }
    if isinstance(method.permission, World):
        out["anonymous"] = True
    for flag in ("upload", "websocket"):
        if getattr(method, flag):
            out[flag] = True
    return out


def _param(param: Param) -> dict[str, Any]:
    out: dict[str, Any] = {"name": param.name, "type": param.type, "description": param.description}
    for key in (
        "required", "default", "minimum", "maximum", "min_length", "max_length", "pattern", "enum", "requires", "count",
        "secret",
    ):  # fmt: skip
        value = getattr(param, key)
        if value not in (None, False, ()):
            out[key] = value
    if isinstance(param.format, str):
        out["format"] = param.format
    return out


def text() -> bytes:
    """The file's content: compact, one method a line so that differences can be read."""
    lines = [msgspec.json.encode(row) for row in rows(table())]
    return b"[\n" + b",\n".join(lines) + b"\n]\n"


def path() -> Path:
    """Where it is kept in the source tree."""
    return Path(panal.client.__path__[0]) / "methods.json"


if __name__ == "__main__":
    path().write_bytes(text())
