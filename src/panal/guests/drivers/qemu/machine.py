"""From a guest's configuration to QEMU's command line: the map of what we can do. Called by `launch.py`.

Order matters twice: refusals come before anything is opened, and the machine type is pinned before addresses are given out.
`hardware` of a run holds `machine` and an address a device (`pci.net0`); a guest started with it looks the same for ever, also
under a newer QEMU. Changing the family of the machine (pc, q35) is a new machine: pins are dropped.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Final

from panal.core.errors import BadInput
from panal.guests.config import read
from panal.guests.drivers.base import StartSpec
from panal.guests.drivers.qemu import blockdev, devices, firmware, processor, tpm
from panal.guests.drivers.qemu.addresses import Addresses
from panal.guests.drivers.qemu.argv import Argv, option
from panal.guests.drivers.qemu.devices import Listen
from panal.guests.drivers.qemu.refuse import refuse
from panal.network import Ports

SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def pinned_machine(spec: StartSpec, version: str) -> str:
    """The versioned machine type. `version` is QEMU's `7.2`. BadInput for one that this QEMU does not know how to be."""
    wanted = re.sub(r"\+pve\d+$", "", read.machine(spec.config).kind or "pc")
    if wanted == "virt" or wanted.startswith("virt-"):
        raise BadInput("machine", "machine: virt is not for x86_64; take pc or q35")
    family = "pc-q35" if "q35" in wanted else "pc-i440fx"
    m = re.search(r"-(\d+\.\d+)", wanted)
    if m:
        return f"{family}-{m[1]}"
    pinned = spec.hardware.get("machine", "")
    return pinned if pinned.startswith(family) else f"{family}-{version}"


async def build(spec: StartSpec, ports: Ports, listen: Listen, *, version: str, kvm: bool) -> Argv:
    """The command line without QEMU's own name. The caller closes the result's descriptors. BadInput, Unavailable, Failed."""
    config = spec.config
    refuse(config)
    argv = Argv()
    try:
        await _build(argv, spec, ports, listen, version=version, kvm=kvm)
    except BaseException:
        argv.close()
        raise
    finally:
        _close_rest(argv, spec)
    return argv


async def _build(argv: Argv, spec: StartSpec, ports: Ports, listen: Listen, *, version: str, kvm: bool) -> None:
    config = spec.config
    kind = pinned_machine(spec, version)
    same = spec.hardware.get("machine", kind).split("-")[1] == kind.split("-")[1]
    addresses = Addresses(spec.hardware if same else {})
    argv.add("-name", option("", {"guest": spec.name}), "-nodefaults", "-no-user-config", "-S")
    if not read.flag(config, "reboot", True):
        argv.add("-no-reboot")
    argv.add("-sandbox", SANDBOX, "-accel", "kvm" if kvm else "tcg")
    machine: dict[str, object] = {"type": kind, **processor.machine_memory(config)}
    machine |= await firmware.firmware(argv, config, spec.disks)
    if not read.flag(config, "acpi", True):
        machine["acpi"] = "off"
    processor.cpu(argv, config, kvm=kvm)
    processor.memory(argv, config)
    argv.add("-machine", option("", machine))
    processor.smbios(argv, config)
    _clock(argv, spec)
    if "affinity" in config:
        processor.numbers("affinity", config["affinity"])  # used later, refused now
    if read.is_q35(config):
        argv.device({"driver": "i82801b11-bridge", "id": "dmi", "bus": "pcie.0", "addr": "0x1e"})
        argv.device({"driver": "pci-bridge", "id": "pci.0", "chassis_nr": 9, "bus": "dmi", "addr": "0x1"})
    at = len(argv.args)  # bridges must come before the devices on them, but only these say which are needed
    devices.screen(argv, config, addresses)
    blockdev.drives(argv, config, spec.disks, addresses)
    await devices.nics(argv, config, spec.vmid, addresses, ports, kvm=kvm)
    devices.sockets(argv, config, addresses, listen)
    devices.small(argv, config, addresses)
    tpm.prepare(argv, config, spec.disks)
    bridges = Argv()
    for bridge in addresses.bridges:
        bridges.device(bridge)
    argv.args[at:at] = bridges.args
    if "spice_enhancements" in config:
        argv.notes.append("spice_enhancements: kept, and without effect: there is no SPICE yet")
    if "args" in config:
        argv.add(*_extra(config["args"]))
    argv.pins = {"machine": kind, **addresses.pins}


def _extra(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as exc:
        raise BadInput("args", f"args: {exc}") from None


def _clock(argv: Argv, spec: StartSpec) -> None:
    config = spec.config
    values: dict[str, object] = {"base": "localtime" if read.localtime(config) else "utc"}
    if config.get("startdate", "now") != "now":
        values["base"] = config["startdate"]
    if read.flag(config, "tdf", False):
        values["driftfix"] = "slew"
    argv.add("-rtc", option("", values))


def _close_rest(argv: Argv, spec: StartSpec) -> None:
    """The driver owns the disks' descriptors: those that no builder took are closed."""
    for disk in spec.disks:
        if disk.fd is not None and disk.fd not in argv.taken:
            os.close(disk.fd)
