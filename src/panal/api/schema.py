"""The notation of `returns=`: read, checked against real answers, shown as JSON Schema.

    null                      string=a|b                 [integer]
    {vmid:integer name?:string lock?:string=backup|clone}          ? = may be missing
    [{subdir:string}]         [{}]  {}                   {} = an object with anything in it

The notation says what an answer holds at least: objects may have more keys (a real PVE answers more than its schema says,
too). `boolean` is 0 or 1 on the wire. Used by `api/openapi.py`, the packaged method table, and `tests/api` for each answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9_./+-]+(?:\[n\])?")
_ATOM = re.compile(r"[a-z]+")
_ENUM = re.compile(r"=([^\s\]}]*)")
ATOMS = frozenset({"string", "integer", "number", "boolean", "null", "any", "object", "array"})


@dataclass(frozen=True, slots=True)
class Shape:
    """One type. `kind` is an atom, "object" (with `fields`) or "list" (with `item`)."""

    kind: str
    enum: tuple[str, ...] = ()
    fields: dict[str, tuple[bool, Shape]] = field(default_factory=dict)
    """name → (required, shape)"""
    item: Shape | None = None


@cache
def parse(notation: str) -> Shape:
    """Text → shape. ValueError for a mistake in the notation."""
    shape, rest = _type(notation.strip())
    if rest.strip():
        raise ValueError(f"returns notation: {rest!r} is left over")
    return shape


def _type(text: str) -> tuple[Shape, str]:
    if text.startswith("{"):
        return _object(text[1:])
    if text.startswith("["):
        inner = text[1:].lstrip()
        if inner.startswith("]"):
            return Shape("list", item=Shape("any")), inner[1:]
        item, rest = _type(inner)
        rest = rest.lstrip()
        if not rest.startswith("]"):
            raise ValueError(f"returns notation: ] expected at {rest[:20]!r}")
        return Shape("list", item=item), rest[1:]
    if not text or text[0] in "] }":  # the facts do not say: anything
        return Shape("any"), text
    m = _ATOM.match(text)
    if m is None or m[0] not in ATOMS:
        raise ValueError(f"returns notation: no type at {text[:20]!r}")
    kind = {"array": "list"}.get(m[0], m[0])
    rest = text[m.end() :]
    e = _ENUM.match(rest)
    if e is not None:
        return Shape(kind, tuple(e[1].split("|"))), rest[e.end() :]
    return Shape(kind, item=Shape("any") if kind == "list" else None), rest


def _object(text: str) -> tuple[Shape, str]:
    fields: dict[str, tuple[bool, Shape]] = {}
    while True:
        text = text.lstrip().removeprefix("..")
        if text.startswith("}"):
            return Shape("object", fields=fields), text[1:]
        m = _NAME.match(text)
        if m is None:
            raise ValueError(f"returns notation: no field name at {text[:20]!r}")
        rest = text[m.end() :]
        optional = rest.startswith("?")
        rest = rest.removeprefix("?")
        if not rest.startswith(":"):
            raise ValueError(f"returns notation: : expected after {m[0]}")
        shape, text = _type(rest[1:])
        fields[m[0]] = (not optional, shape)


def problems(shape: Shape, value: Any, where: str = "data") -> Iterator[str]:
    """What of a decoded answer does not fit; nothing when all does."""
    if shape.kind == "any":
        return
    if shape.kind == "object":
        yield from _object_problems(shape, value, where)
    elif shape.kind == "list":
        if not isinstance(value, list):
            yield f"{where}: a list was declared, got {value!r:.60}"
            return
        for number, item in enumerate(value):
            yield from problems(shape.item or Shape("any"), item, f"{where}[{number}]")
    elif not _fits(shape.kind, value):
        yield f"{where}: {shape.kind} was declared, got {value!r:.60}"
    elif shape.enum and str(value) not in shape.enum:
        yield f"{where}: {value!r} is none of {', '.join(shape.enum)}"


def _object_problems(shape: Shape, value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: an object was declared, got {value!r:.60}"
        return
    for name, (required, inner) in shape.fields.items():
        found = _values(value, name)
        if required and not found:
            yield f"{where}.{name}: missing"
        for key, item in found.items():
            yield from problems(inner, item, f"{where}.{key}")


def _values(value: dict[str, Any], name: str) -> dict[str, Any]:
    if not name.endswith("[n]"):
        return {name: value[name]} if name in value else {}
    indexed = re.compile(re.escape(name[:-3]) + r"\d+")
    return {k: v for k, v in value.items() if indexed.fullmatch(k)}


def _fits(kind: str, value: Any) -> bool:
    match kind:
        case "null":
            return value is None
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, int) and value in (0, 1)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
    return False


def json_schema(shape: Shape) -> dict[str, Any]:
    """The shape as JSON Schema, for OpenAPI."""
    if shape.kind == "any":
        return {}
    if shape.kind == "object":
        out: dict[str, Any] = {"type": "object"}
        if shape.fields:
            plain = {k: v for k, v in shape.fields.items() if not k.endswith("[n]")}
            indexed = {k[:-3]: v for k, v in shape.fields.items() if k.endswith("[n]")}
            out["properties"] = {k: json_schema(s) for k, (_, s) in plain.items()}
            if indexed:
                out["patternProperties"] = {f"^{k}\\d+$": json_schema(s) for k, (_, s) in indexed.items()}
            required = sorted(k for k, (needed, _) in plain.items() if needed)
            if required:
                out["required"] = required
        return out
    if shape.kind == "list":
        return {"type": "array", "items": json_schema(shape.item or Shape("any"))}
    if shape.kind == "boolean":
        return {"type": "integer", "enum": [0, 1]}
    out = {"type": shape.kind}
    if shape.enum:
        out["enum"] = [int(e) for e in shape.enum] if shape.kind == "integer" else list(shape.enum)
    return out
