"""Network interfaces of this node: what /etc/network/interfaces says and what the kernel has, in one list.

Called by `api/node_network.py`. Reads only. An interface stands in the list when the file names it, or when it is physical;
what guests bring (taps and the like) does not.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

Row = dict[str, Any]
MAX_INCLUDES: Final = 100
_FAMILIES: Final = ("inet", "inet6")
_PHYSICAL = re.compile(r"(eth\d+|en[a-z0-9]+|ib[a-z0-9]+|wl[a-z0-9]+)")
_VLAN = re.compile(r"(?P<raw>\S+)\.(?P<id>\d{1,4})|vlan(?P<number>\d{1,4})")
# options of the file that have a field of their own: file name → API name
_NAMED: Final[Mapping[str, str]] = {
    "bridge-ports": "bridge_ports",
    "bridge-vids": "bridge_vids",
    "bond-slaves": "slaves",
    "slaves": "slaves",
    "bond-mode": "bond_mode",
    "bond-primary": "bond-primary",
    "bond-xmit-hash-policy": "bond_xmit_hash_policy",
    "vlan-raw-device": "vlan-raw-device",
    "ovs_bridge": "ovs_bridge",
    "ovs_ports": "ovs_ports",
    "ovs_bonds": "ovs_bonds",
    "ovs_options": "ovs_options",
}
_BOND_MODES: Final = (
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
)


@dataclass(frozen=True, slots=True)
class Link:
    """An interface that the kernel has. `kind` as rtnetlink says (bridge, bond, vlan, tun…); empty for a device."""

    name: str
    up: bool
    kind: str = ""
    mtu: int = 1500
    ports: tuple[str, ...] = ()
    lower: str | None = None
    vlan: int | None = None
    addresses: tuple[str, ...] = ()


@dataclass(slots=True)
class Network:
    """This node's network. `links` is blocking and is replaced in tests."""

    root: Path = Path("/")
    links: Callable[[], Sequence[Link]] = field(default_factory=lambda: kernel_links)

    async def list(self) -> Sequence[Row]:
        """All interfaces, in the order of the file, then physical ones."""
        return await asyncio.to_thread(self._list)

    def _list(self) -> Sequence[Row]:
        return merge(parse(read_file(self.root)), self.links())


def read_file(root: Path) -> str:
    """/etc/network/interfaces with its `source` lines followed once; empty when there is none."""
    path = root / "etc/network/interfaces"
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    out: list[str] = []
    for line in lines:
        words = line.split()
        if len(words) == 2 and words[0] in ("source", "source-directory"):
            out += _included(root, words[0], words[1])
        else:
            out.append(line)
    return "\n".join(out)


def _included(root: Path, how: str, pattern: str) -> list[str]:
    if not pattern.startswith("/"):
        pattern = f"/etc/network/{pattern}"
    if how == "source-directory":
        pattern = pattern.rstrip("/") + "/*"
    out: list[str] = []
    for path in sorted(root.glob(pattern.lstrip("/")))[:MAX_INCLUDES]:
        if path.is_file() and (how == "source" or re.fullmatch(r"[A-Za-z0-9_-]+", path.name)):
            out += path.read_text(errors="replace").splitlines()
    return out


def parse(text: str) -> dict[str, Row]:
    """Name → row, as far as the file says; `comments` and unknown options are kept as `options`."""
    rows: dict[str, Row] = {}
    auto: set[str] = set()
    present: Row | None = None
    family = "inet"
    for raw in _joined(text):
        line = raw.strip()
        if line.startswith("#"):
            if present is not None:
                key = "comments" if family == "inet" else "comments6"
                present[key] = present.get(key, "") + line[1:] + "\n"
            continue
        words = line.split()
        if not words:
            continue
        if words[0] in ("auto", "allow-auto", "allow-hotplug", "allow-ovs"):
            auto.update(words[1:])
            present = None
        elif words[0] == "iface" and len(words) >= 2:
            present = rows.setdefault(words[1], {"iface": words[1], "priority": len(rows) + 3})
            family = words[2] if len(words) > 2 and words[2] in _FAMILIES else "inet"
            method = words[3] if len(words) > 3 else "static"
            present["method" if family == "inet" else "method6"] = method
            present.setdefault("families", [])
            if family not in present["families"]:
                present["families"].append(family)
        elif words[0] in ("mapping", "no-auto-down", "no-scripts"):
            present = None
        elif present is not None:
            _option(present, family, words[0], line[len(words[0]) :].strip())
    for name in auto & set(rows):
        rows[name]["autostart"] = 1
    return rows


def _joined(text: str) -> list[str]:
    return re.sub(r"\\\n", " ", text).splitlines()


def _option(row: Row, family: str, name: str, value: str) -> None:
    suffix = "6" if family == "inet6" else ""
    name = name.replace("_", "-") if name.startswith(("bridge_", "bond_", "vlan_")) else name
    match name:
        case "address":
            _address(row, value)
        case "netmask":
            row.setdefault(f"netmask{suffix}", int(value) if suffix and value.isdigit() else value)
        case "gateway":
            row["gateway6" if ":" in value else "gateway"] = value
        case "mtu" if value.isdigit():
            row["mtu"] = int(value)
        case "bridge-vlan-aware":
            row["bridge_vlan_aware"] = int(value in ("yes", "1", "on", "true"))
        case "vlan-id" if value.isdigit():
            row["vlan-id"] = int(value)
        case "ovs_type":
            row["type"] = value
        case "bond-mode":
            row["bond_mode"] = _BOND_MODES[int(value)] if value.isdigit() and int(value) < len(_BOND_MODES) else value
        case _ if name in _NAMED:
            row[_NAMED[name]] = "" if value == "none" else value
        case _:
            row.setdefault(f"options{suffix}", []).append(f"{name} {value}".strip())


def _address(row: Row, text: str) -> None:
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        return
    suffix = "6" if found.version == 6 else ""
    row[f"address{suffix}"] = str(found.ip)
    if "/" in text:
        row[f"netmask{suffix}"] = found.network.prefixlen if suffix else str(found.network.prefixlen)


def _finish(row: Row) -> Row:
    for suffix in ("", "6"):
        address, mask = row.get(f"address{suffix}"), row.get(f"netmask{suffix}")
        if address and mask is not None:
            try:
                row[f"cidr{suffix}"] = str(ipaddress.ip_interface(f"{address}/{mask}"))
            except ValueError:
                continue
            if not suffix and "." in str(mask):
                row["netmask"] = row["cidr"].rpartition("/")[2]
    row.setdefault("method", "manual")
    row.setdefault("method6", "manual")
    row.setdefault("families", ["inet"])
    if "type" not in row:
        row["type"] = kind_of(row)
    if row["type"] == "vlan":
        found = _VLAN.fullmatch(row["iface"])
        if found is not None:
            row.setdefault("vlan-id", int(found["id"] or found["number"]))
            if found["raw"]:
                row.setdefault("vlan-raw-device", found["raw"])
    return row


def kind_of(row: Row) -> str:
    """Type of an interface by its options and name."""
    name = str(row["iface"])
    if "bridge_ports" in row or row.get("kernel") == "bridge":
        return "bridge"
    if "slaves" in row or row.get("kernel") == "bond":
        return "bond"
    if ":" in name:
        return "alias"
    if "vlan-raw-device" in row or row.get("kernel") == "vlan" or _VLAN.fullmatch(name):
        return "vlan"
    if name == "lo":
        return "loopback"
    if _PHYSICAL.fullmatch(name) or row.get("kernel") == "":
        return "eth"
    return "unknown"


def merge(configured: dict[str, Row], links: Sequence[Link]) -> list[Row]:
    """What the file says plus what runs: `active`, `exists`, and for what only runs, its present addresses and ports."""
    rows = {name: dict(row) for name, row in configured.items()}
    for link in links:
        row = rows.get(link.name)
        if row is None:
            if link.kind not in ("", "bridge", "bond", "vlan") or (
                link.kind == "" and not _PHYSICAL.fullmatch(link.name)
            ):
                continue
            row = rows[link.name] = _from_kernel(link, len(rows) + 3)
        row["exists"] = 1
        if link.up:
            row["active"] = 1
        row["kernel"] = link.kind
    finished = (_finish(row) for row in rows.values())
    return [{k: v for k, v in row.items() if k != "kernel"} for row in finished if row["type"] != "loopback"]


def _from_kernel(link: Link, priority: int) -> Row:
    row: Row = {"iface": link.name, "priority": priority}
    for address in link.addresses:
        found = ipaddress.ip_interface(address)
        if not found.ip.is_link_local and f"address{'6' if found.version == 6 else ''}" not in row:
            _address(row, address)
    if link.kind == "bridge":
        row["bridge_ports"] = " ".join(link.ports)
    elif link.kind == "bond":
        row["slaves"] = " ".join(link.ports)
    elif link.kind == "vlan" and link.vlan is not None:
        row["vlan-id"] = link.vlan
        if link.lower:
            row["vlan-raw-device"] = link.lower
    if link.mtu != 1500:
        row["mtu"] = link.mtu
    return row


def kernel_links() -> list[Link]:
    """The kernel's interfaces by rtnetlink. Blocking, some milliseconds."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        raw = list(route.get_links())
        addresses: dict[int, list[str]] = {}
        for entry in route.get_addr():
            address = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
            if address:
                addresses.setdefault(entry["index"], []).append(f"{address}/{entry['prefixlen']}")
    names = {entry["index"]: str(entry.get_attr("IFLA_IFNAME")) for entry in raw}
    masters: dict[int, list[str]] = {}
    for entry in raw:
        master = entry.get_attr("IFLA_MASTER")
        if master:
            masters.setdefault(master, []).append(names[entry["index"]])
    out = []
    for entry in raw:
        detail = entry.get_attr("IFLA_LINKINFO")
        kind = str(detail.get_attr("IFLA_INFO_KIND") or "") if detail else ""
        data = detail.get_attr("IFLA_INFO_DATA") if detail and kind == "vlan" else None
        out.append(
            Link(
                names[entry["index"]],
                bool(entry["flags"] & 1),
                kind,
                int(entry.get_attr("IFLA_MTU") or 1500),
                tuple(sorted(masters.get(entry["index"], ()))),
                names.get(entry.get_attr("IFLA_LINK") or 0),
                data.get_attr("IFLA_VLAN_ID") if data else None,
                tuple(addresses.get(entry["index"], ())),
            )
        )
    return out
