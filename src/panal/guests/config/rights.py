"""Who may change what: the privileges that a wish needs. Pure; the caller's rights are asked elsewhere (api/qemu_config.py).

The one place that knows, for every route that sets a key: create, configure, clone, restore (attack row 13).
Source: behaviour of the Proxmox VE API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from panal.guests.config.drives import Drive, drive_bus, parse_drive, volume_owner
from panal.guests.config.hardware import HOSTPCI_SCHEMA, RNG_SCHEMA, USB_SCHEMA, VIRTIOFS_SCHEMA
from panal.guests.config.keys import find
from panal.guests.config.nics import parse_nic
from panal.guests.config.wish import Wish

CDROM: Final = "VM.Config.CDROM"
DISK: Final = "VM.Config.Disk"


@dataclass(frozen=True, slots=True)
class Need:
    """One thing the caller must have: privileges on a path (all, or any), or be root@pam (then `why` is the message).

    `or_path`: the same privileges there do as well (the pool a new guest goes into).
    """

    path: str
    privileges: tuple[str, ...]
    any_of: bool = False
    root: bool = False
    why: str = ""
    or_path: str = ""


def needs(
    vmid: int, config: Mapping[str, str], pending: Mapping[str, str | None], wish: Wish, *, pool: str | None = None
) -> list[Need]:
    """What the wish needs, each once, in the order of its keys. `pool`: the one that a guest being made goes into."""
    found: dict[Need, None] = {}
    for name, text in wish.set.items():
        for need in _set_needs(vmid, config, name, text):
            found[need] = None
    for name in (*wish.delete, *wish.revert):
        texts = {config.get(name), pending.get(name)} - {None}
        for need in _key_needs(vmid, name, sorted(t for t in texts if t is not None)):
            found[need] = None
    if wish.skiplock:
        found[_root("skiplock", "Only root may use this option.")] = None
    mine = f"/vms/{vmid}"
    return [replace(n, or_path=f"/pool/{pool}") if pool and n.path == mine else n for n in found]


def _set_needs(vmid: int, config: Mapping[str, str], name: str, text: str) -> list[Need]:
    if drive_bus(name) is None:
        needs_ = _key_needs(vmid, name, [text])
        return needs_ + (_bridge_needs(config, name, text) if name.startswith("net") else [])
    drive = parse_drive(name, text)
    old = parse_drive(name, config[name]) if name in config else None
    found = [_vm(vmid, CDROM if drive.cdrom else DISK)]
    if old is not None and old.cdrom != drive.cdrom:
        found.append(_vm(vmid, CDROM if old.cdrom else DISK))
    known = {d for d in (old.volid if old else None,) if d}
    return found + _volume_needs(vmid, drive, known)


def _volume_needs(vmid: int, drive: Drive, known: set[str]) -> list[Need]:
    if drive.new is not None:
        return [Need(f"/storage/{drive.new.storage}", ("Datastore.AllocateSpace",))]
    if drive.volid is None or drive.volid in known:
        return []
    owner, storage = volume_owner(drive.volid), drive.storage
    if owner == vmid:
        return []
    if owner is None:
        return [Need(f"/storage/{storage}", ("Datastore.AllocateSpace", "Datastore.Audit"), any_of=True)]
    # another guest's disk: the right to manage that storage, and that guest's disks
    return [Need(f"/storage/{storage}", ("Datastore.Allocate",)), Need(f"/vms/{owner}", (DISK,))]


def _bridge_needs(config: Mapping[str, str], name: str, text: str) -> list[Need]:
    nic = parse_nic(name, text)
    old = parse_nic(name, config[name]) if name in config else None
    if nic.bridge is None or (
        old is not None and (old.bridge, old.tag, old.trunks) == (nic.bridge, nic.tag, nic.trunks)
    ):
        return []
    path = f"/sdn/zones/localnetwork/{nic.bridge}"
    # each VLAN the card can reach counts, tagged by the bridge (tag) or by the guest (trunks)
    vlans = {nic.tag} - {None} | {n for first, last in nic.trunks for n in range(first, last + 1)}
    return [Need(f"{path}/{n}", ("SDN.Use",)) for n in sorted(v for v in vlans if v)] or [Need(path, ("SDN.Use",))]


def _key_needs(vmid: int, name: str, texts: list[str]) -> list[Need]:
    """For a key that is no drive, or for deleting any key that now has these values."""
    key = find(name)
    if key is None:
        return []
    if key.root:
        return [_root(name)]
    bus = drive_bus(name)
    if bus is not None:
        kinds = {parse_drive(name, t).cdrom for t in texts} or {False}
        return [_vm(vmid, CDROM if cdrom else DISK) for cdrom in sorted(kinds)]
    found = [Need(f"/vms/{vmid}", key.privileges, any_of=len(key.privileges) > 1)]
    for text in texts:
        found += _device_needs(key.name, name, text)
    return found


def _device_needs(kind: str, name: str, text: str) -> list[Need]:
    if kind == "serial" and text != "socket":
        return [_root(name)]
    if kind == "rng0" and RNG_SCHEMA.parse(text).get("source") == "/dev/hwrng":
        return [_root(name)]
    if kind == "usb":
        values = USB_SCHEMA.parse(text)
        if "mapping" in values:
            return [Need(f"/mapping/usb/{values['mapping']}", ("Mapping.Use",))]
        return [] if str(values.get("host", "")).lower() == "spice" else [_root(name)]
    if kind == "hostpci":
        values = HOSTPCI_SCHEMA.parse(text)
        return [Need(f"/mapping/pci/{values['mapping']}", ("Mapping.Use",))] if "mapping" in values else [_root(name)]
    if kind == "virtiofs":
        return [Need(f"/mapping/dir/{VIRTIOFS_SCHEMA.parse(text)['dirid']}", ("Mapping.Use",))]
    return []


def _vm(vmid: int, privilege: str) -> Need:
    return Need(f"/vms/{vmid}", (privilege,))


def _root(name: str, why: str = "") -> Need:
    return Need("/", (), root=True, why=why or f"only root can set '{name}' config")
