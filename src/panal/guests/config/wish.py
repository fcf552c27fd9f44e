"""What a caller asks of a configuration, read from request parameters: checked, canonical, nothing else let through.

Called by `api/qemu_config.py` and create. Pure. Invariant: a `Wish` holds names of `keys.py` only, with values that
`Key.canonical` returned (attack rows 8, 12).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from panal.core.errors import BadInput, BadParameters
from panal.core.formats import split_list
from panal.guests.config.drives import format_drive, is_drive, parse_drive
from panal.guests.config.keys import find

UNDEFINED: Final = "property is not defined in schema and the schema does not allow additional properties"
CONTROLS: Final = frozenset(
    {"delete", "revert", "digest", "force", "skiplock", "background_delay", "import-working-storage", "node", "vmid"}
)
"""parameters of the calls that are no keys"""


@dataclass(frozen=True, slots=True)
class Wish:
    """Keys to set (canonical texts; drives may ask for new volumes), to delete, and pending changes to forget.

    `force`: remove the volumes of deleted drives too. `digest`: only if the configuration is still that one.
    """

    set: Mapping[str, str] = field(default_factory=dict)
    delete: tuple[str, ...] = ()
    revert: tuple[str, ...] = ()
    force: bool = False
    digest: str | None = None
    skiplock: bool = False

    @property
    def empty(self) -> bool:
        """Nothing is asked for."""
        return not (self.set or self.delete or self.revert)


def read_wish(params: Mapping[str, object]) -> Wish:
    """Request parameters → Wish. BadParameters naming every wrong field."""
    texts, errors = _canonical_all({k: v for k, v in params.items() if k not in CONTROLS})
    delete = _names(params, "delete", errors)
    revert = _names(params, "revert", errors)
    for name in delete + revert:
        if name in texts:
            errors.setdefault(name, f"cannot be set and be in 'delete' or 'revert' at the same time: '{name}'")
        if name in delete and name in revert:
            errors.setdefault("revert", f"'{name}' cannot be in 'delete' and in 'revert' at the same time")
    if errors:
        raise BadParameters(errors)
    digest = params.get("digest")
    return Wish(
        texts, delete, revert, bool(params.get("force", False)), None if not digest else str(digest),
        bool(params.get("skiplock", False)),
    )  # fmt: skip


def canonical_all(values: Mapping[str, object]) -> dict[str, str]:
    """Keys and raw values → canonical texts. BadParameters naming every wrong field."""
    texts, errors = _canonical_all(values)
    if errors:
        raise BadParameters(errors)
    return texts


def _canonical_all(values: Mapping[str, object]) -> tuple[dict[str, str], dict[str, str]]:
    texts: dict[str, str] = {}
    errors: dict[str, str] = {}
    for name, value in values.items():
        try:
            stored, text = _canonical(name, value)
            if stored in texts:
                raise BadInput(name, f"{name} is another name of {stored}, which is given too")
            texts[stored] = text
        except BadInput as exc:
            errors[name] = exc.message
    return texts, errors


def _canonical(name: str, value: object) -> tuple[str, str]:
    key = find(name)
    if key is None:
        raise BadInput(name, UNDEFINED)
    if name == "cdrom":
        text = str(value)
        if "media=" not in text:
            text += ",media=cdrom"
        drive = parse_drive("ide2", key.canonical(name, text))
        return "ide2", format_drive(drive)
    if is_drive(name) or key.name == "unused":
        key.canonical(name, value)
        return name, format_drive(parse_drive(name, str(value)))
    return name, key.canonical(name, value)


def _names(params: Mapping[str, object], field_name: str, errors: dict[str, str]) -> tuple[str, ...]:
    names = []
    for name in split_list(str(params.get(field_name) or "")):
        stored = "ide2" if name == "cdrom" else name
        if find(stored) is None:
            errors[field_name] = f"unknown option '{name}'"
        elif stored not in names:
            names.append(stored)
    return tuple(names)
