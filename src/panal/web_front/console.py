"""Consoles: a WebSocket on one side, a connected socket from paneld on the other.

Two kinds: bytes as they are (VNC), and terminals, whose clients speak xterm frames of the Proxmox VE API: first the line
`user:ticket`, answered `OK`, then `0:LENGTH:DATA` (input), `1:COLUMNS:ROWS:` (size), `2` (I am alive); what comes back is
plain output. paneld has used up the one-use ticket before a byte flows (attack row 18).
"""

from __future__ import annotations

import asyncio
import hmac
import re
import socket
import time
import uuid
from typing import Final
from urllib.parse import urlsplit

import structlog
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from panal.api.wire import model
from panal.core.errors import PanalError
from panal.web_front.backend import Backend
from panal.web_front.limits import Held, Refusals
from panal.web_front.request import TOO_MANY_REFUSED, Refused, read_head

MAX_CONSOLES: Final = 128
MAX_PER_ADDRESS: Final = 64
LOGIN_S: Final = 30.0
_CHUNK: Final = 64 * 1024
_MAX_INPUT: Final = 1 << 20
_log = structlog.get_logger("console")


class Consoles:
    """The ASGI application for WebSockets under /api2."""

    def __init__(self, backend: Backend, refusals: Refusals) -> None:
        self._backend = backend
        self._refusals = refusals
        self._open = Held(MAX_CONSOLES, MAX_PER_ADDRESS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """From the handshake to the end."""
        ws = WebSocket(scope, receive, send)
        address = scope["client"][0] if scope["client"] else ""
        if not self._open.enter(address):
            await _refuse(ws, 503, "too many consoles are open")
            return
        try:
            await self._run(ws, scope, address)
        except Refused as exc:
            await _refuse(ws, exc.status, exc.message)
        except PanalError as exc:
            await _refuse(ws, 503, str(exc))
        except (WebSocketDisconnect, OSError):
            pass
        finally:
            self._open.leave(address)

    async def _run(self, ws: WebSocket, scope: Scope, address: str) -> None:
        began = time.monotonic()
        await ws.receive()  # websocket.connect
        if not same_origin(ws.headers.get("origin"), ws.headers.get("host", "")):
            raise Refused(403, "the page that opens a console must come from this host")
        raw = scope.get("raw_path", scope["path"].encode()).decode("ascii", "replace").partition("?")[0]
        head = read_head("GET", raw.lstrip("/").removeprefix("api2"), scope["query_string"], scope["headers"])
        who = head.credentials
        request = model.Request(
            "GET", head.path, kind="websocket", id=uuid.uuid4().hex[:16], client=address, ticket=who.ticket,
            token=who.token,
        )  # fmt: skip
        head.query.pop("_dc", None)
        answer, _, descriptors = await self._backend.call(request, model.encode(head.query))
        if answer.step != "socket" or len(descriptors) != 1:
            if answer.hold_s and not await self._refusals.late(address, began, answer.hold_s):
                raise Refused(429, TOO_MANY_REFUSED)
            raise Refused(answer.status, answer.reason)
        sock = socket.socket(fileno=descriptors[0])
        sock.setblocking(False)
        try:
            offered = scope.get("subprotocols", [])
            await ws.accept(subprotocol="binary" if "binary" in offered else None)
            if answer.terminal:
                await _login(ws, answer.terminal)
            _log.info("console opened", request=request.id, client=address, path=head.path)
            await _bridge(ws, sock, terminal=bool(answer.terminal))
        finally:
            sock.close()
            _log.info("console closed", request=request.id)


def same_origin(origin: str | None, host: str) -> bool:
    """Whether the page is ours; programs send no Origin."""
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower() != ""
    except ValueError:
        return False


async def _refuse(ws: WebSocket, status: int, message: str) -> None:
    body = model.encode({"data": None, "message": message})
    headers = [(b"content-type", b"application/json;charset=UTF-8"), (b"content-length", str(len(body)).encode())]
    try:
        await ws.send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await ws.send({"type": "websocket.http.response.body", "body": body})
    except RuntimeError:  # accepted already, or gone
        return


async def _login(ws: WebSocket, line: str) -> None:
    try:
        async with asyncio.timeout(LOGIN_S):
            first = await _message(ws)
    except TimeoutError:
        first = b""
    if not hmac.compare_digest(first.rstrip(b"\r\n"), line.encode()):
        await ws.close(1008, "wrong ticket")
        raise WebSocketDisconnect(1008)
    await ws.send_bytes(b"OK")


async def _message(ws: WebSocket) -> bytes:
    message = await ws.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    data = message.get("bytes")
    return data if data is not None else (message.get("text") or "").encode()


async def _bridge(ws: WebSocket, sock: socket.socket, *, terminal: bool) -> None:
    loop = asyncio.get_running_loop()

    async def to_client() -> None:
        while data := await loop.sock_recv(sock, _CHUNK):
            await ws.send_bytes(data)
        await ws.close()

    async def to_guest() -> None:
        frames = Frames()
        while True:
            data = await _message(ws)
            for piece in frames.feed(data) if terminal else (data,):
                await loop.sock_sendall(sock, piece)

    ways = [asyncio.create_task(to_client()), asyncio.create_task(to_guest())]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    for way in done:
        if not way.cancelled() and isinstance(way.exception(), Refused):
            await ws.close(1008, "bad frame")


class Frames:
    """Reads xterm frames; yields input. A frame may be cut anywhere. Raises Refused for anything else."""

    _INPUT = re.compile(rb"0:(\d{1,7}):")
    _SIZE = re.compile(rb"1:\d{1,5}:\d{1,5}:")

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Input found in what has come so far."""
        self._data += data
        out: list[bytes] = []
        while self._data:
            if self._data[:1] == b"2":
                self._data = self._data[1:]
            elif m := self._SIZE.match(self._data):
                self._data = self._data[m.end() :]
            elif m := self._INPUT.match(self._data):
                end = m.end() + int(m[1])
                if len(self._data) < end:
                    break
                out.append(self._data[m.end() : end])
                self._data = self._data[end:]
            elif len(self._data) < 16 and self._data[:1] in (b"0", b"1"):
                break
            else:
                raise Refused(400, "not a terminal frame")
        if len(self._data) > _MAX_INPUT:
            raise Refused(400, "terminal frame too long")
        return out
