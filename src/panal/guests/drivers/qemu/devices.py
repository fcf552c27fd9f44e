"""Everything on the machine that is neither processor, memory, firmware nor drive. Called by `machine.build`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final

from panal.core.errors import BadInput
from panal.core.props import PropertyError
from panal.guests.config import Nic, read, read_nics
from panal.guests.config.hardware import AUDIO_SCHEMA
from panal.guests.drivers.qemu.addresses import Addresses
from panal.guests.drivers.qemu.argv import Argv, option
from panal.network import Ports, PortWish

Config = Mapping[str, str]
Listen = Callable[[str], int]
"""makes a listening socket of this name in the guest's run directory"""

_MODELS: Final = {"virtio": "virtio-net-pci", "e1000-82540em": "e1000"}
_MULTIQUEUE: Final = frozenset({"virtio", "vmxnet3"})
_SCREENS: Final = {
    "std": "VGA", "cirrus": "cirrus-vga", "qxl": "qxl-vga", "virtio": "virtio-vga", "vmware": "vmware-svga",
}  # fmt: skip
_MEMORY: Final = {"std": "vgamem_mb", "cirrus": "vgamem_mb", "vmware": "vgamem_mb", "qxl": "vgamem_mb"}


async def nics(argv: Argv, config: Config, vmid: int, addresses: Addresses, ports: Ports, *, kvm: bool) -> None:
    """Network cards with their taps, or user-mode networks."""
    order = {key: 100 + n for n, key in enumerate(read.boot_order(config))}
    for nic in read_nics(config):
        if nic.mac is None:
            raise BadInput(nic.key, f"{nic.key}: the card has no MAC address; set the card again, then it gets one")
        mtu = None
        alone = ports.unavailable() if nic.bridge else None
        if alone:
            argv.notes.append(f"{nic.key}: not on {nic.bridge} but on a user-mode network: {alone}")
        if nic.bridge is None or alone:
            argv.json("-netdev", {"type": "user", "id": nic.key})
        else:
            mtu = await _tap(argv, nic, nic.bridge, nic.mac, vmid, ports, kvm=kvm)
        device: dict[str, object] = {"driver": _MODELS.get(nic.model, nic.model), "id": nic.key, "netdev": nic.key}
        device["mac"] = nic.mac
        if nic.model != "ne2k_isa":
            device |= addresses.place(nic.key)
        if nic.key in order and nic.model != "ne2k_isa":
            device["bootindex"] = order[nic.key]
        if nic.model == "virtio":
            device |= _queues(nic)
            if nic.mtu and mtu:
                device["host_mtu"] = mtu
        if nic.firewall:
            argv.notes.append(f"{nic.key}: firewall=1 is kept, but there is no firewall yet: traffic is not filtered")
        argv.device(device)
        if nic.link_down:
            argv.after.append(("set_link", {"name": nic.key, "up": False}))


def _queues(nic: Nic) -> dict[str, object]:
    count = nic.queues or 1
    return {"mq": True, "vectors": 2 * count + 2} if count > 1 and nic.bridge else {}


async def _tap(argv: Argv, nic: Nic, bridge: str, mac: str, vmid: int, ports: Ports, *, kvm: bool) -> int:
    queues = (nic.queues or 1) if nic.model in _MULTIQUEUE else 1
    wish = PortWish(nic.key, f"tap{vmid}i{nic.index}", bridge, mac, queues, nic.mtu, nic.tag, nic.trunks, nic.rate)
    port = await ports.open_port(wish)
    for fd in port.fds:
        argv.inherit(fd)
    fds = ":".join(map(str, port.fds))
    netdev: dict[str, object] = {"type": "tap", "id": nic.key, ("fds" if queues > 1 else "fd"): fds}
    if kvm and nic.model == "virtio" and os.access("/dev/vhost-net", os.R_OK | os.W_OK):
        vhost = [argv.inherit(os.open("/dev/vhost-net", os.O_RDWR | os.O_CLOEXEC)) for _ in range(queues)]
        netdev |= {"vhost": True, ("vhostfds" if queues > 1 else "vhostfd"): ":".join(map(str, vhost))}
    argv.json("-netdev", netdev)
    argv.taps[nic.key] = port.name
    return port.mtu


def screen(argv: Argv, config: Config, addresses: Addresses) -> None:
    """Graphics device, tablet, keyboard. The display has no listener: sessions are handed in as descriptors."""
    vga = read.vga(config)
    argv.add("-display", "none", "-vnc", "none")
    if "keyboard" in config:
        argv.add("-k", config["keyboard"])
    text = vga.kind == "none" or vga.kind.startswith("serial")
    if not text:
        device: dict[str, object] = {"driver": _SCREENS[vga.kind], "id": "vga", **_vga_place(config, addresses)}
        if vga.memory_mib and vga.kind in _MEMORY:
            device[_MEMORY[vga.kind]] = vga.memory_mib
        if vga.memory_mib and vga.kind == "virtio":
            device["max_hostmem"] = vga.memory_mib << 20
        argv.device(device)
    if read.flag(config, "tablet", not text):
        usb = ("piix3-usb-uhci", "pci.0", "0x1.0x2")
        if read.is_q35(config):
            usb = ("ich9-usb-uhci1", "pcie.0", "0x1d")
        argv.device({"driver": usb[0], "id": "uhci", "bus": usb[1], "addr": usb[2]})
        argv.device({"driver": "usb-tablet", "id": "tablet", "bus": "uhci.0", "port": "1"})


def _vga_place(config: Config, addresses: Addresses) -> dict[str, object]:
    # on q35 the screen sits on the root bus: firmware does not look for it behind the second bridge
    return {"bus": "pcie.0", "addr": "0x1"} if read.is_q35(config) else addresses.place("vga")


def sockets(argv: Argv, config: Config, addresses: Addresses, listen: Listen) -> None:
    """Serial ports and the guest agent's channel, each a listening socket of ours."""
    for n in read.serials(config):
        fd = argv.inherit(listen(f"serial{n}"))
        argv.add("-chardev", f"socket,id=serial{n},fd={fd},server=on,wait=off")
        argv.device({"driver": "isa-serial", "id": f"com{n}", "chardev": f"serial{n}", "index": n})
    agent = read.agent(config)
    if not agent.enabled:
        return
    fd = argv.inherit(listen("agent"))
    argv.add("-chardev", f"socket,id=agent,fd={fd},server=on,wait=off")
    if agent.transport == "isa":
        argv.device({"driver": "isa-serial", "id": "agent0", "chardev": "agent"})
        return
    argv.device({"driver": "virtio-serial-pci", "id": "vserial0", **addresses.place("vserial0")})
    argv.device({
        "driver": "virtserialport", "id": "agent0", "bus": "vserial0.0", "chardev": "agent",
        "name": "org.qemu.guest_agent.0",
    })  # fmt: skip


def small(argv: Argv, config: Config, addresses: Addresses) -> None:
    """Balloon, random numbers, watchdog, generation id, sound."""
    if read.balloon_mib(config) != 0:
        argv.device({
            "driver": "virtio-balloon-pci", "id": "balloon0", "free-page-reporting": True, **addresses.place("balloon0"),
        })  # fmt: skip
    rng = read.rng(config)
    if rng is not None:
        try:
            source = os.open(rng.source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            raise BadInput("rng0", f"rng0: {rng.source} cannot be read ({exc.strerror}); take /dev/urandom") from exc
        argv.object({"qom-type": "rng-random", "id": "rngsource0", "filename": argv.fdset(source, write=False)})
        device: dict[str, object] = {"driver": "virtio-rng-pci", "id": "rng0", "rng": "rngsource0"}
        if rng.max_bytes:
            device |= {"max-bytes": rng.max_bytes, "period": rng.period_ms}
        argv.device(device | addresses.place("rng0"))
    watchdog = read.watchdog(config)
    if watchdog is not None:
        place = addresses.place("watchdog0") if watchdog.model == "i6300esb" else {}
        argv.device({"driver": watchdog.model, "id": "watchdog0", **place})
        argv.add("-action", option("", {"watchdog": watchdog.action}))
    generation = read.vmgenid(config)
    if generation is not None:
        argv.device({"driver": "vmgenid", "id": "vmgenid", "guid": generation})
    _audio(argv, config, addresses)


def _audio(argv: Argv, config: Config, addresses: Addresses) -> None:
    if "audio0" not in config:
        return
    try:
        values = AUDIO_SCHEMA.parse(config["audio0"])
    except PropertyError as exc:
        raise BadInput("audio0", f"audio0: {exc}") from None
    if values.get("driver", "spice") == "spice":
        argv.notes.append("audio0: sound over SPICE is not supported yet; the device is there and silent")
    argv.json("-audiodev", {"driver": "none", "id": "audio"})
    kind = str(values["device"])
    place = addresses.place("audio0")
    if kind == "AC97":
        argv.device({"driver": kind, "id": "audio0", "audiodev": "audio", **place})
        return
    argv.device({"driver": kind, "id": "audio0", **place})
    for n, codec in enumerate(("hda-micro", "hda-duplex")):
        argv.device({
            "driver": codec, "id": f"audio0-codec{n}", "bus": "audio0.0", "cad": n, "audiodev": "audio",
        })  # fmt: skip
