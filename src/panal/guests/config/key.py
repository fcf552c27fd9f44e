"""What is known of one configuration key of a virtual machine, and how a value of it is checked.

The tables (`hardware.py`, `drives.py`, `nics.py`, `cloudinit.py`, `options.py`) hold one `Key` a key, `keys.py` joins them.
`api/qemu_params.py` makes the parameters of create and configure from them, `change.py` checks with `Key.canonical`, and
docs/reference/vm-keys.md is generated from them.

Invariant: what `canonical` returns holds no control character (line breaks in `description` apart), so that no value can
smuggle a second key, line or argument into anything that reads it later (attack row 8).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from panal.core import formats
from panal.core.errors import BadInput
from panal.core.props import PropertyError, Schema, number_text

Status = Literal["done", "stored", "refused", "ignored"]
"""done: QEMU gets it at start, or Panal acts on it; stored: kept and shown, without effect yet; refused: kept and shown, but
the guest does not start until it is removed; ignored: obsolete"""

KeyType = Literal["string", "integer", "number", "boolean"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

CPU: Final = "VM.Config.CPU"
MEMORY: Final = "VM.Config.Memory"
NETWORK: Final = "VM.Config.Network"
DISK: Final = "VM.Config.Disk"
CDROM: Final = "VM.Config.CDROM"
HWTYPE: Final = "VM.Config.HWType"
OPTIONS: Final = "VM.Config.Options"
CLOUDINIT: Final = "VM.Config.Cloudinit"
POWER: Final = "VM.PowerMgmt"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `count` makes it indexed (`net` with 32: net0 … net31). `privileges`: any of them allows a change.

    `live`: a change holds at once for a running guest too, because QEMU does not need to know. `root`: root@pam alone.
    `check` and `tidy` see the value after type, enumeration, bounds and schema: `check` raises ValueError with a sentence,
    `tidy` returns the text to store.
    """

    name: str
    type: KeyType
    text: str
    privileges: tuple[str, ...]
    count: int | None = None
    enum: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    schema: Schema | None = None
    format: str | None = None
    pattern: str | None = None
    default: str | int | float | bool | None = None
    status: Status = "done"
    note: str = ""
    live: bool = False
    root: bool = False
    secret: bool = False
    lines: bool = False
    check: Callable[[str], object] | None = None
    tidy: Callable[[str], str] | None = None

    @property
    def shown(self) -> str:
        """Name for people: `net[n]`."""
        return f"{self.name}[n]" if self.count else self.name

    def names(self) -> tuple[str, ...]:
        """Every name it takes in a configuration."""
        return tuple(f"{self.name}{n}" for n in range(self.count)) if self.count else (self.name,)

    def canonical(self, name: str, value: object) -> str:
        """The text to store for a value from the wire (str, int, float, bool). BadInput naming `name`."""
        try:
            text = self._scalar(value)
            if (_CONTROL_BUT_LINES if self.lines else _CONTROL).search(text):
                raise ValueError("value must not contain control characters or line breaks")
            self._bounds(text)
            if self.schema is not None:
                self.schema.parse(text)
            if self.format is not None:
                formats.check(self.format, text)
            if self.check is not None:
                self.check(text)
            return text if self.tidy is None else self.tidy(text)
        except PropertyError as exc:
            raise BadInput(name, f"invalid format - {exc}") from None
        except ValueError as exc:
            raise BadInput(name, str(exc)) from None

    def _scalar(self, value: object) -> str:
        text = ("1" if value else "0") if isinstance(value, bool) else str(value)
        if self.type == "boolean":
            if text not in ("0", "1"):
                raise ValueError(f"type check ('boolean') failed - got '{text}'")
        elif self.type == "integer":
            if not re.fullmatch(r"[+-]?\d{1,18}", text):
                raise ValueError(f"type check ('integer') failed - got '{text}'")
            text = str(int(text))
        elif self.type == "number":
            # float() itself would take blanks, line breaks, "nan" and "1_0"
            if not re.fullmatch(r"[+-]?(\d{1,18}(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", text):
                raise ValueError(f"type check ('number') failed - got '{text}'")
            number = float(text)
            if not math.isfinite(number):
                raise ValueError(f"type check ('number') failed - got '{text}'")
            text = number_text(number)
        return text

    def _bounds(self, text: str) -> None:
        if self.enum and text not in self.enum:
            raise ValueError(f"value '{text}' does not have a value in the enumeration '{', '.join(self.enum)}'")
        if self.type in ("integer", "number"):
            if self.minimum is not None and float(text) < self.minimum:
                raise ValueError(f"value must have a minimum value of {self.minimum:g}")
            if self.maximum is not None and float(text) > self.maximum:
                raise ValueError(f"value must have a maximum value of {self.maximum:g}")
        if self.max_length is not None and len(text) > self.max_length:
            raise ValueError(f"value may only be {self.max_length} characters long")
        if self.pattern is not None and not re.fullmatch(self.pattern, text):
            raise ValueError("value does not match the regex pattern")


def sub_patterns(schema: Schema, **patterns: str) -> Callable[[str], None]:
    """A check that sub-keys of a property string match patterns; `-` in a sub-key is written `__`."""
    compiled = {name.replace("__", "-"): re.compile(p) for name, p in patterns.items()}

    def check(text: str) -> None:
        for name, value in schema.parse(text).items():
            pattern = compiled.get(name)
            if pattern is not None and not pattern.fullmatch(str(value)):
                raise PropertyError("value does not match the regex pattern", name)

    return check
