"""Property strings: `virtio0: local:100/vm-100-disk-0.qcow2,size=32G,discard=on`.

A schema is written in a compact notation, one item per key, separated by blanks:

    file:string^*  format:string=raw|qcow2  size:string  volume:alias:file

`^` marks the default key (its name may be left out in the value), `*` a required one, `=a|b` an enumeration,
`[lo..hi]` bounds of a number, `alias:k` another name of `k`. Types: string integer number boolean. An alias can also name
the key whose value the *alias's own name* becomes (`virtio:alias:macaddr` with `keyalias`), see `Schema.shorthand`.

Used by `guests/config` and `api`. Invariant: `parse(format(d)) == d` for every dict that `parse` returns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Value = str | int | float | bool

_ITEM = re.compile(
    r"(?P<name>[A-Za-z0-9_-]+):(?:alias:(?P<alias>[A-Za-z0-9_-]+)"
    r"|(?P<type>string|integer|number|boolean)(?:\[(?P<lo>-?[\d.]*)\.\.(?P<hi>-?[\d.]*)\])?"
    r"(?P<flags>[\^*]*)(?:=(?P<enum>\S+))?)$"
)
_TRUE: Final = {"1", "on", "yes", "true"}
_FALSE: Final = {"0", "off", "no", "false"}
# A value that holds one of these could smuggle in another key or another line (attack row 8).
_FORBIDDEN = re.compile(r"[,\x00-\x1f\x7f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class PropertyError(ValueError):
    """A property string is wrong; `key` is the sub-key, or None for the whole string."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key


@dataclass(frozen=True, slots=True)
class Key:
    """One sub-key."""

    name: str
    type: str
    required: bool = False
    default: bool = False
    enum: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Schema:
    """A parsed notation. `shorthand` maps an alias `X:alias:macaddr` to (`model`, `macaddr`): `X=V` means both."""

    keys: Mapping[str, Key]
    aliases: Mapping[str, str] = field(default_factory=dict)
    shorthand: tuple[str, str] | None = None

    @classmethod
    def of(cls, notation: str, shorthand: tuple[str, str] | None = None) -> Schema:
        """Read the notation above; a mistake in it is a programmer's error (ValueError at import)."""
        keys: dict[str, Key] = {}
        aliases: dict[str, str] = {}
        for item in notation.split():
            m = _ITEM.match(item)
            if m is None:
                raise ValueError(f"bad schema item {item!r}")
            if m["alias"]:
                aliases[m["name"]] = m["alias"]
                continue
            keys[m["name"]] = Key(
                m["name"], m["type"], "*" in m["flags"], "^" in m["flags"],
                tuple(m["enum"].split("|")) if m["enum"] else (),
                float(m["lo"]) if m["lo"] else None, float(m["hi"]) if m["hi"] else None,
            )  # fmt: skip
        return cls(keys, aliases, shorthand)

    @property
    def default_key(self) -> str | None:
        """The key whose name may be left out."""
        return next((k.name for k in self.keys.values() if k.default), None)

    def parse(self, text: str) -> dict[str, Value]:
        """Text → sub-keys with their types. Raises PropertyError naming the sub-key."""
        if _CONTROL.search(text):  # before anything is stripped: the text may be stored as it is
            raise PropertyError("must not contain control characters")
        out: dict[str, Value] = {}
        for part in text.split(","):
            if not part.strip():
                continue
            name, sep, raw = part.strip().partition("=")
            if not sep:
                default = self.default_key
                if default is None:
                    raise PropertyError(f"'{part}' has no key, and this format has no default key")
                name, raw = default, part.strip()
            if name in self.aliases and self.shorthand and self.aliases[name] == self.shorthand[1]:
                self._put(out, self.shorthand[0], name)
                name = self.shorthand[1]
            self._put(out, self.aliases.get(name, name), raw)
        for key in self.keys.values():
            if key.required and key.name not in out:
                raise PropertyError("property is missing and it is not optional", key.name)
        return out

    def _put(self, out: dict[str, Value], name: str, raw: str) -> None:
        key = self.keys.get(name)
        if key is None:
            raise PropertyError(
                "property is not defined in schema and the schema does not allow additional properties", name
            )
        if name in out:
            raise PropertyError("given twice", name)
        out[name] = _convert(key, raw)

    def format(self, values: Mapping[str, Value]) -> str:
        """Sub-keys → text, default key first and bare, the rest in alphabetical order."""
        default = self.default_key
        parts = []
        for name in sorted(values, key=lambda n: (n != default, n)):
            text = _text(values[name])
            if _FORBIDDEN.search(text):
                raise PropertyError("must not contain commas or control characters", name)
            parts.append(text if name == default else f"{name}={text}")
        return ",".join(parts)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return number_text(value) if isinstance(value, float) else str(value)


def number_text(number: float) -> str:
    """Shortest text of a number (`10`, not `10.0`): it reads back as the same number."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _convert(key: Key, raw: str) -> Value:
    if _FORBIDDEN.search(raw):
        raise PropertyError("must not contain control characters", key.name)
    value: Value = raw
    if key.type == "boolean":
        low = raw.lower()
        if low not in _TRUE | _FALSE:
            raise PropertyError(f"type check ('boolean') failed - got '{raw}'", key.name)
        value = low in _TRUE
    elif key.type in ("integer", "number"):
        try:
            value = int(raw) if key.type == "integer" else float(raw)
        except ValueError:
            raise PropertyError(f"type check ('{key.type}') failed - got '{raw}'", key.name) from None
        if not math.isfinite(value):
            raise PropertyError(f"type check ('{key.type}') failed - got '{raw}'", key.name)
        if key.minimum is not None and value < key.minimum:
            raise PropertyError(f"value must have a minimum value of {key.minimum:g}", key.name)
        if key.maximum is not None and value > key.maximum:
            raise PropertyError(f"value must have a maximum value of {key.maximum:g}", key.name)
    if key.enum and raw not in key.enum:
        raise PropertyError(f"value '{raw}' does not have a value in the enumeration '{', '.join(key.enum)}'", key.name)
    return value
