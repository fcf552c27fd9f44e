"""Typed readers of a configuration besides drives and network cards: what a driver or a verb needs to know. Pure.

Every reader takes the stored configuration (`{key: text}`, validated when it was stored) and fills in defaults, so that a
default stands in one place. Sizes in MiB where the name says so. A text that does not parse raises BadInput naming the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from panal.core.errors import BadInput
from panal.core.formats import split_list
from panal.core.props import PropertyError, Schema, Value
from panal.guests.config.drives import read_drives
from panal.guests.config.hardware import (
    CPU_SCHEMA,
    MACHINE_SCHEMA,
    MEMORY_SCHEMA,
    RNG_SCHEMA,
    VGA_SCHEMA,
    WATCHDOG_SCHEMA,
    smbios_fields,
)
from panal.guests.config.nics import read_nics
from panal.guests.config.options import AGENT_SCHEMA, BOOT_SCHEMA, STARTUP_SCHEMA

Config = Mapping[str, str]

DEFAULT_MEMORY_MIB: Final = 512
DEFAULT_CPU: Final = "kvm64"
_WINDOWS: Final = frozenset({"wxp", "w2k", "w2k3", "w2k8", "wvista", "win7", "win8", "win10", "win11"})


@dataclass(frozen=True, slots=True)
class Topology:
    """Processors. `vcpus` are plugged in at start, `maximum` = cores × sockets is what the machine has room for."""  # noqa: RUF002

    cores: int
    sockets: int
    vcpus: int

    @property
    def maximum(self) -> int:
        """Cores of all sockets."""
        return self.cores * self.sockets


@dataclass(frozen=True, slots=True)
class CpuModel:
    """Processor model. `name` is QEMU's (or `host`); `flags` like `+aes`, `-pcid`; `explicit` False: nothing was chosen."""

    name: str
    flags: tuple[str, ...] = ()
    hidden: bool = False
    hv_vendor_id: str | None = None
    phys_bits: str | None = None
    reported_model: str | None = None
    explicit: bool = True


@dataclass(frozen=True, slots=True)
class Vga:
    """Screen. `kind` as in the configuration (std, virtio, none, serial0, …); `memory_mib` None for the device's default."""

    kind: str
    memory_mib: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """Machine type as configured (`q35`, `pc-q35-7.2`, …), None for the default."""

    kind: str | None
    viommu: str | None = None
    options: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Agent:
    """Guest agent: `transport` is virtio or isa."""

    enabled: bool
    transport: str = "virtio"
    freeze_fs: bool = True
    fstrim: bool = False


@dataclass(frozen=True, slots=True)
class Startup:
    """Start order. `order` None: after all that have one. Seconds to wait after start, and for shutdown."""

    order: int | None = None
    up_s: int | None = None
    down_s: int | None = None


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Watchdog device."""

    model: str
    action: str = "none"


@dataclass(frozen=True, slots=True)
class Rng:
    """Random number device: at most `max_bytes` each `period_ms`."""

    source: str
    max_bytes: int
    period_ms: int


def flag(config: Config, key: str, default: bool) -> bool:
    """A boolean key."""
    text = config.get(key)
    return default if text is None else text == "1"


def number(config: Config, key: str, default: int) -> int:
    """An integer key."""
    try:
        return int(config.get(key, default))
    except ValueError:
        raise BadInput(key, f"{key} is not a number") from None


def topology(config: Config) -> Topology:
    """Processors; one when nothing is set."""
    cores = max(1, number(config, "cores", 1))
    sockets = max(1, number(config, "sockets", number(config, "smp", 1)))
    maximum = cores * sockets
    return Topology(cores, sockets, min(number(config, "vcpus", maximum) or maximum, maximum))


def cpu_model(config: Config) -> CpuModel:
    """Processor model; kvm64 when nothing is set (drivers may take another where that does not exist)."""
    if "cpu" not in config:
        return CpuModel(DEFAULT_CPU, explicit=False)
    values = _parse(config, "cpu", CPU_SCHEMA)
    flags = str(values.get("flags", ""))
    return CpuModel(
        str(values.get("cputype", DEFAULT_CPU)), tuple(f for f in flags.split(";") if f),
        bool(values.get("hidden", False)), _text(values, "hv-vendor-id"), _text(values, "phys-bits"),
        _text(values, "reported-model"), "cputype" in values,
    )  # fmt: skip


def memory_mib(config: Config) -> int:
    """Memory in MiB, from `1024` or `current=1024`."""
    if "memory" not in config:
        return DEFAULT_MEMORY_MIB
    return int(_parse(config, "memory", MEMORY_SCHEMA)["current"])


def balloon_mib(config: Config) -> int | None:
    """Least memory in MiB; None: not set (the device exists, all memory stays); 0: no balloon device."""
    return number(config, "balloon", 0) if "balloon" in config else None


def machine(config: Config) -> Machine:
    """Machine type."""
    values = dict(_parse(config, "machine", MACHINE_SCHEMA)) if "machine" in config else {}
    kind, viommu = values.pop("type", None), values.pop("viommu", None)
    return Machine(None if kind is None else str(kind), None if viommu is None else str(viommu), values)


def is_q35(config: Config) -> bool:
    """Whether the machine has a PCI Express root."""
    kind = machine(config).kind or ""
    return kind == "q35" or kind.startswith("pc-q35")


def vga(config: Config) -> Vga:
    """Screen; std when nothing is set, as the graphical default."""
    values = _parse(config, "vga", VGA_SCHEMA) if "vga" in config else {}
    memory = values.get("memory")
    return Vga(str(values.get("type", "std")), None if memory is None else int(memory))


def serials(config: Config) -> dict[int, str]:
    """Number of a serial port → `socket` or a device of the host."""
    return {n: config[f"serial{n}"] for n in range(4) if f"serial{n}" in config}


def smbios(config: Config) -> dict[str, str]:
    """System information in clear. Values may hold commas: whoever writes them into an option string escapes them."""
    if "smbios1" not in config:
        return {}
    try:
        return smbios_fields(config["smbios1"])
    except PropertyError as exc:
        raise BadInput("smbios1", f"invalid format - {exc}") from None


def vmgenid(config: Config) -> str | None:
    """Generation ID; None when the device is switched off or not made yet."""
    text = config.get("vmgenid", "0")
    return None if text in ("0", "1") else text


def boot_order(config: Config) -> list[str]:
    """Keys of devices in boot order.

    From `boot: order=…`; else from the old letters (c: bootdisk, or the first disk; d: CD drives; n: network); else the first
    disk, CD drives, the first network card.
    """
    values = _parse(config, "boot", BOOT_SCHEMA) if "boot" in config else {}
    if "order" in values:
        return [d for d in str(values["order"]).split(";") if d in config]
    drives = read_drives(config)
    disks = [d.key for d in drives if not d.cdrom and d.bus not in ("efidisk", "tpmstate")]
    first = [config["bootdisk"]] if config.get("bootdisk") in disks else disks[:1]
    cds = [d.key for d in drives if d.cdrom]
    nics = [n.key for n in read_nics(config)]
    parts = {"c": first, "d": cds, "n": nics, "a": []}
    return [key for letter in str(values.get("legacy", "cdn")) for key in parts.get(letter, [])]


def agent(config: Config) -> Agent:
    """Guest agent."""
    if "agent" not in config:
        return Agent(False)
    values = _parse(config, "agent", AGENT_SCHEMA)
    return Agent(
        bool(values["enabled"]), str(values.get("type", "virtio")), bool(values.get("freeze-fs", True)),
        bool(values.get("fstrim_cloned_disks", False)),
    )  # fmt: skip


def startup(config: Config) -> Startup:
    """Start order and waits."""
    values = _parse(config, "startup", STARTUP_SCHEMA) if "startup" in config else {}
    order, up, down = (int(values[n]) if n in values else None for n in ("order", "up", "down"))
    return Startup(order, up, down)


def watchdog(config: Config) -> Watchdog | None:
    """Watchdog device, or None."""
    if "watchdog" not in config:
        return None
    values = _parse(config, "watchdog", WATCHDOG_SCHEMA)
    return Watchdog(str(values.get("model", "i6300esb")), str(values.get("action", "none")))


def rng(config: Config) -> Rng | None:
    """Random number device, or None. Without limits given: 1024 bytes a second."""
    if "rng0" not in config:
        return None
    values = _parse(config, "rng0", RNG_SCHEMA)
    return Rng(str(values["source"]), int(values.get("max_bytes", 1024)), int(values.get("period", 1000)))


def tags(config: Config) -> list[str]:
    """Tags."""
    return split_list(config.get("tags", ""))


def cpulimit(config: Config) -> float:
    """Host processors it may use at most; 0 for no limit."""
    try:
        return float(config.get("cpulimit", "0"))
    except ValueError:
        raise BadInput("cpulimit", "cpulimit is not a number") from None


def localtime(config: Config) -> bool:
    """Whether the real-time clock shows local time: as set, else for Windows."""
    return flag(config, "localtime", config.get("ostype", "other") in _WINDOWS)


def is_template(config: Config) -> bool:
    """Whether it is a template."""
    return flag(config, "template", False)


def _parse(config: Config, key: str, schema: Schema) -> dict[str, Value]:
    try:
        return schema.parse(config[key])
    except PropertyError as exc:
        raise BadInput(key, f"invalid format - {exc}") from None


def _text(values: Mapping[str, Value], name: str) -> str | None:
    return str(values[name]) if name in values else None
