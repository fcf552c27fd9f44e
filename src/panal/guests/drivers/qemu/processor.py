"""Processors and memory on the command line. Called by `machine.build`; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from panal.core.errors import BadInput
from panal.core.props import PropertyError, Value
from panal.guests.config import read
from panal.guests.config.hardware import NUMA_SCHEMA
from panal.guests.drivers.qemu.argv import Argv, option

Config = Mapping[str, str]

_LEVELS: Final = {
    "x86-64-v2": "+pni,+ssse3,+sse4.1,+sse4.2,+popcnt",
    "x86-64-v2-AES": "+pni,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes",
    "x86-64-v3": "+pni,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+avx,+avx2,+bmi1,+bmi2,+f16c,+fma,+abm,+movbe,+xsave",
}
_LEVELS_V4: Final = _LEVELS["x86-64-v3"] + ",+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"
_HYPERV: Final = "hv-time,hv-relaxed,hv-vapic,hv-spinlocks=0x1fff,hv-vpindex,hv-synic,hv-stimer,hv-reset,hv-runtime"


def cpu(argv: Argv, config: Config, *, kvm: bool) -> None:
    """`-cpu` and `-smp`."""
    model = read.cpu_model(config)
    if model.name.startswith("custom-"):
        raise BadInput("cpu", "cpu: custom processor models are not supported yet; take one of QEMU's")
    levels = {**_LEVELS, "x86-64-v4": _LEVELS_V4}
    name, flags = ("qemu64", levels[model.name].split(",")) if model.name in levels else (model.name, [])
    if name == "host" and not kvm:
        name = "max"
        argv.notes.append("cpu: the host's processor cannot be shown without KVM; the emulator's best is used instead")
    flags += model.flags
    if model.hidden:
        flags.append("kvm=off")
    if model.hv_vendor_id:
        flags.append(f"hv-vendor-id={model.hv_vendor_id}")
    if model.phys_bits:
        flags.append("host-phys-bits=on" if model.phys_bits == "host" else f"phys-bits={int(model.phys_bits)}")
    if kvm:
        if config.get("ostype", "other") in read._WINDOWS:
            flags += _HYPERV.split(",")
        elif name not in ("host", "max"):
            flags.append("enforce")
    argv.add("-cpu", ",".join([name, *flags]))
    shape = read.topology(config)
    argv.add("-smp", f"cpus={shape.vcpus},sockets={shape.sockets},cores={shape.cores},maxcpus={shape.maximum}")


def memory(argv: Argv, config: Config) -> None:
    """`-m` and its back ends, one a NUMA node. BadInput when the nodes do not add up."""
    size = read.memory_mib(config)
    argv.add("-m", f"size={size}M")
    nodes = _numa(config, size)
    if not nodes:
        argv.object(_backend(config, "ram0", size, {}))
        return
    if sum(int(node["memory"]) for node in nodes) != size:
        raise BadInput("memory", "memory: the memory of numa0, numa1, … must add up to the guest's memory")
    for n, node in enumerate(nodes):
        argv.object(_backend(config, f"ram{n}", int(node["memory"]), node))
        ranges = ",".join(f"cpus={part}" for part in str(node["cpus"]).split(";"))
        argv.add("-numa", f"node,nodeid={n},{ranges},memdev=ram{n}")


def machine_memory(config: Config) -> dict[str, object]:
    """Machine properties that go with `memory`."""
    return {} if _numa(config, read.memory_mib(config)) else {"memory-backend": "ram0"}


def _backend(config: Config, name: str, size_mib: int, node: Mapping[str, Value]) -> dict[str, object]:
    pages = config.get("hugepages")
    backend: dict[str, object] = {
        "qom-type": "memory-backend-memfd" if pages else "memory-backend-ram",
        "id": name,
        "size": size_mib << 20,
        "merge": read.flag(config, "allow-ksm", True) and not pages,
    }
    if pages:
        backend |= {"hugetlb": True, "prealloc": True}
        if pages != "any":
            backend["hugetlbsize"] = int(pages) << 20
    if "hostnodes" in node:
        backend["host-nodes"] = sorted(numbers("numa0", str(node["hostnodes"])))
        backend["policy"] = str(node.get("policy", "preferred"))
    return backend


def _numa(config: Config, size_mib: int) -> list[dict[str, Value]]:
    """NUMA nodes as configured; with `numa: 1` alone one a socket; none without it."""
    if not read.flag(config, "numa", False):
        return []
    keys = sorted((k for k in config if re.fullmatch(r"numa[0-7]", k)), key=lambda k: k)
    nodes: list[dict[str, Value]] = []
    for key in keys:
        try:
            node = dict(NUMA_SCHEMA.parse(config[key]))
        except PropertyError as exc:
            raise BadInput(key, f"{key}: {exc}") from None
        numbers(key, str(node["cpus"]))
        if "memory" not in node:
            raise BadInput(key, f"{key}: say how much memory it has (memory=MiB)")
        nodes.append(node)
    shape = read.topology(config)
    if nodes or size_mib % shape.sockets:
        return nodes
    return [
        {"cpus": f"{n * shape.cores}-{(n + 1) * shape.cores - 1}", "memory": size_mib // shape.sockets}
        for n in range(shape.sockets)
    ]


def numbers(key: str, text: str) -> set[int]:
    """`0-3;5` or `0-3,5` as numbers. BadInput naming the key."""
    found: set[int] = set()
    for part in re.split("[;,]", text):
        m = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if m is None:
            raise BadInput(key, f"{key}: '{part}' is not a number or a range of numbers")
        found |= set(range(int(m[1]), int(m[2] or m[1]) + 1))
    return found


def smbios(argv: Argv, config: Config) -> None:
    """`-smbios` and `-uuid`."""
    fields = read.smbios(config)
    if fields:
        argv.add("-smbios", "type=1," + option("", fields))
    if "uuid" in fields:
        argv.add("-uuid", fields["uuid"])
