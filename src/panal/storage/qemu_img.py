"""qemu-img, for every back end QEMU can open: creates, copies, resizes, snapshots images that no guest has open.

Called by drivers and `storage/copy.py`. The format is always given (`driver=…`), files come as descriptors that were opened
below the storage's root: qemu-img never resolves a path of a storage.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from panal.core.errors import Failed, ProgramFailed
from panal.host.run import run
from panal.host.threads import whole
from panal.storage.drivers.base import Progress, StorageDriver

QUICK_S: Final = 600
COPY_S: Final = 7 * 24 * 3600
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


@dataclass(frozen=True, slots=True)
class Opened:
    """An image as qemu-img takes it: `--image-opts` text, and the descriptors that go with it."""

    options: str
    fds: tuple[int, ...]


def flatten(options: Mapping[str, Any], prefix: str = "") -> str:
    """Nested block options → `a.b=c,…` with commas doubled, as QEMU wants them."""
    parts = []
    for key, value in options.items():
        if isinstance(value, Mapping):
            parts.append(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, (list, tuple)):
            parts.append(flatten({str(n): v for n, v in enumerate(value)}, f"{prefix}{key}."))
        else:
            text = ("on" if value else "off") if isinstance(value, bool) else str(value)
            parts.append(f"{prefix}{key}={text.replace(',', ',,')}")
    return ",".join(parts)


@asynccontextmanager
async def opened(driver: StorageDriver, name: str, *, write: bool) -> AsyncIterator[Opened]:
    """A volume made ready for qemu-img."""
    source = driver.source(name)
    if source.path is None:
        yield Opened(flatten({"driver": source.format, "file": source.blockdev}), ())
        return
    fd = await whole(lambda: driver.open(name, write=write), os.close)
    try:
        yield of_fd(fd, source.format)
    finally:
        os.close(fd)


def of_fd(fd: int, fmt: str) -> Opened:
    """An open file as an image of this format."""
    return Opened(f"driver={fmt},file.driver=file,file.filename=/proc/self/fd/{fd}", (fd,))


def shared(opened: Opened) -> Opened:
    """The same without its lock: a guest may have it open. Whoever reads it knows why what he reads stays as it is."""
    return replace(opened, options=opened.options + ",force-share=on")


async def qemu_img(argv: Sequence[str], fds: Sequence[int] = (), timeout_s: float = QUICK_S) -> str:
    """Run it; its output. Failed with what it said."""
    try:
        return (await run(["qemu-img", *argv], pass_fds=fds, timeout_s=timeout_s)).text
    except ProgramFailed as exc:
        raise _told(exc) from exc


def _told(exc: ProgramFailed) -> Failed:
    if "No space left" in exc.stderr or "Disk quota" in exc.stderr:
        return Failed("no space left on the storage; free some or choose another one")
    if "lock" in exc.stderr and "Is another process using" in exc.stderr:
        return Failed("the image is in use by a running guest; stop it first")
    return exc


async def convert(
    source: Opened, target: Opened, snapshot: str | None, progress: Progress | None, *,
    target_is_zero: bool, limit_bytes_s: int = 0,
) -> None:  # fmt: skip
    """Copy into an image that exists and is at least as big."""
    tail = bytearray()

    def output(data: bytes) -> None:
        tail.extend(data)
        found = _PERCENT.findall(tail)
        del tail[:-64]
        if found and progress is not None:
            progress(min(1.0, float(found[-1]) / 100))

    argv = ["qemu-img", "convert", "-p", "-n", "--image-opts", "--target-image-opts"]
    argv += ["--target-is-zero"] if target_is_zero else []
    argv += ["-r", str(limit_bytes_s)] if limit_bytes_s else []
    argv += ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    try:
        await run(
            [*argv, source.options, target.options],
            pass_fds=(*source.fds, *target.fds), timeout_s=COPY_S, on_output=output,
        )  # fmt: skip
    except ProgramFailed as exc:
        raise _told(exc) from exc
