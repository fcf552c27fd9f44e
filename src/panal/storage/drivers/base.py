"""The interface of a storage back end. Every driver passes `tests/contract/storage`.

Called by `storage/` (content, allocation, upload) and, through it, by `guests`. A driver owns its volumes' names below the
storage and nothing else; it never sees a guest's configuration. Volume names are those of the API
(`100/vm-100-disk-0.qcow2`, `iso/debian.iso`): storage id + `:` + name is a volume id (volid).

Invariants: `allocate` never overwrites; a failed or cancelled call leaves no volume; formats are given, never guessed; a
driver opens or creates files only below its own root (openat2 RESOLVE_BENEATH). All methods are idempotent where the
step rules (tasks/steps.py) need it: `free` of an absent volume is no error.

`fmt` of an image is given by its name and by what Panal recorded, never read from its content; a driver refuses an image
whose header names another file (storage/images.py) before any tool touches it.

`lock` says what protects a volume from two writers on two nodes (design 6.10): `lock` the hypervisor's image locks work,
`reserve` the device can be reserved, `none` nothing does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from panal.storage.model import Option, StorageConfig, VolumeName

Content = Literal["images", "rootdir", "iso", "vztmpl", "snippets", "backup", "import"]
Format = Literal["raw", "qcow2"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the back end can do. Absent ones are refused with a sentence that says what would work."""

    contents: frozenset[str]
    formats: tuple[str, ...]
    default_format: str
    snapshot_formats: frozenset[str] = frozenset()
    """formats whose volumes can be snapshotted"""
    lock: Literal["lock", "reserve", "none"] = "none"
    shared: bool = False
    resize: bool = True
    upload: bool = False
    """takes files that are not images (ISO…)"""
    export: bool = True
    unavailable: str | None = None
    """why it cannot be used on this machine, with the package to install; None when it can"""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as listed. Sizes in bytes; `used` is what it occupies; `ctime` seconds since the epoch."""

    name: str
    content: str
    format: str
    size: int
    used: int = 0
    ctime: int = 0
    vmid: int | None = None
    parent: str | None = None
    notes: str | None = None
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes."""

    total: int
    used: int
    available: int
    active: bool = True


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """How a hypervisor opens the volume: `blockdev` holds the protocol node without a node name (QMP `BlockdevOptions`).

    `path` is set when the driver's volume is a file or device that is opened by our daemon and passed as a descriptor.
    """

    format: str
    path: str | None = None
    blockdev: Mapping[str, Any] = field(default_factory=dict)


Progress = Callable[[float], None]
"""Told the done share, 0..1."""


class StorageDriver(Protocol):
    """One configured storage on this node. Errors: NotFound, Conflict, BadInput, Unsupported, Failed (full disk…).

    A driver never blocks the loop; a back end that hangs makes its own calls wait, nobody else's.
    """

    id: str
    capabilities: Capabilities

    async def activate(self) -> None:
        """Make it usable (create directories, mount, log in); quick when it is already."""

    async def deactivate(self) -> None:
        """Let go of what `activate` made, if nobody uses it; the content stays. No error when it is not active."""

    async def usage(self) -> Usage:
        """Total, used, available; `active` False when it cannot be reached."""

    async def list(self, content: str | None = None, vmid: int | None = None) -> Sequence[Volume]:
        """Volumes, sorted by name."""

    async def info(self, name: str) -> Volume:
        """One volume. NotFound."""

    def parse(self, name: str) -> VolumeName:
        """A volume name taken apart; BadInput on `volume` when nothing here is named like that. Pure."""

    def image_name(self, vmid: int, stem: str, fmt: str) -> str:
        """Volume name of an image: (100, `vm-100-disk-0`, qcow2) → `100/vm-100-disk-0.qcow2` here, without both elsewhere."""

    async def allocate(self, vmid: int, name: str, fmt: str, size: int) -> None:
        """A new empty image of `size` bytes under exactly this name; Conflict if it is there."""

    async def free(self, name: str) -> None:
        """Remove; nothing happens when it is not there. Conflict while another volume is based on it or it is protected."""

    async def resize(self, name: str, size: int) -> None:
        """Grow an image that no guest has open; BadInput when it would shrink. Nothing happens when it has that size."""

    async def copy(
        self, name: str, target: StorageDriver, target_name: str, fmt: str,
        snapshot: str | None = None, progress: Progress | None = None, *, shared: bool = False,
        limit_bytes_s: int = 0,
    ) -> None:  # fmt: skip
        """Full copy of a volume (or one of its snapshots) to a new volume of another or the same storage.

        `shared`: a guest has it open, but what is copied does not change: a snapshot, or the whole while the guest is paused
        and has flushed. It is read all the same, without its lock. `limit_bytes_s`: not faster than this; 0 is no limit.
        Conflict when the target is there. `storage/copy.py` does it for every pair of drivers that QEMU can open; a driver
        has its own way (clone of the back end) for a pair it knows better.
        """

    async def snapshot(self, name: str, snapshot: str) -> None:
        """Snapshot of a volume that no guest has open; Conflict when the name is taken."""

    async def rollback(self, name: str, snapshot: str) -> None:
        """Back to a snapshot; the volume must not be open. NotFound."""

    async def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Remove a snapshot of a volume that no guest has open; nothing happens when it is not there."""

    async def snapshots(self, name: str) -> Sequence[str]:
        """Names of the snapshots a volume holds, oldest first."""

    async def make_base(self, name: str) -> str:
        """Turn `vm-…` into a read-only `base-…` for templates; returns the new name. Quick when done already."""

    def source(self, name: str) -> VolumeSource:
        """How the hypervisor opens it. The format is the name's (or the back end's only one)."""

    def open(self, name: str, *, write: bool) -> int:
        """A file descriptor of the volume, opened below the root; the caller closes it. Unsupported where there is none.

        Quick, but blocking: call it in a thread when the storage may be remote.
        """

    def location(self, name: str) -> str:
        """Where a person finds it: path, device or URL. For show; nothing is opened by it."""

    def create_upload(self, content: str) -> tuple[int, str]:
        """A descriptor to write incoming content into and its token; `finish_upload` or `abort_upload` follows.

        `content` is what it will probably be; `finish_upload` may name another kind.
        """

    async def finish_upload(self, token: str, content: str, filename: str) -> str:
        """Name what was written; returns the volume name. Conflict-free: replaces an ISO of the same name, as PVE does.

        The caller closes the descriptor.
        """

    async def abort_upload(self, token: str) -> None:
        """Forget what was written; nothing happens when it is gone."""

    async def set_attributes(self, name: str, *, notes: str | None = None, protected: bool | None = None) -> None:
        """Change notes (empty removes) or protection; None leaves. Unsupported for content that has no place for them."""

    async def export(self, name: str, fd: int, snapshot: str | None = None) -> None:
        """Write the content as a hypervisor sees it (raw, sparse) into an open regular file, from its beginning.

        With a snapshot: as of then. Content that is no image is written as it is.
        """


@dataclass(frozen=True, slots=True)
class DriverType:
    """What is known of a type of storage before there is one: for configuration, volume ids and help texts."""

    type: str
    contents: frozenset[str]
    default_contents: tuple[str, ...]
    required: tuple[str, ...]
    """options that must be given; `fixed` ones cannot be changed afterwards"""
    fixed: tuple[str, ...]
    options: frozenset[str]
    """all of its own options (those every type has are in storage/config.py)"""
    check: Callable[[Mapping[str, Option]], None]
    """raises BadInput naming the option"""
    parse_name: Callable[[str], VolumeName]
    """raises ValueError when no volume is named like that"""
    build: Callable[[StorageConfig], StorageDriver]
