"""Names and places of a directory storage: which file a volume is. Pure; the layout is that of Proxmox VE.

    images/VMID/vm-VMID-….{raw,qcow2}   template/iso   template/cache   snippets   dump   import   private

Invariant: `parse_name` accepts no name that could leave its directory, hide (leading dot), or end a property string (comma).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from panal.core.errors import BadInput
from panal.core.formats import split_list
from panal.storage.model import Option, VolumeName

DIRECTORIES: Final[Mapping[str, str]] = {
    "images": "images",
    "rootdir": "private",
    "iso": "template/iso",
    "vztmpl": "template/cache",
    "snippets": "snippets",
    "backup": "dump",
    "import": "import",
}
IMAGE_FORMATS: Final = ("raw", "qcow2")
_IMAGE = re.compile(r"([1-9]\d{2,8})/((vm|base)-([1-9]\d{2,8})-[A-Za-z0-9_][A-Za-z0-9_.+-]{0,150}\.(raw|qcow2))")
_SAFE = re.compile(r"[^\s./,:\\\x00-\x1f\x7f-][^/,:\\\x00-\x1f\x7f]{0,254}")
_COMPRESSED = {"gz": "tgz", "xz": "txz", "zst": "tzst", "bz2": "tbz2"}
_BACKUP = re.compile(
    r"vzdump-(?P<type>qemu|lxc|openvz)-(?P<vmid>[1-9]\d{2,8})-"
    r"(?P<time>\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d)\.(?P<ext>tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst|bz2))?)"
)


def parse_name(name: str) -> VolumeName:
    """A volume name taken apart; ValueError when no file of this layout is named so."""
    image = _IMAGE.fullmatch(name)
    if image is not None:
        if image[1] != image[4] or ".." in name:
            raise ValueError(name)
        return VolumeName(name, "images", image[5], int(image[1]), image[3] == "base")
    content, slash, file = name.partition("/")
    if not slash or not _SAFE.fullmatch(file) or len(file.encode()) > 255:
        raise ValueError(name)
    found = _file_format(content, file)
    if found is None:
        raise ValueError(name)
    return VolumeName(name, content, found[0], found[1])


def _file_format(content: str, file: str) -> tuple[str, int | None] | None:
    """Format and owner of a file in a content directory; None when it does not belong there."""
    low = file.lower()
    if content == "iso":
        return ("iso", None) if low.endswith((".iso", ".img")) else None
    if content == "vztmpl":
        m = re.search(r"\.tar\.(gz|xz|zst|bz2)$|\.(tar)$", low)
        return (_COMPRESSED.get(m[1] or "", "tar"), None) if m else None
    if content == "snippets":
        return "snippet", None
    if content == "import":
        ext = low.rpartition(".")[2]
        return (ext, None) if ext in ("qcow2", "raw", "vmdk", "ova", "ovf") else None
    if content == "backup":
        b = _BACKUP.fullmatch(file)
        return (b["ext"], int(b["vmid"])) if b else None
    return None


def backup_time(file: str) -> str | None:
    """`2026_01_31-12_00_00` of a backup's file name; None when it is named otherwise."""
    m = _BACKUP.fullmatch(file)
    return m["time"] if m else None


def image_name(vmid: int, stem: str, fmt: str) -> str:
    """Volume name of an image."""
    return f"{vmid}/{stem}.{fmt}"


def file_name(given: str) -> str:
    """A client's file name made safe: last path part, odd characters to `_`. BadInput when nothing usable is left."""
    name = re.sub(r"[^A-Za-z0-9_.+@-]", "_", re.split(r"[/\\]", given)[-1])[:255].lstrip(".-")
    if not name:
        raise BadInput("filename", "the file name has no usable characters; use letters, digits, '.', '_' and '-'")
    return name


def directories(options: Mapping[str, Option]) -> dict[str, str]:
    """Content type → directory below the root, with `content-dirs` applied; BadInput on that option."""
    found = dict(DIRECTORIES)
    for part in split_list(str(options.get("content-dirs", ""))):
        content, equals, path = part.partition("=")
        parts = path.strip("/").split("/")
        if not equals or content not in found or any(p in ("", ".", "..") for p in parts):
            raise BadInput(
                "content-dirs", f"'{part}' is not CONTENT=RELATIVE/PATH; content is one of {', '.join(sorted(found))}"
            )
        found[content] = "/".join(parts)
    if len(set(found.values())) != len(found):
        raise BadInput("content-dirs", "two kinds of content must not share a directory")
    return found
