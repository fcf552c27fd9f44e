"""Type `dir`: a directory of this machine (or one mounted there by its administrator)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from panal.core.errors import BadInput
from panal.storage.drivers.base import DriverType, StorageDriver
from panal.storage.drivers.dir import layout
from panal.storage.drivers.dir.driver import DirDriver
from panal.storage.model import CONTENTS, Option, StorageConfig

_FORBIDDEN: Final = ("/proc", "/sys", "/dev", "/etc", "/run", "/boot", "/usr", "/bin", "/sbin", "/lib")


def check(options: Mapping[str, Option]) -> None:
    """Options of a `dir` storage; BadInput naming the wrong one."""
    path = str(options["path"])
    pure = PurePosixPath(path)
    if not pure.is_absolute() or ".." in pure.parts or any(ord(c) < 32 or c in ',"' for c in path):
        raise BadInput("path", "the path must be absolute, without '..', commas, quotes and control characters")
    if str(pure) == "/" or any(str(pure) == f or str(pure).startswith(f"{f}/") for f in _FORBIDDEN):
        raise BadInput("path", f"{path} belongs to the system; choose a directory of its own, like /srv/panal")
    layout.directories(options)
    fmt = options.get("format", "raw")
    if fmt not in layout.IMAGE_FORMATS:
        raise BadInput("format", f"format '{fmt}' is not available here; {', '.join(layout.IMAGE_FORMATS)} are")
    if options.get("snapshot-as-volume-chain"):
        raise BadInput("snapshot-as-volume-chain", "snapshots as volume chains are not available; leave it out")
    mount = str(options.get("is_mountpoint", "no"))
    if mount.lower() not in ("yes", "no", "1", "0", "on", "off", "true", "false") and not mount.startswith("/"):
        raise BadInput("is_mountpoint", "give yes, no or the absolute path of the mount point")


def _build(config: StorageConfig) -> StorageDriver:
    return DirDriver(config)


TYPE: Final = DriverType(
    type="dir",
    contents=frozenset(CONTENTS),
    default_contents=("images",),
    required=("path",),
    fixed=("path",),
    options=frozenset({
        "path", "content-dirs", "mkdir", "create-base-path", "create-subdirs", "is_mountpoint", "format", "preallocation",
        "snapshot-as-volume-chain",
    }),
    check=check,
    parse_name=layout.parse_name,
    build=_build,
)  # fmt: skip
