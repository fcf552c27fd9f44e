"""What a wish does to a configuration. Pure: the same function decides for the check, the store's retry, and the tests.

    stopped guest: pending changes are applied first, then the wish, at once
    running guest: keys that QEMU does not know (`live`) change at once, all others become `pending` until the next start

A volume that loses its drive becomes `unusedN`; deleting `unusedN` (or a drive, with `force`) frees it. Called by
`guests/configure.py`, create, start (`apply_pending`).

Invariant: no volume of the guest is forgotten: before and after a change, the volumes named by configuration and pending
changes are the same, plus new ones, minus exactly `Change.free`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from panal.core.errors import BadInput, Conflict
from panal.guests.config.drives import UNUSED_COUNT, Drive, drive_bus, is_drive, parse_drive, read_drives, volume_owner
from panal.guests.config.keys import find
from panal.guests.config.options import BOOT_SCHEMA
from panal.guests.config.read import memory_mib
from panal.guests.config.wish import Wish

Pending = Mapping[str, str | None]

DIGEST_MISMATCH: Final = "detected modified configuration - file changed by other user? Try again."


@dataclass(frozen=True, slots=True)
class State:
    """A configuration record as far as changes go. `held`: volumes that snapshots need, with the snapshot's name."""

    vmid: int
    config: Mapping[str, str]
    pending: Pending
    lock: str | None = None
    running: bool = False
    held: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What to store, and volumes to remove once it is stored."""

    config: dict[str, str]
    pending: dict[str, str | None]
    lock: str | None
    free: tuple[str, ...] = ()


def digest(config: Mapping[str, str], pending: Pending) -> str:
    """40 hex digits that change with every change of the configuration or of what is pending."""
    lines = [f"{k}: {json.dumps(v)}" for k, v in sorted(config.items())]
    lines += ["[PENDING]", *(f"{k}: {json.dumps(v)}" for k, v in sorted(pending.items()))]
    return hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()


def check_digest(wish_digest: str | None, config: Mapping[str, str], pending: Pending) -> None:
    """Conflict, with the sentence clients of PVE look for, when the caller saw another configuration."""
    if wish_digest is not None and wish_digest.lower() != digest(config, pending):
        raise Conflict(DIGEST_MISMATCH)


def check_lock(lock: str | None, *, skiplock: bool = False) -> None:
    """Conflict while another operation holds the guest."""
    if lock is not None and not skiplock:
        raise Conflict(f"VM is locked ({lock})", lock=lock)


def plan_change(state: State, wish: Wish) -> Change:
    """The change that fulfils `wish`, whose drives name existing volumes only. BadInput, Conflict; changes nothing."""
    check_digest(wish.digest, state.config, state.pending)
    check_lock(state.lock, skiplock=wish.skiplock)
    _check_wish(state, wish)
    draft = _Draft(state)
    for name in wish.revert:
        draft.revert(name)
    if not state.running:
        draft.settle()
    for name in wish.delete:
        draft.delete(name, force=wish.force)
    for name, text in wish.set.items():
        draft.set(name, text)
    draft.check_references(wish)
    return Change(draft.config, draft.pending, draft.lock, tuple(draft.free))


def apply_pending(vmid: int, config: Mapping[str, str], pending: Pending) -> dict[str, str]:
    """The configuration of the next start: what is pending has happened, displaced volumes are `unusedN`."""
    draft = _Draft(State(vmid, config, pending))
    draft.settle()
    return draft.config


def volumes(config: Mapping[str, str], pending: Pending) -> set[str]:
    """All volumes that a record names (CD images and foreign volumes too)."""
    return {d.volid for part in (config, _set_only(pending)) for d in read_drives(part, unused=True) if d.volid}


def _set_only(pending: Pending) -> dict[str, str]:
    return {k: v for k, v in pending.items() if v is not None}


class _Draft:
    """A record being changed."""

    def __init__(self, state: State) -> None:
        self.vmid = state.vmid
        self.running = state.running
        self.held = state.held or {}
        self.config = dict(state.config)
        self.pending = dict(state.pending)
        self.lock = state.lock
        self.free: list[str] = []

    def settle(self) -> None:
        pending, self.pending = self.pending, {}
        for name, text in pending.items():
            if text is None:
                self._put(name, None)
            else:
                self._put(name, text)
                self._attached(name, text)
        for name, text in pending.items():
            if text is not None and is_drive(name):
                self._attached(name, text)

    def revert(self, name: str) -> None:
        self._put_pending(name, None, drop=True)

    def delete(self, name: str, *, force: bool) -> None:
        if name == "lock":
            self.lock = None
            return
        if drive_bus(name) == "unused" or not self._waits(name):
            self._put_pending(name, None, drop=True)
            before = self._drive(self.config, name)
            self._put(name, None)
            if before is not None and (force or before.bus == "unused"):
                self._remove(name, before)
        elif name in self.config:
            if force and is_drive(name) and self._drive(self.config, name):
                raise BadInput("force", f"{name} belongs to a running guest: stop it first, or delete without force")
            self._put_pending(name, None)
        else:
            self._put_pending(name, None, drop=True)

    def set(self, name: str, text: str) -> None:
        if name == "lock":
            self.lock = text
            return
        if not self._waits(name):
            self._put_pending(name, None, drop=True)
            self._put(name, text)
        elif self.config.get(name) == text:
            self._put_pending(name, None, drop=True)
        else:
            self._put_pending(name, text)
        self._attached(name, text)

    def _waits(self, name: str) -> bool:
        key = find(name)
        return self.running and not (key is not None and key.live)

    def _put(self, name: str, text: str | None) -> None:
        old = self._drive(self.config, name)
        if text is None:
            self.config.pop(name, None)
        else:
            self.config[name] = text
        if old is not None and (drive_bus(name) != "unused" or text is not None):
            self._keep(old)

    def _put_pending(self, name: str, text: str | None, *, drop: bool = False) -> None:
        old = self._drive(_set_only(self.pending), name)
        if drop:
            self.pending.pop(name, None)
        else:
            self.pending[name] = text
        if old is not None:
            self._keep(old)

    def _keep(self, drive: Drive) -> None:
        # a volume that nothing names any more gets an `unused` key; CD images and other guests' volumes are not ours to keep
        volid = drive.volid
        if volid is None or drive.cdrom or volume_owner(volid) != self.vmid:
            return
        if volid in volumes(self.config, self.pending):
            return
        slot = next((n for n in range(UNUSED_COUNT) if f"unused{n}" not in self.config), None)
        if slot is None:
            raise Conflict(f"VM {self.vmid} has {UNUSED_COUNT} unused volumes; remove some first")
        self.config[f"unused{slot}"] = volid

    def _attached(self, name: str, text: str) -> None:
        if drive_bus(name) in (None, "unused"):
            return
        volid = parse_drive(name, text).volid
        for key in [k for k in self.config if drive_bus(k) == "unused"]:
            unused = self._drive(self.config, key)
            if unused is not None and volid is not None and unused.volid == volid:
                del self.config[key]

    def _remove(self, name: str, drive: Drive) -> None:
        volid = drive.volid
        if volid is None or drive.cdrom or volume_owner(volid) != self.vmid:
            return
        if volid in self.held:
            raise Conflict(
                f"{name}: volume '{volid}' is part of snapshot '{self.held[volid]}'; delete the snapshot first"
            )
        for key in [k for k in self.config if drive_bus(k) == "unused"]:
            unused = self._drive(self.config, key)
            if unused is not None and unused.volid == volid:
                del self.config[key]
        if volid in volumes(self.config, self.pending):
            raise Conflict(f"{name}: volume '{volid}' is attached to another drive")
        self.free.append(volid)

    @staticmethod
    def _drive(config: Mapping[str, str], name: str) -> Drive | None:
        return parse_drive(name, config[name]) if name in config and drive_bus(name) is not None else None

    def check_references(self, wish: Wish) -> None:
        """What only the whole can tell: boot devices exist, no disk hangs on two drives, the balloon fits."""
        future = self.config if not self.pending else apply_pending(self.vmid, self.config, self.pending)
        if "boot" in wish.set:
            order = str(BOOT_SCHEMA.parse(wish.set["boot"]).get("order", ""))
            for device in filter(None, order.split(";")):
                if device not in future:
                    raise BadInput("boot", f"invalid bootorder: device '{device}' does not exist")
        if ("memory" in wish.set or "balloon" in wish.set) and int(future.get("balloon", "0")) > memory_mib(future):
            raise BadInput("balloon", "balloon value too large (must be smaller than assigned memory)")
        _check_doubles(future, wish.set)


def _check_doubles(config: Mapping[str, str], names: Collection[str]) -> None:
    owners: dict[str, str] = {}
    for drive in read_drives(config):
        if drive.volid is None or drive.cdrom:
            continue
        other = owners.setdefault(drive.volid, drive.key)
        if other != drive.key and (drive.key in names or other in names):
            field = drive.key if drive.key in names else other
            raise BadInput(
                field, f"volume '{drive.volid}' is attached to {other} and {drive.key}; a disk has one drive"
            )


def _check_wish(state: State, wish: Wish) -> None:
    for name, text in wish.set.items():
        if drive_bus(name) is None:
            continue
        drive = parse_drive(name, text)
        if drive.new is not None:
            raise ValueError(f"{name}: volumes are allocated before a change is planned")
        if name.startswith("unused"):
            _check_unused(state, name, drive)
    if wish.set.get("template", "0") != state.config.get("template", "0") and "template" in wish.set:
        raise BadInput("template", "a guest becomes a template by POST …/template, and never a guest again")
    if "template" in wish.delete and state.config.get("template") == "1":
        raise BadInput("delete", "a template cannot become a guest again; clone it")
    if state.config.get("protection") == "1":
        for name in wish.delete:
            if drive_bus(name) is not None and name in state.config:
                raise Conflict(f"can't remove drive '{name}' - protection mode enabled")


def _check_unused(state: State, name: str, drive: Drive) -> None:
    known = {d.volid for d in read_drives(state.config, unused=True)}
    if drive.volid is None or volume_owner(drive.volid) != state.vmid:
        raise BadInput(name, f"volume of {name} must be one of VM {state.vmid}'s own")
    if drive.volid in known and state.config.get(name) != drive.volid:
        raise BadInput(name, f"volume '{drive.volid}' is in the configuration already")
