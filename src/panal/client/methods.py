"""The packaged method table: what the command line's commands, help and completion are made of.

`methods.json` is written by `python -m panal.api.export` and checked by a test, so this never differs from the API.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

Row = dict[str, Any]


@cache
def load() -> dict[tuple[str, str], Row]:
    """(verb, path) → row: `description`, `params` (name, type, description, required, enum, …), `returns`."""
    text = resources.files("panal.client").joinpath("methods.json").read_text(encoding="utf-8")
    return {(row["verb"], row["path"]): row for row in json.loads(text)}
