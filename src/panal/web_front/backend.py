"""panal-web's connections to paneld: a bounded pool, one request at a time on each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from panal.api.wire import model
from panal.api.wire.channel import Channel
from panal.core.errors import Busy, Unavailable
from panal.core.frames import BadFrame

MAX_CHANNELS: Final = 256
QUEUE_S: Final = 10.0
ANSWER_S: Final = 660.0


class Backend:
    """The way to paneld. Errors: Unavailable (paneld does not answer), Busy (all connections are in use)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._free: list[Channel] = []
        self._places = asyncio.Semaphore(MAX_CHANNELS)

    async def call(self, request: model.Request, body: bytes = b"") -> tuple[model.Answer, bytes, list[int]]:
        """One request. A connection that paneld closed while it lay idle (a restart) is replaced once."""
        async with self.channel() as channel:
            await ask(channel, request, body)
            return await answer(channel)

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[Channel]:
        """A connection of one's own; goes back into the pool if all went well."""
        try:
            async with asyncio.timeout(QUEUE_S):
                await self._places.acquire()
        except TimeoutError:
            raise Busy("too many requests are under way; try again") from None
        try:
            channel = await self._open()
            try:
                yield channel
            except BaseException:
                channel.close()
                raise
            self._free.append(channel)
        except (OSError, BadFrame, msgspec.DecodeError, TimeoutError) as exc:
            raise Unavailable("the node's daemon (paneld) does not answer; it may be starting: try again") from exc
        finally:
            self._places.release()

    async def _open(self) -> Channel:
        while self._free:
            channel = self._free.pop()
            if channel.alive():
                return channel
            channel.close()
        return await Channel.connect(self._path)

    def close(self) -> None:
        """Close what lies idle."""
        while self._free:
            self._free.pop().close()


async def ask(channel: Channel, request: model.Request, body: bytes) -> None:
    """Send a request."""
    async with asyncio.timeout(60):
        await channel.send(model.encode(request), body)


async def answer(channel: Channel, timeout_s: float | None = ANSWER_S) -> tuple[model.Answer, bytes, list[int]]:
    """Read an answer; descriptors are the caller's. BadFrame when the other end went away."""
    async with asyncio.timeout(timeout_s):
        frame = await channel.receive()
    if frame is None:
        raise BadFrame("paneld closed the connection")
    header, body, descriptors = frame
    try:
        return model.read_answer(header), body, descriptors
    except msgspec.DecodeError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
