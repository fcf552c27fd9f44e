"""Reads headers of disk images. Runs in the jail (host/jail.py) on bytes nobody vouches for: only the standard library.

`main({"fds": [n…]})` → one description for each descriptor:
`{"format", "size", "version", "names_other": null | what, "broken": null | why, "snapshots": [[name, size]…]}`. `format` is
what the first bytes say and decides nothing: the caller knows the format and only compares (attack row 15).
"""

import os
import struct
from typing import Any

_QCOW2 = b"QFI\xfb"
# Beginnings of formats that can name other files or that we do not take.
_OTHER = (
    (b"KDMV", "vmdk"), (b"COWD", "vmdk"), (b"# Disk DescriptorFile", "vmdk"), (b"QED\x00", "qed"), (b"conectix", "vpc"),
    (b"vhdxfile", "vhdx"), (b"WithoutFreeSpace", "parallels"), (b"WithouFreSpacExt", "parallels"), (b"OOOM", "cow"),
)  # fmt: skip
_MAX_SNAPSHOTS = 65536
_MAX_TABLE = 16 * 1024 * 1024
_EXT_END, _EXT_DATA_FILE = 0, 0x44415441
_MAX_SIZE = 1 << 60


class Broken(Exception):
    """The header contradicts itself or the file."""


def _read(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    if len(data) != length:
        raise Broken("it ends in the middle of its header")
    return data


def _extensions(fd: int, start: int, end: int) -> bool:
    """Whether one of them names a data file. Every step moves on by at least 8 bytes, so it ends."""
    names = False
    while start + 8 <= end:
        kind, length = struct.unpack(">II", _read(fd, start, 8))
        if kind == _EXT_END:
            return names
        if length > end - start - 8:
            raise Broken("a header extension is longer than the header")
        names = names or kind == _EXT_DATA_FILE
        start += 8 + (length + 7) // 8 * 8
    return names


def _snapshots(fd: int, count: int, offset: int, size: int) -> list[list[Any]]:
    if count > _MAX_SNAPSHOTS:
        raise Broken("it claims more snapshots than there can be")
    found: list[list[Any]] = []
    start = offset
    for _ in range(count):
        if offset - start > _MAX_TABLE:
            raise Broken("its table of snapshots is longer than it may be")
        fixed = _read(fd, offset, 40)
        id_len, name_len = struct.unpack(">HH", fixed[12:16])
        (extra,) = struct.unpack(">I", fixed[36:40])
        if extra > 1024:
            raise Broken("a snapshot entry is longer than it may be")
        text = _read(fd, offset + 40, extra + id_len + name_len)
        disk = struct.unpack(">Q", text[8:16])[0] if extra >= 16 else size
        found.append([text[extra + id_len :].decode(errors="replace"), min(disk, _MAX_SIZE)])
        offset += (40 + extra + id_len + name_len + 7) // 8 * 8
    return found


def _qcow2(fd: int, out: dict[str, Any]) -> None:
    head = _read(fd, 0, 72)
    version, backing, _backing_len, bits, size, crypt = struct.unpack(">IQIIQI", head[4:36])
    count, snapshots_at = struct.unpack(">IQ", head[60:72])
    out.update(format="qcow2", size=size, version=version)
    if version not in (2, 3):
        raise Broken(f"its version {version} is not 2 or 3")
    if not 9 <= bits <= 21 or size > _MAX_SIZE:
        raise Broken("its cluster size or size is out of range")
    if backing:
        out["names_other"] = "a backing file"
    length, incompatible = 72, 0
    if version == 3:
        (incompatible,) = struct.unpack(">Q", _read(fd, 72, 8))
        (length,) = struct.unpack(">I", _read(fd, 100, 4))
        if not 104 <= length <= 1 << bits:
            raise Broken("its header length is out of range")
    if incompatible & 4:
        out["names_other"] = "a data file"
    if incompatible & 2:
        raise Broken("it is marked as corrupt")
    if incompatible & ~0b11111:
        raise Broken("it uses features that are not known here")
    if crypt:
        raise Broken("it is encrypted")
    if _extensions(fd, length, backing if 0 < backing < 1 << bits else 1 << bits):
        out["names_other"] = "a data file"
    out["snapshots"] = _snapshots(fd, count, snapshots_at, size)


def describe(fd: int) -> dict[str, Any]:
    """One image."""
    out: dict[str, Any] = {
        "format": "raw", "size": os.fstat(fd).st_size, "version": 0, "names_other": None, "broken": None, "snapshots": [],
    }  # fmt: skip
    start = os.pread(fd, 32, 0)
    try:
        if start.startswith(_QCOW2):
            _qcow2(fd, out)
        else:
            out["format"] = next((name for magic, name in _OTHER if start.startswith(magic)), "raw")
            if out["format"] == "vmdk":
                out["names_other"] = "extents"
    except (Broken, struct.error, OverflowError, OSError) as exc:
        out["broken"] = str(exc)[:200] if isinstance(exc, Broken) else "its header cannot be read"
    return out


def main(args: dict[str, Any]) -> list[dict[str, Any]]:
    """Entry for the jail."""
    return [describe(fd) for fd in args["fds"]]
