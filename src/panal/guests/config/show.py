"""A configuration on the wire: GET config and GET pending. Pure.

Types as declared (`memory` is a string: clients depend on it); defaults are not shown; secrets never are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from panal.guests.config.change import Pending, digest
from panal.guests.config.keys import find

# as many stars as clients of PVE look for
HIDDEN: Final = "**********"
_INTEGERS: Final = frozenset({"snaptime"})

Wire = str | int | float


def show_value(name: str, text: str) -> Wire:
    """One value with its type on the wire: booleans are 1 and 0."""
    key = find(name)
    if key is not None and key.secret:
        return HIDDEN
    kind = key.type if key is not None else "integer" if name in _INTEGERS else "string"
    try:
        if kind == "boolean":
            return 1 if text == "1" else 0
        if kind == "integer":
            return int(text)
        if kind == "number":
            value = float(text)
            return int(value) if value.is_integer() else value
    except ValueError:
        return text
    return text


def show_config(
    config: Mapping[str, str], pending: Pending, *, current: bool = False, extra: Mapping[str, str] | None = None
) -> dict[str, Wire]:
    """The answer of GET config. By default with what is pending; `current`: as the running guest has it.

    `digest` is always that of the whole record. `extra`: fields that are no keys of the configuration (lock, parent).
    """
    shown = dict(config)
    if not current:
        for name, text in pending.items():
            if text is None:
                shown.pop(name, None)
            else:
                shown[name] = text
    answer = {name: show_value(name, text) for name, text in {**shown, **(extra or {})}.items()}
    answer["digest"] = digest(config, pending)
    return answer


def show_pending(config: Mapping[str, str], pending: Pending) -> list[dict[str, Wire]]:
    """The answer of GET pending: `value` is what holds now, `pending` what will, `delete` 1 when it will be gone.

    Values are strings here, whatever the key's type.
    """
    rows: list[dict[str, Wire]] = []
    for name in sorted({*config, *pending}):
        row: dict[str, Wire] = {"key": name}
        if name in config:
            row["value"] = _text(name, config[name])
        text = pending.get(name)
        if text is not None:
            row["pending"] = _text(name, text)
        elif name in pending:
            row["delete"] = 1
        rows.append(row)
    rows.append({"key": "digest", "value": digest(config, pending)})
    return rows


def _text(name: str, text: str) -> str:
    key = find(name)
    return HIDDEN if key is not None and key.secret else text
