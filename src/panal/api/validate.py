"""Turns what was sent into what a method declared, or says everything that is wrong with it at once.

Called by `api/dispatch.py`. Messages are those of the Proxmox VE API because clients show and match them (pve-facts §1).
Invariant: a handler never sees a parameter that its method did not declare, nor one of another type (attack row 12).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from panal.api.table import Method, Param
from panal.core import formats
from panal.core.errors import BadParameters
from panal.core.props import PropertyError

MISSING: Final = "property is missing and it is not optional"
UNKNOWN: Final = "property is not defined in schema and the schema does not allow additional properties"
DUPLICATE: Final = "duplicate parameter (already defined in URI with conflicting values)"
_SHOWN_CHARS: Final = 80
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?", re.ASCII)
_INDEXED = re.compile(r"(.*?)(0|[1-9][0-9]{0,4})")
# tabs and line breaks are text; the rest of the control characters never are
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class _Wrong(ValueError):
    """The message for one parameter."""


def find_param(method: Method, name: str) -> Param | None:
    """The declaration of `name`; `net12` finds the indexed `net` when 12 is below its count."""
    if name in method.by_name and not name.endswith("]"):
        return method.by_name[name]
    m = _INDEXED.fullmatch(name)
    param = method.by_name.get(f"{m[1]}[n]") if m else None
    return param if m and param is not None and param.count is not None and int(m[2]) < param.count else None


def validate(
    method: Method, path_values: Mapping[str, str], sent: Mapping[str, Any], *, partial: bool = False
) -> dict[str, Any]:
    """Typed parameters, path ones included. Raises BadParameters with every wrong one.

    `partial`: some are still to come (fields after the file of an upload), so missing ones are no error.
    """
    errors: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, raw in (*path_values.items(), *sent.items()):
        if raw is None or (name in values and raw == path_values.get(name)):
            continue
        param = find_param(method, name)
        if param is None:
            errors[_shown(name)] = UNKNOWN
        elif name in path_values and raw is not path_values[name] and str(raw) != path_values[name]:
            errors[name] = DUPLICATE
        else:
            try:
                values[name] = check(param, raw)
            except _Wrong as exc:
                errors[name] = str(exc)
    for param in method.params:
        if param.required and not partial and param.name not in values and param.name not in errors:
            errors[param.name] = MISSING
        if param.requires and not partial and param.name in values and param.requires not in values:
            errors.setdefault(param.requires, f"missing property required by '{param.name}'")
    if errors:
        raise BadParameters(errors)
    return values


def check(param: Param, raw: Any) -> str | int | float | bool:
    """One value. Raises ValueError with the message for it."""
    if isinstance(raw, list):
        if not (param.type == "string" and isinstance(param.format, str) and param.format.endswith("-list")):
            raise _Wrong(f"type check ('{param.type}') failed - got ARRAY")
        raw = ",".join(_text(item) for item in raw)
    if param.type == "boolean":
        value: str | int | float | bool = _boolean(raw)
    elif param.type == "integer":
        value = _bounded(param, _integer(raw))
    elif param.type == "number":
        value = _bounded(param, _number(raw))
    else:
        value = _string(param, _text(raw))
    if param.enum and _text(raw) not in param.enum:
        raise _Wrong(f"value '{_shown(_text(raw))}' does not have a value in the enumeration '{', '.join(param.enum)}'")
    return value


def _boolean(raw: Any) -> bool:
    if raw in (True, 1, "1") and not isinstance(raw, float):
        return True
    if raw in (False, 0, "0") and not isinstance(raw, float):
        return False
    raise _Wrong(f"type check ('boolean') failed - got '{_shown(_text(raw))}'")


def _integer(raw: Any) -> int:
    text = _text(raw)
    value = int(text) if _INTEGER.fullmatch(text) and not isinstance(raw, bool) else None
    if value is None or abs(value) >= 1 << 63:
        raise _Wrong(f"type check ('integer') failed - got '{_shown(text)}'")
    return value


def _number(raw: Any) -> float:
    text = _text(raw)
    value = float(text) if _NUMBER.fullmatch(text) and not isinstance(raw, bool) else math.nan
    if not math.isfinite(value):
        raise _Wrong(f"type check ('number') failed - got '{_shown(text)}'")
    return value


def _bounded(param: Param, value: int | float) -> int | float:
    if param.minimum is not None and value < param.minimum:
        raise _Wrong(f"value must have a minimum value of {param.minimum:.15g}")
    if param.maximum is not None and value > param.maximum:
        raise _Wrong(f"value must have a maximum value of {param.maximum:.15g}")
    return value


def _string(param: Param, text: str) -> str:
    if _CONTROL.search(text) and not param.secret:
        raise _Wrong("value must not contain control characters")
    if param.min_length is not None and len(text) < param.min_length:
        raise _Wrong(f"value must be at least {param.min_length} characters long")
    if param.max_length is not None and len(text) > param.max_length:
        raise _Wrong(f"value may only be {param.max_length} characters long")
    if param.pattern is not None and not re.fullmatch(param.pattern, text):
        raise _Wrong("value does not match the regex pattern")
    if isinstance(param.format, str):
        try:
            formats.check(param.format, text)
        except ValueError as exc:
            raise _Wrong(f"invalid format - {exc}") from None
    elif param.format is not None:
        try:
            param.format.parse(text)
        except PropertyError as exc:
            raise _Wrong(f"invalid format - format error: {exc}") from None
    return text


def _text(raw: Any) -> str:
    if isinstance(raw, bool):
        return "1" if raw else "0"
    if isinstance(raw, float) and raw.is_integer() and abs(raw) < 1 << 53:
        return str(int(raw))
    return str(raw)


def _shown(text: str) -> str:
    """What may stand in an error: short, printable."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= _SHOWN_CHARS else clean[:_SHOWN_CHARS] + "…"
