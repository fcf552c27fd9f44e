"""Drives: from a key with its descriptor to block nodes, controllers and devices. Called by `machine.build`.

A drive `scsi0` has three things: the protocol node `file-scsi0` (our descriptor, image locks on), the format node
`drive-scsi0` (what snapshots and resizes name) and the device `scsi0`. Formats are given, never guessed (attack row 15), and a
qcow2 image gets no backing file from its header (row 14): `backing` is null unless Panal passes one.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from panal.core.errors import BadInput
from panal.guests.config import Drive, read, read_drives
from panal.guests.drivers.base import Disk
from panal.guests.drivers.qemu.addresses import Addresses
from panal.guests.drivers.qemu.argv import Argv, is_block_device

_CACHE: Final = {  # direct, no-flush, device write cache
    "none": (True, False, True),
    "writethrough": (False, False, False),
    "writeback": (False, False, True),
    "unsafe": (False, True, True),
    "directsync": (True, False, False),
}
_RATES: Final = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")
_SCSI: Final = {"lsi": "lsi53c895a", "lsi53c810": "lsi53c810", "megasas": "megasas", "pvscsi": "pvscsi"}
LSI_DRIVES: Final = 7
"""drives an LSI controller has room for"""


def drives(argv: Argv, config: Mapping[str, str], disks: Sequence[Disk], addresses: Addresses) -> None:
    """All drives but efidisk0 and tpmstate0. BadInput names the key."""
    given = {disk.key: disk for disk in disks}
    order = {key: 100 + n for n, key in enumerate(read.boot_order(config))}
    controllers = _Controllers(argv, config, addresses)
    for drive in read_drives(config):
        if drive.bus in ("efidisk", "tpmstate"):
            continue
        disk = given.get(drive.key)
        node = None
        if disk is not None and disk.fd is not None:
            node = _nodes(argv, drive, disk, disk.fd)
        elif not drive.cdrom:
            raise BadInput(drive.key, f"{drive.key}: the volume of this drive was not opened")
        device = controllers.device(drive)
        if node is not None:
            device |= {"drive": node}
        if drive.key in order:
            device["bootindex"] = order[drive.key]
        argv.device(device | _device_options(drive, node is not None))
        argv.after += _throttle(drive)


def node_of(key: str) -> str:
    """Name of a drive's format node."""
    return f"drive-{key}"


def _nodes(argv: Argv, drive: Drive, disk: Disk, fd: int) -> str:
    read_only = drive.read_only or disk.read_only
    direct, no_flush, _ = _cache(argv, drive, fd)
    kind = "host_device" if is_block_device(fd) else "file"
    discard = "unmap" if drive.options.get("discard") == "on" else "ignore"
    cache = {"direct": direct, "no-flush": no_flush}
    protocol: dict[str, object] = {
        "driver": kind, "node-name": f"file-{drive.key}", "filename": argv.fdset(fd, write=not read_only, direct=direct),
        "locking": "on", "aio": _aio(drive, direct), "cache": cache, "discard": discard, "read-only": read_only,
    }  # fmt: skip
    node: dict[str, object] = {
        "driver": disk.fmt, "node-name": node_of(drive.key), "file": f"file-{drive.key}", "cache": cache,
        "discard": discard, "read-only": read_only,
    }  # fmt: skip
    if disk.fmt == "qcow2":
        node["backing"] = None
    if not read_only and drive.options.get("detect_zeroes", True):
        node["detect-zeroes"] = "unmap" if discard == "unmap" else "on"
    argv.blockdev(protocol)
    argv.blockdev(node)
    return node_of(drive.key)


def _cache(argv: Argv, drive: Drive, fd: int) -> tuple[bool, bool, bool]:
    chosen = drive.options.get("cache")
    if drive.cdrom and chosen is None:
        return (False, False, True)
    mode = _CACHE[str(chosen or "none")]
    if chosen is None and not _can_direct(fd):
        argv.notes.append(f"{drive.key}: its file system cannot bypass the page cache; cache=writeback is used")
        return _CACHE["writeback"]
    return mode


def _can_direct(fd: int) -> bool:
    """Whether O_DIRECT works there (not on every tmpfs, FUSE, overlay)."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        other = os.open(f"/proc/self/fd/{fd}", (flags & os.O_ACCMODE) | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as exc:
        return exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP)
    os.close(other)
    return True


def _aio(drive: Drive, direct: bool) -> str:
    chosen = drive.options.get("aio")
    if chosen == "native" and not direct:
        raise BadInput(drive.key, f"{drive.key}: aio=native needs cache=none or cache=directsync")
    if chosen is not None:
        return str(chosen)
    return "io_uring" if not drive.cdrom and _io_uring() else "threads"


def _io_uring() -> bool:
    try:
        return Path("/proc/sys/kernel/io_uring_disabled").read_text().strip() == "0"
    except OSError:
        return False


def _device_options(drive: Drive, medium: bool) -> dict[str, object]:
    o = drive.options
    out: dict[str, object] = {}
    for name in ("serial", "model", "vendor", "product"):
        if name in o:
            out[name] = str(o[name])
    if "wwn" in o:
        out["wwn"] = _wwn(drive)
    if o.get("ssd") and not drive.cdrom and drive.bus != "virtio":
        out["rotation_rate"] = 1
    if medium and not drive.cdrom:
        out["write-cache"] = "on" if _CACHE[str(o.get("cache", "none"))][2] else "off"
        for name in ("werror", "rerror"):
            if name in o:
                out[name] = str(o[name])
    return out


def _wwn(drive: Drive) -> int:
    try:
        return int(str(drive.options["wwn"]), 16)
    except ValueError:
        raise BadInput(drive.key, f"{drive.key}: wwn must be a hexadecimal number like 0x5000c50015ea71ac") from None


def _throttle(drive: Drive) -> list[tuple[str, dict[str, object]]]:
    """Limits are set by QMP, as a change while it runs will be; the API's megabytes are MiB."""
    o = drive.options
    limits: dict[str, object] = {}
    for name in _RATES:
        limits[name] = int(float(o.get(name, 0)))
        megabytes = name.replace("bps", "mbps")
        if name.startswith("bps") and o.get(megabytes):
            limits[name] = int(float(o[megabytes]) * (1 << 20))
        burst = o.get(f"{name}_max") or float(o.get(f"{megabytes}_max", 0)) * (1 << 20)
        if burst:
            limits[f"{name}_max"] = int(burst)
            if o.get(f"{name}_max_length"):
                limits[f"{name}_max_length"] = int(o[f"{name}_max_length"])
    if not any(limits.values()):
        return []
    # virtio-blk wants the inner device here, the others the device itself (recipe pitfall 6)
    path = f"/machine/peripheral/{drive.key}/virtio-backend" if drive.bus == "virtio" else drive.key
    return [("block_set_io_throttle", {"id": path, **limits})]


class _Controllers:
    """Makes each controller when the first drive needs it."""

    def __init__(self, argv: Argv, config: Mapping[str, str], addresses: Addresses) -> None:
        self._argv = argv
        self._addresses = addresses
        self._config = config
        self._q35 = read.is_q35(config)
        self._made: set[str] = set()

    def device(self, drive: Drive) -> dict[str, object]:
        """`-device` properties of the drive, its place on the bus included."""
        kind = "cd" if drive.cdrom else "hd"
        out: dict[str, object] = {"id": drive.key}
        if drive.bus == "virtio":
            out |= {"driver": "virtio-blk-pci", **self._addresses.place(drive.key)}
            return out | self._iothread(drive)
        if drive.bus == "ide" and not self._q35:
            return out | {"driver": f"ide-{kind}", "bus": f"ide.{drive.index // 2}", "unit": drive.index % 2}
        if drive.bus in ("ide", "sata"):
            controller = "ahci1" if drive.bus == "ide" else "ahci0"
            if self._q35 and drive.bus == "sata":
                return out | {"driver": f"ide-{kind}", "bus": f"ide.{drive.index}"}
            self._make(controller, {"driver": "ich9-ahci"})
            return out | {"driver": f"ide-{kind}", "bus": f"{controller}.{drive.index}"}
        return out | {"driver": f"scsi-{kind}", **self._scsi(drive)}

    def _scsi(self, drive: Drive) -> dict[str, object]:
        hardware = self._config.get("scsihw", "lsi")
        if hardware == "virtio-scsi-single":
            name = f"virtioscsi{drive.index}"
            self._make(name, {"driver": "virtio-scsi-pci", **self._queues(drive), **self._iothread(drive)})
            return {"bus": f"{name}.0", "channel": 0, "scsi-id": 0, "lun": drive.index}
        if drive.options.get("iothread"):
            self._argv.notes.append(f"{drive.key}: iothread needs scsihw virtio-scsi-single, and is ignored")
        if hardware == "virtio-scsi-pci":
            self._make("scsihw0", {"driver": "virtio-scsi-pci", **self._queues(drive)})
            return {"bus": "scsihw0.0", "channel": 0, "scsi-id": 0, "lun": drive.index}
        per_controller = LSI_DRIVES if hardware.startswith("lsi") else 31
        name = f"scsihw{drive.index // per_controller}"
        self._make(name, {"driver": _SCSI[hardware]})
        return {"bus": f"{name}.0", "scsi-id": drive.index % per_controller}

    def _queues(self, drive: Drive) -> dict[str, object]:
        return {"num_queues": int(drive.options["queues"])} if "queues" in drive.options else {}

    def _iothread(self, drive: Drive) -> dict[str, object]:
        if not drive.options.get("iothread"):
            return {}
        name = f"iothread-{drive.key}"
        self._argv.object({"qom-type": "iothread", "id": name})
        return {"iothread": name}

    def _make(self, name: str, props: dict[str, object]) -> None:
        if name not in self._made:
            self._made.add(name)
            self._argv.device({"id": name, **props, **self._addresses.place(name)})
