"""Tap devices and the bridge ports they become: by ioctl, because a netlink library costs more than the rest of a start.

Called by `network/`. A tap lives as long as a descriptor of it is open, so it goes with the guest, also after SIGKILL.
Invariant: a bridge never changes its MAC address because of us: it is pinned before the first port joins (peers' ARP entries
would go stale, recipe pitfall 1), and taps have addresses that start with fe:.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from panal.core.errors import Failed, Unavailable

_TUNSETIFF: Final = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFMTU, _SIOCSIFHWADDR = 0x8913, 0x8914, 0x8922, 0x8924
_SIOCBRADDIF: Final = 0x89A2
_IFF_UP: Final = 1
_ARPHRD_ETHER: Final = 1
_PINNED: Final = "3"
"""`addr_assign_type` of an interface whose address somebody set"""
_NET: Final = Path("/sys/class/net")


@dataclass(frozen=True, slots=True)
class Counters:
    """Bytes as the guest sees them: `rx` came in to it, `tx` went out of it."""

    rx: int
    tx: int


def unavailable() -> str | None:
    """Why taps cannot be made here; None when they can."""
    if os.geteuid() != 0:
        return "only root can make network devices"
    return None if Path("/dev/net/tun").exists() else "/dev/net/tun is missing (kernel module tun)"


def create(name: str, queues: int = 1) -> Sequence[int]:
    """A tap with one descriptor a queue. Raises Failed when the name is taken or the kernel refuses."""
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)
    fds: list[int] = []
    try:
        for _ in range(queues):
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fds.append(fd)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError as exc:
        for fd in fds:
            os.close(fd)
        raise Failed(f"cannot make the network device {name}: {exc.strerror}", device=name) from exc
    return fds


def join(name: str, bridge: str, mac: str, mtu: int | None = None) -> None:
    """Give the tap its address, put it on the bridge and switch it on. Raises Unavailable when the bridge is missing."""
    if not (_NET / bridge / "bridge").is_dir():
        raise Unavailable(
            f"the bridge {bridge} does not exist on this node; create it or choose another", bridge=bridge
        )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        pin(bridge)
        address = b"\xfe" + bytes.fromhex(mac.replace(":", ""))[1:]
        try:
            fcntl.ioctl(control, _SIOCSIFHWADDR, struct.pack("16sH6s8x", name.encode(), _ARPHRD_ETHER, address))
            size = mtu or int((_NET / bridge / "mtu").read_text())
            fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", name.encode(), size))
            fcntl.ioctl(control, _SIOCBRADDIF, struct.pack("16si20x", bridge.encode(), socket.if_nametoindex(name)))
            _up(control, name)
        except OSError as exc:
            raise Failed(f"cannot put {name} on the bridge {bridge}: {exc.strerror}", bridge=bridge) from exc


def pin(bridge: str) -> None:
    """Keep the bridge's present MAC address for good."""
    if (_NET / bridge / "addr_assign_type").read_text().strip() == _PINNED:
        return
    address = bytes.fromhex((_NET / bridge / "address").read_text().strip().replace(":", ""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFHWADDR, struct.pack("16sH6s8x", bridge.encode(), _ARPHRD_ETHER, address))


def vlan_aware(bridge: str) -> bool:
    """Whether the bridge separates VLANs."""
    try:
        return (_NET / bridge / "bridge" / "vlan_filtering").read_text().strip() == "1"
    except OSError:
        return False


def counters(name: str) -> Counters | None:
    """Bytes since the tap was made; None when there is none."""
    try:
        tx = int((_NET / name / "statistics" / "rx_bytes").read_text())
        rx = int((_NET / name / "statistics" / "tx_bytes").read_text())
    except (OSError, ValueError):
        return None
    return Counters(rx, tx)


def _up(control: socket.socket, name: str) -> None:
    answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
    flags = struct.unpack("16sH22x", answer)[1]
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))


def mtu(name: str) -> int:
    """The interface's MTU."""
    return int((_NET / name / "mtu").read_text())
