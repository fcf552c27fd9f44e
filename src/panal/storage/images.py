"""What the header of an image says, read in a jail, and the refusals that follow from it (attack rows 14, 15).

Called by drivers before any tool or hypervisor gets near an image, and for lists. Formats are given by the caller and never
derived from what is found: a raw disk into which its guest wrote a qcow2 header stays raw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from panal.core.errors import BadInput, Failed
from panal.host import jail

_SCRIPT: Final = Path(__file__).with_name("image_header.py")
_TIMEOUT_S: Final = 30
BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Header:
    """What stands in a file's first bytes. `size` is the virtual size; `format` is a claim of the file, not a fact."""

    format: str
    size: int
    version: int = 0
    names_other: str | None = None
    broken: str | None = None
    snapshots: tuple[tuple[str, int], ...] = ()
    """name and virtual size then, oldest first"""


async def inspect(fds: Sequence[int]) -> list[Header]:
    """Headers of open files, in order, at most BATCH at once. Failed when the reader dies on one of them."""
    answer = await jail.call(_SCRIPT, {"fds": list(fds)}, fds=fds, timeout_s=_TIMEOUT_S)
    try:
        headers = msgspec.convert(answer, list[Header])
    except msgspec.ValidationError as exc:
        raise Failed("reading an image's header gave no usable answer") from exc
    if len(headers) != len(fds):
        raise Failed("reading an image's header gave no usable answer")
    return headers


async def require_plain(fd: int, fmt: str, what: str, field: str = "volume") -> Header:
    """The header of an image that is what it is said to be and stands on its own; BadInput on `field` otherwise.

    `raw` has no header: whatever a guest wrote into it is data, and nothing is read.
    """
    if fmt == "raw":
        return Header("raw", 0)
    (header,) = await inspect([fd])
    if header.names_other:
        raise BadInput(field, f"{what} refers to {header.names_other}; only images that stand on their own are taken")
    if header.format != fmt:
        raise BadInput(field, f"{what} is not a {fmt} image; convert it with 'qemu-img convert -O {fmt}' first")
    if header.broken:
        raise BadInput(field, f"{what} is no usable {fmt} image: {header.broken}")
    return header
