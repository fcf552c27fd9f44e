"""Work on one thing queues (design D8): one at a time, first come first served, bounded, visible.

`tasks/runner.py` holds one `Queues`; synchronous API calls use it too, so a task and a quick change never meet on a guest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from panal.core.errors import Busy

MAX_WAITING: Final = 64


class Queues:
    """Named queues, made when needed and forgotten when empty."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max = max_waiting
        self._holders: dict[str, str] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def holder(self, name: str) -> str | None:
        """Who works on it now."""
        return self._holders.get(name)

    @asynccontextmanager
    async def turn(
        self,
        name: str,
        who: str,
        waiting: Callable[[str], None] | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[None]:
        """Wait for the turn, hold it inside the block.

        `waiting` is told whom we wait for. Busy when the queue is full, or when the turn did not come within `timeout_s`.
        """
        await self._enter(name, who, waiting, timeout_s)
        try:
            yield
        finally:
            self._leave(name)

    async def _enter(self, name: str, who: str, waiting: Callable[[str], None] | None, timeout_s: float | None) -> None:
        if name not in self._holders:
            self._holders[name] = who
            return
        line = self._waiting.setdefault(name, deque())
        if len(line) >= self._max:
            raise Busy(f"{len(line)} others wait for {name} already; try again later", queue=name)
        if waiting is not None:
            waiting(self._holders[name])
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(turn)
        except BaseException as exc:
            if turn.done():
                self._leave(name)  # our turn came in the same moment: pass it on
            else:
                line.remove(turn)
                if not line:
                    self._waiting.pop(name, None)
            if isinstance(exc, TimeoutError):
                raise Busy(
                    f"{name} is busy with {self._holders.get(name, 'other work')}; try again", queue=name
                ) from None
            raise
        self._holders[name] = who

    def _leave(self, name: str) -> None:
        line = self._waiting.get(name)
        while line:
            turn = line.popleft()
            if not line:
                del self._waiting[name]
            if not turn.done():
                turn.set_result(None)  # the holder's name is set when it wakes up; the place is never free in between
                return
        self._holders.pop(name, None)
