"""Keys of processors, memory, machine, screen, ports and passed-through devices. Joined in `keys.py`; pure data.

Source of names, types, limits: reference of the Proxmox VE API. Formats which it only names (`pve-vm-cpu-conf` …) are spelled
out here as schemas.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from panal.core.props import PropertyError, Schema
from panal.guests.config.key import CPU, HWTYPE, MEMORY, OPTIONS, Key, sub_patterns

CPU_SCHEMA: Final = Schema.of(
    "cputype:string^ flags:string guest-phys-bits:integer[32..64] hidden:boolean hv-vendor-id:string phys-bits:string "
    "reported-model:string"
)
SEV_SCHEMA: Final = Schema.of(
    "type:string^*=std|es|snp allow-smt:boolean kernel-hashes:boolean no-debug:boolean no-key-sharing:boolean"
)
TDX_SCHEMA: Final = Schema.of(
    "type:string^*=tdx attestation:boolean vsock-cid:integer[2..] vsock-port:integer[0..4294967295]"
)
MEMORY_SCHEMA: Final = Schema.of("current:integer[16..4178944]^*")
NUMA_SCHEMA: Final = Schema.of(
    "cpus:string* hostnodes:string memory:number[0..] policy:string=preferred|bind|interleave"
)
MACHINE_SCHEMA: Final = Schema.of(
    "type:string^ aw-bits:number[32..64] enable-s3:boolean enable-s4:boolean viommu:string=intel|virtio"
)
SMBIOS_SCHEMA: Final = Schema.of(
    "base64:boolean family:string manufacturer:string product:string serial:string sku:string uuid:string version:string"
)
VGA_SCHEMA: Final = Schema.of(
    "type:string^=cirrus|qxl|qxl2|qxl3|qxl4|none|serial0|serial1|serial2|serial3|std|virtio|virtio-gl|vmware "
    "memory:integer[4..512] clipboard:string=vnc"
)
AUDIO_SCHEMA: Final = Schema.of("device:string*=ich9-intel-hda|intel-hda|AC97 driver:string=spice|none")
USB_SCHEMA: Final = Schema.of("host:string^ mapping:string usb3:boolean")
HOSTPCI_SCHEMA: Final = Schema.of(
    "host:string^ mapping:string device-id:string driver:string=vfio|keep legacy-igd:boolean mdev:string pcie:boolean "
    "rombar:boolean romfile:string sub-device-id:string sub-vendor-id:string vendor-id:string x-vga:boolean"
)
RNG_SCHEMA: Final = Schema.of(
    "source:string^*=/dev/urandom|/dev/random|/dev/hwrng max_bytes:integer[0..] period:integer[0..]"
)
WATCHDOG_SCHEMA: Final = Schema.of(
    "model:string^=i6300esb|ib700 action:string=reset|shutdown|poweroff|pause|debug|none"
)
VIRTIOFS_SCHEMA: Final = Schema.of(
    "dirid:string^* cache:string=auto|always|metadata|never direct-io:boolean expose-acl:boolean expose-xattr:boolean"
)
IVSHMEM_SCHEMA: Final = Schema.of("size:integer[1..]* name:string")

RANGES: Final = r"\d{1,5}(-\d{1,5})?(;\d{1,5}(-\d{1,5})?)*"
_CPUSET: Final = r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*"
_HOTPLUG: Final = r"(network|disk|cpu|memory|usb|cloudinit)"
_ID: Final = r"[A-Za-z][A-Za-z0-9_-]+"
_HEX_ID: Final = r"0x[0-9a-fA-F]{4}"
_PCI: Final = r"([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(\.[0-7])?"
_PIN: Final = r"-\d+(\.\d+)+(\+(pve|panal)\d+)?"
_MACHINE: Final = rf"pc|q35|virt|(pc|pc-i440fx|pc-q35|virt){_PIN}"
_UUID: Final = r"[a-fA-F0-9]{8}(-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}"


def smbios_fields(text: str) -> dict[str, str]:
    """smbios1 with its values in clear (base64 decoded). PropertyError also for control characters hidden in base64."""
    values = SMBIOS_SCHEMA.parse(text)
    coded = bool(values.pop("base64", False))
    out = {}
    for name, raw in values.items():
        value = str(raw)
        if coded and name != "uuid":
            try:
                value = base64.b64decode(value, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                raise PropertyError("is not base64 of a text", name) from None
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise PropertyError("must not contain control characters", name)
        if name == "uuid" and not re.fullmatch(_UUID, value):
            raise PropertyError("value does not look like a UUID", name)
        out[name] = value
    return out


def _device(text: str) -> None:
    if text != "socket" and not re.fullmatch(
        r"/dev/[A-Za-z0-9_][A-Za-z0-9_:.-]*(/[A-Za-z0-9_][A-Za-z0-9_:.-]*)*", text
    ):
        raise ValueError("value is neither socket nor the path of a device below /dev")


def _usb(text: str) -> None:
    values = USB_SCHEMA.parse(text)
    if ("host" in values) == ("mapping" in values):
        raise PropertyError("give either host (a device, or spice) or mapping")
    host, mapping = str(values.get("host", "spice")), str(values.get("mapping", "aa"))
    if not re.fullmatch(r"spice|(0x)?[0-9A-Fa-f]{4}:(0x)?[0-9A-Fa-f]{4}|\d+-\d+(\.\d+)*", host, re.IGNORECASE):
        raise PropertyError("value is neither spice, nor VENDOR:PRODUCT, nor BUS-PORT", "host")
    if not re.fullmatch(_ID, mapping):
        raise PropertyError("value does not look like the name of a mapping", "mapping")


def _hostpci(text: str) -> None:
    values = HOSTPCI_SCHEMA.parse(text)
    if ("host" in values) == ("mapping" in values):
        raise PropertyError("give either host (a PCI address) or mapping")
    _HOSTPCI_PATTERNS(text)


_HOSTPCI_PATTERNS = sub_patterns(
    HOSTPCI_SCHEMA, host=rf"{_PCI}(;{_PCI})*", mapping=_ID, mdev=r"[A-Za-z0-9_-]{1,64}", romfile=r"[A-Za-z0-9_][A-Za-z0-9_.-]*",
    vendor__id=_HEX_ID, device__id=_HEX_ID, sub__vendor__id=_HEX_ID, sub__device__id=_HEX_ID,
)  # fmt: skip

_CPU_PATTERNS = sub_patterns(
    CPU_SCHEMA, cputype=r"[A-Za-z0-9][A-Za-z0-9._-]*", flags=r"[+-][a-zA-Z0-9._-]+(;[+-][a-zA-Z0-9._-]+)*",
    hv__vendor__id=r"[a-zA-Z0-9]{1,12}", phys__bits=r"host|[1-9]\d?", reported__model=r"[A-Za-z0-9._-]+",
)  # fmt: skip

HARDWARE: Final = (
    # processors
    Key("cores", "integer", "Cores in each socket.", (CPU,), minimum=1, default=1),
    Key("sockets", "integer", "Processor sockets.", (CPU,), minimum=1, default=1),
    Key("vcpus", "integer", "Processors plugged in at start; cores times sockets when not set.", (CPU,), minimum=1,
        default=0),
    Key("smp", "integer", "Old name of the number of processors: use sockets.", (CPU,), minimum=1, default=1,
        note="counts as sockets when sockets is not set"),
    Key("cpu", "string", "Processor model and its flags.", (CPU,), schema=CPU_SCHEMA,
        check=_CPU_PATTERNS),
    Key("cpulimit", "number", "At most so many host processors' time; 0 for no limit.", (CPU,), minimum=0, maximum=128,
        default=0),
    Key("cpuunits", "integer", "Weight against other guests when processors are short.", (CPU,), minimum=1,
        maximum=262144),
    Key("affinity", "string", "Host processors the guest may run on, like 0,5,8-11.", (CPU,), root=True,
        pattern=_CPUSET),
    Key("numa", "boolean", "Show the guest NUMA nodes.", (CPU,), default=False),
    Key("numa", "string", "One NUMA node of the guest.", (CPU,), count=8, schema=NUMA_SCHEMA,
        check=sub_patterns(NUMA_SCHEMA, cpus=RANGES, hostnodes=RANGES)),
    Key("amd-sev", "string", "Encrypt the guest's memory with AMD SEV.", (HWTYPE,), schema=SEV_SCHEMA, status="refused"),
    Key("intel-tdx", "string", "Run as an Intel TDX trust domain.", (HWTYPE,), schema=TDX_SCHEMA, status="refused"),
    # memory
    Key("memory", "string", "Memory in MiB.", (MEMORY,), schema=MEMORY_SCHEMA, default=512),
    Key("balloon", "integer", "Least memory in MiB when the host is short of it; 0 for no balloon device.", (MEMORY,),
        minimum=0),
    Key("shares", "integer", "Weight of the guest when memory is taken back by ballooning.", (MEMORY,), minimum=0,
        maximum=50000,
        default=1000, status="stored", live=True),
    Key("allow-ksm", "boolean", "Let the host merge equal memory pages of this guest.", (MEMORY,), default=True),
    Key("hugepages", "string", "Take memory from huge pages of this size in MiB.", (MEMORY,), enum=("any", "2",
        "1024"), root=True),
    Key("keephugepages", "boolean", "Keep the huge pages after the guest has stopped.", (MEMORY,), default=False,
        root=True,
        status="stored"),
    # machine
    Key("acpi", "boolean", "Give the guest ACPI.", (HWTYPE,), default=True),
    Key("arch", "string", "Architecture of the processor; the host's when not set.", (HWTYPE,), enum=("x86_64",
        "aarch64"), root=True, note="other than x86_64: refused at start"),
    Key("bios", "string", "Firmware.", (OPTIONS,), enum=("seabios", "ovmf"), default="seabios"),
    Key("machine", "string", "Type of the machine, pinned to a version if one is given.", (HWTYPE,),
        schema=MACHINE_SCHEMA,
        check=sub_patterns(MACHINE_SCHEMA, type=_MACHINE)),
    Key("kvm", "boolean", "Use hardware virtualisation.", (HWTYPE,), default=True),
    Key("hotplug", "string",
        "What may be changed while the guest runs: a list of network, disk, cpu, memory, usb, cloudinit; 0 or 1.",
        (HWTYPE,), default="network,disk,usb", pattern=rf"0|1|{_HOTPLUG}(,{_HOTPLUG})*",
        status="stored"),
    Key("smbios1", "string", "System information the firmware shows.", (HWTYPE,), schema=SMBIOS_SCHEMA, max_length=512,
        check=smbios_fields),
    Key("vmgenid", "string", "Generation ID; 1 makes a new one, 0 switches the device off.", (HWTYPE,),
        default="1 (autogenerated)",
        pattern=rf"(?:{_UUID}|[01])"),
    Key("watchdog", "string", "Watchdog device and what it does.", (HWTYPE,), schema=WATCHDOG_SCHEMA),
    Key("rng0", "string", "Random number device.", (HWTYPE,), schema=RNG_SCHEMA),
    # screen, sound, input
    Key("vga", "string", "Graphics device.", (HWTYPE,), schema=VGA_SCHEMA, note="virtio-gl and qxl2 to qxl4: refused at start"),
    Key("audio0", "string", "Sound device.", (HWTYPE,), schema=AUDIO_SCHEMA, note="silent: there is no SPICE yet"),
    Key("tablet", "boolean", "Absolute pointer device over USB.", (HWTYPE,), default=True),
    Key("spice_enhancements", "string", "Extras of the SPICE console.", (OPTIONS,), status="stored",
        schema=Schema.of("foldersharing:boolean videostreaming:string=off|all|filter")),
    # ports and devices
    Key("serial", "string", "Serial port: socket, or a device of the host (root only).", (HWTYPE,), count=4,
        pattern=r"(/dev/.+|socket)",
        check=_device, note="a device of the host: refused at start"),
    Key("parallel", "string", "Parallel port of the host.", (HWTYPE,), count=3,
        pattern=r"/dev/parport\d+|/dev/usb/lp\d+", root=True,
        status="refused"),
    Key("usb", "string", "USB device: spice, a mapping, or a device of the host (root only).", (HWTYPE,), count=14,
        schema=USB_SCHEMA,
        check=_usb, status="refused"),
    Key("hostpci", "string", "PCI device: a mapping, or a device of the host (root only).", (HWTYPE,), count=16,
        schema=HOSTPCI_SCHEMA,
        check=_hostpci, status="refused"),
    Key("virtiofs", "string", "Directory of the host, by its mapping, shared over virtio-fs.", (OPTIONS,), count=10,
        schema=VIRTIOFS_SCHEMA, check=sub_patterns(VIRTIOFS_SCHEMA, dirid=_ID), status="refused"),
    Key("ivshmem", "string", "Memory shared between guests.", (HWTYPE,), schema=IVSHMEM_SCHEMA, root=True,
        status="refused",
        check=sub_patterns(IVSHMEM_SCHEMA, name=r"[A-Za-z0-9-]+")),
)  # fmt: skip
