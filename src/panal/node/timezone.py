"""The machine's clock and time zone."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from panal.core.errors import BadInput, Failed
from panal.node import files
from panal.node.context import PROGRAM_TIMEOUT_S, NodeInfo

ZONES: Final = "/usr/share/zoneinfo"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*){0,2}")


def name(info: NodeInfo) -> str:
    """The zone's name, like Europe/Vienna."""
    with suppress(OSError):
        found = str(info.path("/etc/localtime").readlink()).partition("zoneinfo/")[2]
        if found:
            return found
    return files.read(info.path("/etc/timezone")).decode(errors="replace").strip() or "UTC"


def _zone(info: NodeInfo, zone: str) -> tzinfo:
    try:
        with (info.path(ZONES) / zone).open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return UTC


def read(info: NodeInfo) -> dict[str, int | str]:
    """Zone, seconds since the epoch, and the same shifted by the zone's offset (as the API wants it)."""
    zone, now = name(info), int(info.clock.wall_s())
    offset = datetime.fromtimestamp(now, _zone(info, zone)).utcoffset()
    return {"timezone": zone, "time": now, "localtime": now + int(offset.total_seconds() if offset else 0)}


async def write(info: NodeInfo, zone: str) -> None:
    """Set the zone. BadInput when this machine does not know it."""
    if not _NAME.fullmatch(zone) or not (info.path(ZONES) / zone).is_file():
        raise BadInput("timezone", f"no such time zone on this node: '{zone[:64]}'; it looks like Europe/Vienna")
    async with info.writing:
        if info.systemd:
            await info.run(["timedatectl", "set-timezone", "--", zone], timeout_s=PROGRAM_TIMEOUT_S)
            return
        await asyncio.to_thread(_link, info, zone)


def _link(info: NodeInfo, zone: str) -> None:
    local = info.path("/etc/localtime")
    aside = local.with_name(f".localtime.{os.getpid()}")
    try:
        aside.unlink(missing_ok=True)
        aside.symlink_to(f"{ZONES}/{zone}")
        aside.replace(local)
    except OSError as exc:
        raise Failed(f"the time zone cannot be set: {exc.strerror}") from exc
    files.replace(info.path("/etc/timezone"), f"{zone}\n".encode())
