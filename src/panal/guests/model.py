"""The stored records of a guest as frozen types, and their keys. Everybody in `guests/` reads and writes through these.

    guest/<vmid>/config           what it should be, and what it will be after the next start (`pending`)
    guest/<vmid>/snapshot/<name>  what it was
    guest/<vmid>/claim            who may run it (claims.py)
    guest/<vmid>/firewall         its firewall (panal.firewall.model)
    guest/<vmid>/run              what it runs with, or last ran with: `hardware` stays pinned while it is off

`birth` is a random word of the guest's creation: an operation that is rolled forward after a restart does nothing to a guest
that was deleted and made anew under the same number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from panal.cluster.store import Item, Json


def config_key(vmid: int) -> str:
    """Key of the configuration."""
    return f"guest/{vmid}/config"


def claim_key(vmid: int) -> str:
    """Key of the claim."""
    return f"guest/{vmid}/claim"


def run_key(vmid: int) -> str:
    """Key of the run record."""
    return f"guest/{vmid}/run"


def snapshot_prefix(vmid: int) -> str:
    """Prefix of all snapshots."""
    return f"guest/{vmid}/snapshot/"


def snapshot_key(vmid: int, name: str) -> str:
    """Key of one snapshot."""
    return snapshot_prefix(vmid) + name


def reservation_key(vmid: int) -> str:
    """Key of a reserved number (nextid.py)."""
    return f"vmid/{vmid}"


@dataclass(frozen=True, slots=True)
class Guest:
    """The configuration record. `revision` is its last change; `raw` the stored value, for fields that others own."""

    vmid: int
    node: str
    config: Mapping[str, str]
    pending: Mapping[str, str | None]
    revision: int
    lock: str | None = None
    """stored only while the guest is being made or removed (create, clone, destroyed)"""
    parent: str | None = None
    """name of the snapshot that the present state descends from"""
    birth: str = ""
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, vmid: int, item: Item) -> Guest:
        """From the store."""
        v = item.value
        return cls(
            vmid, v["node"], v.get("config", {}), v.get("pending", {}), item.revision,
            v.get("lock"), v.get("parent"), v.get("birth", ""), v,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Its name, or `VM <number>` as PVE shows unnamed ones."""
        return self.config.get("name") or f"VM {self.vmid}"

    @property
    def template(self) -> bool:
        """Whether it is a template: never started, only cloned."""
        return self.config.get("template") == "1"

    @property
    def protected(self) -> bool:
        """Whether it and its disks must not be removed."""
        return self.config.get("protection") == "1"

    def changed(self, **fields: Any) -> Json:
        """The value to store with these fields replaced; None removes one."""
        value = {**self.raw, **fields}
        return {k: v for k, v in value.items() if v is not None}


def new_record(node: str, config: Mapping[str, str], birth: str, lock: str | None = None) -> Json:
    """The value of a new configuration record."""
    value: Json = {"v": 1, "type": "qemu", "node": node, "config": dict(config), "pending": {}, "birth": birth}
    return {**value, "lock": lock} if lock else value


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot record. `snaptime` seconds since the epoch; `vmstate` the volume with the RAM, `hardware` what it ran with.

    `state`: `prepare` while it is being taken, `delete` while it is being removed, None when it is whole.
    """

    vmid: int
    name: str
    config: Mapping[str, str]
    snaptime: int
    revision: int
    description: str | None = None
    parent: str | None = None
    vmstate: str | None = None
    hardware: Mapping[str, str] = field(default_factory=dict)
    state: str | None = None
    birth: str = ""
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, vmid: int, item: Item) -> Snapshot:
        """From the store."""
        v = item.value
        return cls(
            vmid, item.key.rpartition("/")[2], v.get("config", {}), int(v.get("snaptime", 0)), item.revision,
            v.get("description"), v.get("parent"), v.get("vmstate"), v.get("hardware", {}), v.get("state"),
            v.get("birth", ""), v,
        )  # fmt: skip

    def changed(self, **fields: Any) -> Json:
        """The value to store with these fields replaced; None removes one."""
        value = {**self.raw, **fields}
        return {k: v for k, v in value.items() if v is not None}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a guest was last started with."""

    epoch: int
    hardware: Mapping[str, str]
    config: Mapping[str, str]

    def value(self) -> Json:
        """As stored."""
        return {"v": 1, "epoch": self.epoch, "hardware": dict(self.hardware), "config": dict(self.config)}

    @classmethod
    def of(cls, value: Json | None) -> RunRecord:
        """From the store; empty for a guest that never ran."""
        value = value or {}
        return cls(int(value.get("epoch", 0)), value.get("hardware", {}), value.get("config", {}))
