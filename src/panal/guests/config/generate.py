"""What is made once and stored: network addresses, UUID, generation ID, boot order. Pure: randomness is injected.

Called by create and clone (`identity`, `fresh_macs`) and by `change.py` for a network card without an address.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from panal.core.errors import Failed
from panal.guests.config.drives import BUSES, read_drives
from panal.guests.config.hardware import SMBIOS_SCHEMA
from panal.guests.config.nics import format_nic, read_nics

Random = Callable[[int], bytes]
"""`os.urandom`, or a test's"""

MAC_PREFIX: Final = "BC:24:11"
_ATTEMPTS: Final = 100


def new_mac(random: Random, prefix: str = MAC_PREFIX, taken: Collection[str] = ()) -> str:
    """A unicast address under the datacenter's prefix (`mac_prefix`, 1 to 3 bytes of hexadecimal) that is not taken."""
    first = [f"{int(part, 16):02X}" for part in (prefix or MAC_PREFIX).rstrip(":").split(":")]
    for _ in range(_ATTEMPTS):
        mac = ":".join([*first, *(f"{b:02X}" for b in random(6 - len(first)))])
        if mac not in taken:
            return mac
    raise Failed(f"no free network address under {prefix}; choose another mac_prefix in the datacenter's options")


def with_boot(config: Mapping[str, str]) -> dict[str, str]:
    """The configuration with a boot order, if it has none: the first disk, the first CD drive, the first network card."""
    if "boot" in config:
        return dict(config)
    drives = [d for d in read_drives(config) if d.bus in BUSES]
    first = [
        *[d.key for d in drives if not d.cdrom][:1],
        *[d.key for d in drives if d.cdrom][:1],
        *[n.key for n in read_nics(config)][:1],
    ]
    return {**config, "boot": f"order={';'.join(first)}"} if first else dict(config)


def new_uuid(random: Random) -> str:
    """A random UUID, lower case."""
    return str(uuid.UUID(bytes=random(16), version=4))


def with_macs(config: Mapping[str, str], random: Random, prefix: str = MAC_PREFIX) -> dict[str, str]:
    """The configuration with an address for every network card that has none."""
    return _macs(config, random, prefix, fresh=False)


def fresh_macs(config: Mapping[str, str], random: Random, prefix: str = MAC_PREFIX) -> dict[str, str]:
    """The configuration with new addresses for all network cards: for clones."""
    return _macs(config, random, prefix, fresh=True)


def _macs(config: Mapping[str, str], random: Random, prefix: str, *, fresh: bool) -> dict[str, str]:
    out = dict(config)
    taken = {nic.mac for nic in read_nics(config) if nic.mac is not None}
    for nic in read_nics(config):
        if fresh or nic.mac is None:
            mac = new_mac(random, prefix, taken)
            taken.add(mac)
            out[nic.key] = format_nic(replace(nic, mac=mac))
    return out


def identity(config: Mapping[str, str], random: Random) -> dict[str, str]:
    """The configuration with a UUID in smbios1, if it has none, and a generation ID, unless it is switched off (0)."""
    out = dict(config)
    values = SMBIOS_SCHEMA.parse(out.get("smbios1", ""))
    if "uuid" not in values:
        text = f"uuid={new_uuid(random)}"
        out["smbios1"] = f"{out['smbios1']},{text}" if out.get("smbios1") else text
    if out.get("vmgenid", "1") == "1":
        out["vmgenid"] = new_uuid(random)
    return out


def fresh_identity(config: Mapping[str, str], random: Random) -> dict[str, str]:
    """The configuration of a clone: another UUID, another generation ID, other network addresses come from `fresh_macs`."""
    out = dict(config)
    parts = [p for p in out.get("smbios1", "").split(",") if p and not p.strip().startswith("uuid=")]
    out["smbios1"] = ",".join([*parts, f"uuid={new_uuid(random)}"])
    if out.get("vmgenid") != "0":
        out["vmgenid"] = new_uuid(random)
    return out
