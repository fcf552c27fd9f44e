"""Network keys and their typed form: `net0: virtio=BC:24:11:00:00:01,bridge=vmbr0` ↔ `Nic`. Pure.

Called by `change.py` (a missing address is made there, once, and stored), by drivers and by the network's bookkeeping.
Invariant: `parse_nic(key, format_nic(nic)) == nic`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from panal.core import formats
from panal.core.errors import BadInput
from panal.core.props import PropertyError, Schema, Value, number_text
from panal.guests.config.key import NETWORK, Key

NIC_COUNT: Final = 32
MODELS: Final = (
    "e1000", "e1000-82540em", "e1000-82544gc", "e1000-82545em", "e1000e", "i82551", "i82557b", "i82559er", "ne2k_isa",
    "ne2k_pci", "pcnet", "rtl8139", "virtio", "vmxnet3",
)  # fmt: skip
NIC_SCHEMA: Final = Schema.of(
    f"model:string^*={'|'.join(MODELS)} macaddr:string bridge:string firewall:boolean link_down:boolean "
    "mtu:integer[1..65520] queues:integer[0..64] rate:number[0..] tag:integer[1..4094] trunks:string "
    + " ".join(f"{model}:alias:macaddr" for model in MODELS),
    shorthand=("model", "macaddr"),
)
_TRUNKS: Final = r"\d{1,4}(-\d{1,4})?(;\d{1,4}(-\d{1,4})?)*"
_BRIDGE: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}"
VLAN_MAX: Final = 4094


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card. Without `bridge` it has user-mode networking. `rate` in MB/s; `mtu` 1 means the bridge's.

    `trunks` are the VLANs let through, as ranges (first, last).
    """

    key: str
    index: int
    model: str
    mac: str | None = None
    bridge: str | None = None
    tag: int | None = None
    firewall: bool = False
    link_down: bool = False
    rate: float | None = None
    queues: int | None = None
    mtu: int | None = None
    trunks: tuple[tuple[int, int], ...] = ()


def nic_index(key: str) -> int | None:
    """Number of a network card's key, or None."""
    m = re.fullmatch(r"net(0|[1-9]\d?)", key)
    return int(m[1]) if m and int(m[1]) < NIC_COUNT else None


def parse_nic(key: str, text: str) -> Nic:
    """Text → Nic. BadInput naming the key."""
    index = nic_index(key)
    if index is None:
        raise BadInput(key, f"{key} is not the name of a network card")
    try:
        values = NIC_SCHEMA.parse(text)
        mac, bridge = _text(values, "macaddr"), _text(values, "bridge")
        if mac is not None:
            formats.check("mac-addr", mac)
        if bridge is not None and not re.fullmatch(_BRIDGE, bridge):
            raise PropertyError("value does not look like the name of a bridge", "bridge")
        rate = values.get("rate")
        return Nic(
            key, index, str(values["model"]), None if mac is None else mac.upper(), bridge, _number(values, "tag"),
            bool(values.get("firewall", False)), bool(values.get("link_down", False)),
            None if rate is None else float(rate), _number(values, "queues"), _number(values, "mtu"),
            _trunks(_text(values, "trunks")),
        )  # fmt: skip
    except PropertyError as exc:
        raise BadInput(key, f"invalid format - {exc}") from None
    except ValueError as exc:
        raise BadInput(key, f"invalid format - macaddr: {exc}") from None


def format_nic(nic: Nic) -> str:
    """Nic → text as stored and shown: `MODEL=MAC` first, the rest by name."""
    parts = {
        "bridge": nic.bridge,
        "firewall": "1" if nic.firewall else None,
        "link_down": "1" if nic.link_down else None,
        "mtu": nic.mtu,
        "queues": nic.queues,
        "rate": None if nic.rate is None else number_text(nic.rate),
        "tag": nic.tag,
        "trunks": ";".join(str(a) if a == b else f"{a}-{b}" for a, b in nic.trunks) or None,
    }
    first = nic.model if nic.mac is None else f"{nic.model}={nic.mac}"
    return ",".join([first, *(f"{name}={value}" for name, value in parts.items() if value is not None)])


def read_nics(config: Mapping[str, str]) -> list[Nic]:
    """All network cards of a configuration, by number."""
    return sorted((parse_nic(k, v) for k, v in config.items() if nic_index(k) is not None), key=lambda n: n.index)


def _text(values: Mapping[str, Value], name: str) -> str | None:
    return str(values[name]) if name in values else None


def _number(values: Mapping[str, Value], name: str) -> int | None:
    return int(values[name]) if name in values else None


def _trunks(text: str | None) -> tuple[tuple[int, int], ...]:
    if text is None:
        return ()
    if not re.fullmatch(_TRUNKS, text):
        raise PropertyError("value does not look like VLAN numbers: 2;5;10-20", "trunks")
    ranges = []
    for part in text.split(";"):
        first, _, last = part.partition("-")
        ranges.append((int(first), int(last or first)))
    if any(not 1 <= a <= b <= VLAN_MAX for a, b in ranges):
        raise PropertyError(f"VLAN numbers go from 1 to {VLAN_MAX}", "trunks")
    return tuple(ranges)


NIC_KEYS: Final = (
    Key("net", "string", "Network card: MODEL[=MAC],bridge=BRIDGE. A missing address is made.", (NETWORK,), count=NIC_COUNT,
        schema=NIC_SCHEMA, tidy=lambda text: format_nic(parse_nic("net0", text)),),
)  # fmt: skip
