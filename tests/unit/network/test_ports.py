"""Ports of guests: what is asked of the kernel's tools, and what is refused before."""

import os

import pytest

from panal.core.errors import BadInput, ProgramFailed, Unavailable, Unsupported
from panal.network import Ports, PortWish, ports

WISH = PortWish("net0", "tap100i0", "vmbr0", "BC:24:11:00:00:01", tag=7, trunks=((5, 5), (10, 12)), rate=10)


@pytest.fixture
def kernel(monkeypatch):
    """The tools' command lines; taps are pipes."""
    calls: list[list[str]] = []
    opened: list[int] = []

    async def run(argv, **kwargs):
        calls.append(list(argv))

    def create(name, queues):
        opened.extend(os.pipe()[:queues])
        return opened[-queues:]

    monkeypatch.setattr(ports, "run", run)
    monkeypatch.setattr(ports.tap, "unavailable", lambda: None)  # type: ignore[attr-defined]
    monkeypatch.setattr(ports.tap, "create", create)  # type: ignore[attr-defined]
    monkeypatch.setattr(ports.tap, "join", lambda *args: None)  # type: ignore[attr-defined]
    monkeypatch.setattr(ports.tap, "mtu", lambda name: 1500)  # type: ignore[attr-defined]
    monkeypatch.setattr(ports.tap, "vlan_aware", lambda bridge: bridge == "vmbr0")  # type: ignore[attr-defined]
    return calls


async def test_vlans_and_rate(kernel):
    port = await Ports().open_port(WISH)
    assert port.name == "tap100i0"
    vlans = [c for c in kernel if c[0] == "bridge"]
    assert [c[6:] for c in vlans] == [["1"], ["7", "pvid", "untagged"], ["5"], ["10-12"]]
    assert vlans[0][2] == "del"
    limits = [c for c in kernel if c[0] == "tc"]
    assert len(limits) == 3
    assert all("80000000bit" in c for c in (limits[0], limits[2]))


async def test_a_bridge_without_vlans_is_refused(kernel):
    with pytest.raises(BadInput) as refused:
        await Ports().open_port(PortWish("net3", "t", "vmbr9", "BC:24:11:00:00:01", tag=7))
    assert refused.value.field == "net3"
    assert kernel == []


async def test_a_tool_that_fails_closes_the_tap(kernel, monkeypatch):
    async def run(argv, **kwargs):
        raise ProgramFailed("tc", 2, "no such thing")

    monkeypatch.setattr(ports, "run", run)
    closed: list[int] = []
    monkeypatch.setattr("os.close", closed.append)
    with pytest.raises(Unsupported, match=r"net0.*rate"):
        await Ports().open_port(PortWish("net0", "t", "vmbr0", "BC:24:11:00:00:01", rate=1))
    assert len(closed) == 1


async def test_without_root_the_reason_is_said(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="user-mode"):
        await Ports().open_port(WISH)
