"""The QEMU guest agent, as far as copies need it: file systems quiet for a moment. Called by `copies.py`.

Whoever speaks there is the guest: what comes back is bounded in time and size, and nothing of it is believed but "it is
frozen". Invariant: what was asked to freeze is asked to thaw, whatever happens between; an agent that is absent, old or stuck
costs FREEZE_S once and the copy is crash-consistent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from panal.guests.config.read import Agent

FREEZE_S: Final = 5
THAW_S: Final = 10
_TRIES: Final = 6
_LIMIT: Final = 1 << 16
_TROUBLE: Final = (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


@contextlib.asynccontextmanager
async def frozen(door: Path, wanted: Agent) -> AsyncIterator[bool]:
    """File systems frozen inside the block, if the guest's agent can and may; whether they are."""
    if not wanted.enabled or not wanted.freeze_fs:
        yield False
        return
    asked = False
    try:
        async with asyncio.timeout(FREEZE_S):
            await _sync(door)
            asked = True
            count = await _ask(door, "guest-fsfreeze-freeze")
        done = isinstance(count, int)
    except _TROUBLE:
        done = False
    except asyncio.CancelledError:
        if asked:
            await asyncio.shield(_thaw(door))
        raise
    try:
        yield done
    finally:
        if asked:  # also when no answer came: it may have frozen and been slow to say so
            thawing = asyncio.ensure_future(_thaw(door))
            await asyncio.shield(thawing)


async def thaw(door: Path, wanted: Agent) -> None:
    """After a daemon that died, maybe while they were frozen: until the agent has answered, or a few times in vain."""
    if wanted.enabled and wanted.freeze_fs:
        for _ in range(_TRIES):
            if await _thaw(door):
                return
            await asyncio.sleep(THAW_S)


async def _thaw(door: Path) -> bool:
    """Whether it answered."""
    try:
        async with asyncio.timeout(THAW_S):
            await _ask(door, "guest-fsfreeze-thaw")
    except _TROUBLE:
        return False
    return True


async def _sync(door: Path) -> None:
    await _ask(door, None)


async def _ask(door: Path, command: str | None) -> Any:
    """Make the channel clean (an answer to an older question may be in it), then ask. ValueError when refused."""
    reader, writer = await asyncio.open_unix_connection(door, limit=_LIMIT)
    try:
        number = secrets.randbelow(1 << 31)
        writer.write(b"\xff" + _line("guest-sync-delimited", id=number))
        while True:
            await reader.readuntil(b"\xff")
            if (await _answer(reader)).get("return") == number:
                break
        if command is None:
            return None
        writer.write(_line(command))
        answer = await _answer(reader)
        if "return" not in answer:
            raise ValueError(command)
        return answer["return"]
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        answer = json.loads(await reader.readuntil(b"\n"))
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc
    if not isinstance(answer, dict):
        raise ValueError("no object")
    return answer


def _line(command: str, **arguments: object) -> bytes:
    return json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})}).encode() + b"\n"
