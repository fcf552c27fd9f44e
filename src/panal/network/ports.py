"""The network a guest is put on: ports of bridges, or why there are none here.

Called by guest drivers at start. Without root (or without /dev/net/tun) guests have user-mode networking, which needs nothing
of this. Invariant: a port lives exactly as long as a descriptor of it; a failed `open_port` leaves none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from panal.core.errors import BadInput, ProgramFailed, Unavailable, Unsupported
from panal.host import tap
from panal.host.run import run

_TOOL_S: Final = 5
BRIDGE_MTU: Final = 1
"""value of `mtu` that means the bridge's own"""


@dataclass(frozen=True, slots=True)
class PortWish:
    """What a network card asks for. `key` is named in errors; `rate` in megabytes (10⁶) a second, `trunks` are ranges."""

    key: str
    name: str
    bridge: str
    mac: str
    queues: int = 1
    mtu: int | None = None
    tag: int | None = None
    trunks: Sequence[tuple[int, int]] = ()
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """An open port: the tap's name and its descriptors, one a queue; the caller closes them."""

    name: str
    fds: Sequence[int]
    mtu: int


@dataclass(frozen=True, slots=True)
class Ports:
    """This node's bridges."""

    def unavailable(self) -> str | None:
        """Why guests cannot be put on bridges here; None when they can."""
        return tap.unavailable()

    async def open_port(self, wish: PortWish) -> Port:
        """Make a tap, put it on the bridge with its VLANs and rate. BadInput names the card; Unavailable, Failed."""
        reason = self.unavailable()
        if reason:
            raise Unavailable(
                f"{wish.key}: guests cannot be put on a bridge here: {reason}; leave `bridge` out for user-mode networking"
            )
        if (wish.tag or wish.trunks) and not tap.vlan_aware(wish.bridge):
            raise BadInput(
                wish.key,
                f"{wish.key}: the bridge {wish.bridge} does not separate VLANs; switch vlan_filtering on, or remove tag",
            )
        fds = tap.create(wish.name, wish.queues)
        try:
            tap.join(wish.name, wish.bridge, wish.mac, None if wish.mtu == BRIDGE_MTU else wish.mtu)
            await _vlans(wish)
            await _limit(wish)
            return Port(wish.name, fds, tap.mtu(wish.name))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise


async def _vlans(wish: PortWish) -> None:
    if wish.tag is None and not wish.trunks:
        return
    base = ["bridge", "vlan", "add", "dev", wish.name, "vid"]
    if wish.tag is not None:
        # the default VLAN of a new port; a bridge without one has nothing to remove
        await run(["bridge", "vlan", "del", "dev", wish.name, "vid", "1"], timeout_s=_TOOL_S, check=False)
        await _tool(wish, "tag", [*base, str(wish.tag), "pvid", "untagged"])
    for first, last in wish.trunks:
        await _tool(wish, "trunks", [*base, f"{first}-{last}" if last != first else str(first)])


async def _limit(wish: PortWish) -> None:
    """Both directions: what the tap sends goes to the guest, what it receives comes from it."""
    if not wish.rate:
        return
    bits = str(round(wish.rate * 8_000_000))
    burst = str(max(round(wish.rate * 1_000_000 / 10), 65536))
    device = ["dev", wish.name]
    police = ["action", "police", "rate", f"{bits}bit", "burst", burst, "mtu", "64kb", "conform-exceed", "drop"]
    for argv in (
        ["qdisc", "add", *device, "root", "tbf", "rate", f"{bits}bit", "burst", burst, "latency", "50ms"],
        ["qdisc", "add", *device, "handle", "ffff:", "ingress"],
        ["filter", "add", *device, "parent", "ffff:", "protocol", "all", "prio", "50", "matchall", *police],
    ):
        await _tool(wish, "rate", ["tc", *argv])


async def _tool(wish: PortWish, what: str, argv: Sequence[str]) -> None:
    try:
        await run(argv, timeout_s=_TOOL_S)
    except (ProgramFailed, Unsupported) as exc:
        raise Unsupported(
            f"{wish.key}: this node cannot do `{what}` on {wish.bridge} ({exc}); remove it from the card",
            field=wish.key,
        ) from exc
