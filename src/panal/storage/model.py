"""Frozen types of storages: configuration, volume ids. No I/O.

A volume id (volid) is `STORAGE:NAME`; what NAME looks like is the driver's affair (`DriverType.parse_name`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from panal.core.errors import BadInput
from panal.core.formats import check, split_list

Option = str | int | float | bool

CONTENTS: Final = ("images", "rootdir", "iso", "vztmpl", "snippets", "backup", "import")


@dataclass(frozen=True, slots=True)
class VolumeName:
    """A volume's name taken apart. `format` is what the wire calls it: raw, qcow2, iso, tzst, vma.zst, snippet…"""

    name: str
    content: str
    format: str
    vmid: int | None = None
    base: bool = False
    """a template's image: read-only for ever"""


@dataclass(frozen=True, slots=True)
class Volid:
    """A volume id taken apart."""

    storage: str
    name: str
    content: str
    format: str
    vmid: int | None = None
    base: bool = False

    def __str__(self) -> str:
        return f"{self.storage}:{self.name}"


def split_volid(text: str, field_name: str = "volume") -> tuple[str, str]:
    """`local:iso/a.iso` → (`local`, `iso/a.iso`); BadInput on `field_name`. Whether the storage exists is not asked."""
    storage, colon, name = text.partition(":")
    try:
        check("pve-storage-id", storage)
    except ValueError:
        colon = ""
    if not colon or not name or len(text) > 1024 or any(ord(c) < 32 or ord(c) == 127 or c == "," for c in name):
        raise BadInput(field_name, f"unable to parse volume ID '{text[:100]}'; it looks like STORAGE:NAME")
    return storage, name


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """One storage as configured; `options` has the API's names and Python's types, without `storage` and `type`."""

    id: str
    type: str
    options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def contents(self) -> frozenset[str]:
        """What it may hold; empty for `none`."""
        return frozenset(split_list(str(self.options.get("content", "")))) - {"none"}

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes it is used on; empty: on all."""
        return frozenset(split_list(str(self.options.get("nodes", ""))))

    @property
    def disabled(self) -> bool:
        """Switched off by a person."""
        return bool(self.options.get("disable", False))

    @property
    def shared(self) -> bool:
        """All nodes see the same content."""
        return bool(self.options.get("shared", False))

    def used_on(self, node: str) -> bool:
        """Whether this node is to use it."""
        return not self.disabled and (not self.nodes or node in self.nodes)

    @property
    def digest(self) -> str:
        """Changes with every change of the configuration."""
        data = msgspec.json.encode([self.id, self.type, dict(sorted(self.options.items()))])
        return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Status:
    """A storage on this node as the API shows it. Bytes; zeros while it is not active."""

    config: StorageConfig
    enabled: bool
    active: bool
    total: int = 0
    used: int = 0
    available: int = 0
