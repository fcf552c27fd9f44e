"""Run by test_qemu_bridge.py inside namespaces of their own: vmbr0 is a plain bridge, vmbr1 one with an MTU of 1400."""

import json
import signal
import subprocess

import pytest

from panal.core.errors import BadInput, PanalError, Unsupported
from tests.guests.qemu_rig import Rig


def _ip(*words: str) -> list[dict]:  # type: ignore[type-arg]
    found: list[dict] = json.loads(subprocess.run(["ip", "-j", "-d", *words], check=True, capture_output=True).stdout)  # type: ignore[type-arg]
    return found


async def test_ports_join_the_bridge_and_go_with_the_guest(rig: Rig):
    """Planted faults: without pin() the bridge takes a port's address; without fe: the tap's is the guest's."""
    before = _ip("link", "show", "vmbr0")[0]["address"]
    await rig.start({"net0": "virtio=00:00:00:00:00:01,bridge=vmbr0", "net1": "e1000=BC:24:11:00:00:02,bridge=vmbr0"})
    ports = {link["ifname"]: link for link in _ip("link", "show", "master", "vmbr0")}
    assert set(ports) == {"tap100i0", "tap100i1"}
    assert ports["tap100i0"]["address"] == "fe:00:00:00:00:01"
    assert all("UP" in port["flags"] for port in ports.values())
    assert _ip("link", "show", "vmbr0")[0]["address"] == before
    rig.driver._guests[100].process.signal(signal.SIGKILL)
    assert await rig.driver.wait_stopped(100, 10)
    assert _ip("link", "show", "master", "vmbr0") in ([], [{}])
    assert _ip("link", "show", "vmbr0")[0]["address"] == before


async def test_queues_and_mtu(rig: Rig):
    await rig.start({"net0": "virtio=BC:24:11:00:00:01,bridge=vmbr1,queues=2,mtu=1", "sockets": "2"})
    assert _ip("link", "show", "tap100i0")[0]["mtu"] == 1400
    guest = rig.driver._guests[100]
    seen = await guest.call("qom-get", {"path": "/machine/peripheral/net0", "property": "host_mtu"})
    assert seen == 1400


async def test_a_rate_limits_or_is_refused_whole(rig: Rig):
    """Not every kernel can police; a start that cannot keep the promise fails and leaves no tap."""
    try:
        await rig.start({"net0": "virtio=BC:24:11:00:00:01,bridge=vmbr1,rate=10"})
    except Unsupported as refused:
        assert "net0" in refused.message and "rate" in refused.message
        assert [link["ifname"] for link in _ip("link") if link["ifname"].startswith("tap")] == []
        return
    shown = subprocess.run(
        ["tc", "qdisc", "show", "dev", "tap100i0"], check=True, capture_output=True, text=True
    ).stdout
    assert "tbf" in shown and "80Mbit" in shown and "ingress" in shown


async def test_what_the_node_cannot_do_is_refused_and_leaves_no_tap(rig: Rig):
    for net, word in (
        ("virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=7", "VLAN"),
        ("virtio=BC:24:11:00:00:01,bridge=nowhere", "does not exist"),
    ):
        with pytest.raises(PanalError, match=word) as refused:
            await rig.start({"net0": net})
        assert "tag" not in net or (isinstance(refused.value, BadInput) and refused.value.field == "net0")
        assert [link["ifname"] for link in _ip("link") if link["ifname"].startswith("tap")] == []
    assert rig.processes() == []


async def test_traffic_is_counted(rig: Rig, guest_disk):
    from tests.guests.test_qemu_state import Console

    subprocess.run(["ip", "addr", "add", "169.254.255.254/16", "dev", "vmbr0"], check=True)
    config = {
        "virtio0": rig.disk("g", source=guest_disk),
        "net0": "virtio=BC:24:11:00:00:05,bridge=vmbr0",
        "serial0": "socket",
    }
    await rig.start(config)
    console = Console(rig.driver.serial(100, 0))
    await console.until(b"guest# ")
    await console.say("sleep 5; ip addr add 169.254.9.9/16 dev eth0; ping -c 3 -W 5 169.254.255.254; echo e''nd")
    seen = await console.until(b"end\r\n")
    assert b" 0% packet loss" in seen or b"bytes from" in seen
    live = await rig.driver.info(100)
    assert live.netin > 100
    assert live.netout > 100
    console.close()
