"""Work in a thread whose result must not be lost when the caller is cancelled: files made, descriptors opened.

Called by storage drivers. Invariant: when `whole` raises CancelledError, the work has ended and `undo` has taken its result
back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from panal.core.errors import PanalError

T = TypeVar("T")


async def whole(work: Callable[[], T], undo: Callable[[T], object]) -> T:
    """Run `work` in a thread. On cancellation wait for it (a thread cannot be stopped), then `undo(result)` in a thread."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        with suppress(PanalError, OSError):
            await asyncio.to_thread(undo, await running)
        raise
