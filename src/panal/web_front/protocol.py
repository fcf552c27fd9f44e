"""uvicorn's HTTP protocol with what clients of the Proxmox VE API need, and with limits.

uvicorn writes the status line from the number alone; clients read the *reason phrase* (pve-facts §1). An application puts
`reason` (bytes, one line, latin-1) into its `http.response.start`. Heads are bounded in number, size and time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEADERS: Final = 64
MAX_HEAD_BYTES: Final = 8 * 1024
HEAD_TIMEOUT_S: Final = 20.0
_LINE = re.compile(rb"[^\x20-\x7e\xa0-\xff]")

App = Callable[[Any, Any, Any], Awaitable[None]]


class HeadTooLong(Exception):
    """More headers or bytes than we take; uvicorn answers 400 and closes."""


class _StatusLine:
    """Stands for the transport during the write that holds the status line."""

    def __init__(self, transport: Any, status: int, reason: bytes) -> None:
        self._transport = transport
        self._line = b"HTTP/1.1 %d %s" % (status, _LINE.sub(b" ", reason))

    def write(self, data: bytes) -> None:
        _, end, rest = data.partition(b"\r\n")
        self._transport.write(self._line + end + rest)


class Protocol(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; its first request must come in time."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._slow: asyncio.TimerHandle | None = None
        self._wait_for_head()

    @property
    def idle(self) -> bool:
        """Nothing was asked that is not answered and sent."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and self.transport.get_write_buffer_size() == 0

    def _wait_for_head(self) -> None:
        self._head_arrived()
        self._slow = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _head_arrived(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        self._head_arrived()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """From here on another protocol."""
        self._head_arrived()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._head_bytes = 0
        self._wait_for_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count(len(name) + len(value) + 4)
        if len(self.headers) >= MAX_HEADERS:
            raise HeadTooLong
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HeadTooLong

    def on_headers_complete(self) -> None:
        """The application may begin."""
        self._head_arrived()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: App) -> None:
        async def with_reason(scope: Any, receive: Any, send: Any) -> None:
            async def send_with_reason(message: Any) -> None:
                reason = message.get("reason")
                if reason is None:
                    await send(message)
                    return
                transport = cycle.transport
                cycle.transport = cast(asyncio.Transport, _StatusLine(transport, message["status"], reason))
                try:
                    await send(message)
                finally:
                    cycle.transport = transport

            await app(scope, receive, send_with_reason)

        super()._start_asgi_task(cycle, with_reason)
