"""Accepts connections: counts them, tells TLS from plain HTTP by the first byte, keeps the certificate fresh.

Plain HTTP on the TLS port gets a redirect to https. Invariant: a connection holds one of MAX_CONNECTIONS places from accept
to its end, and an address at most MAX_PER_ADDRESS of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any, Final

import structlog
from uvicorn import Config, Server

from panal.host.notify import notify
from panal.web_front.limits import Held
from panal.web_front.protocol import Protocol

MAX_CONNECTIONS: Final = 800
MAX_PER_ADDRESS: Final = 400
FIRST_BYTE_S: Final = 10.0
RELOAD_CHECK_S: Final = 10.0
_TLS_HANDSHAKE: Final = 0x16
_log = structlog.get_logger("listener")


def context(directory: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the certificate in `directory`."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    found.options |= ssl.OP_NO_RENEGOTIATION
    load(found, directory)
    return found


def load(target: ssl.SSLContext, directory: Path) -> None:
    """(Re)load the certificate; connections made from now on get it."""
    target.load_cert_chain(directory / "node.pem", directory / "node.key")


class _Counted(Protocol):
    """Gives its place back at the end."""

    place: tuple[Held, str] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)

    def handle_websocket_upgrade(self) -> None:
        transport, place = self.transport, self.place
        self.place = None
        super().handle_websocket_upgrade()
        if place is not None:
            _release_with(transport.get_protocol(), place)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.place is not None:
            held, address = self.place
            self.place = None
            held.leave(address)
        super().connection_lost(exc)


def _release_with(protocol: Any, place: tuple[Held, str]) -> None:
    lost = protocol.connection_lost

    def connection_lost(exc: Exception | None) -> None:
        place[0].leave(place[1])
        lost(exc)

    protocol.connection_lost = connection_lost


class _Accepting:
    """One listening socket, in the shape uvicorn's shutdown expects."""

    def __init__(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self.sockets = [sock]
        self._task = task

    def close(self) -> None:
        self._task.cancel()
        self.sockets[0].close()

    async def wait_closed(self) -> None:
        await asyncio.gather(self._task, return_exceptions=True)


class WebServer(Server):
    """uvicorn's server with our way of accepting."""

    def __init__(self, config: Config, tls: Path) -> None:
        super().__init__(config)
        self._directory = tls
        self._tls = context(tls)
        self._held = Held(MAX_CONNECTIONS, MAX_PER_ADDRESS)
        self._opening: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the sockets made by `main`."""
        await self.lifespan.startup()
        self.servers = []
        for sock in sockets or []:
            sock.setblocking(False)
            task = asyncio.create_task(self._accept(sock), name="accept")
            self.servers.append(_Accepting(sock, task))  # type: ignore[arg-type]
        self._reloading = asyncio.create_task(self._reload(), name="certificate")
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening; requests under way may end."""
        notify("STOPPING=1")
        self._reloading.cancel()
        for task in list(self._opening):
            task.cancel()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Protocol) and connection.idle:
                connection.transport.abort()  # `close` would wait for the client's own goodbye, for up to 30 s
        await super().shutdown(None)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(listening)
            except OSError as exc:  # out of descriptors, or the client was gone already
                _log.warning("cannot accept", error=str(exc))
                await asyncio.sleep(0.1)
                continue
            address = str(peer[0])
            if not self._held.enter(address):
                sock.close()
                continue
            task = asyncio.create_task(self._open(sock, address))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        protocol = _Counted(self.config, self.server_state, self.lifespan.state, loop)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(FIRST_BYTE_S):
                first = await _peek(sock)
            if first and first[0] != _TLS_HANDSHAKE:
                await _redirect(sock)
                first = b""
            if not first:
                raise ConnectionAbortedError
            protocol.place = (self._held, address)
            await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=self._tls, ssl_handshake_timeout=FIRST_BYTE_S
            )
        except (OSError, TimeoutError, asyncio.CancelledError):
            sock.close()
            if protocol.place is None or protocol.transport is None:
                protocol.place = None
                self._held.leave(address)

    async def _reload(self) -> None:
        seen = _stamp(self._directory)
        while True:
            await asyncio.sleep(RELOAD_CHECK_S)
            now = _stamp(self._directory)
            if now != seen:
                try:
                    load(self._tls, self._directory)
                except (OSError, ssl.SSLError) as exc:  # between the two files: next time
                    _log.warning("certificate not loaded", error=str(exc))
                    continue
                seen = now
                _log.info("certificate loaded")


def _stamp(directory: Path) -> tuple[int, ...]:
    stamps = []
    for name in ("node.pem", "node.key"):
        with contextlib.suppress(OSError):
            found = (directory / name).stat()
            stamps += [found.st_mtime_ns, found.st_ino]
    return tuple(stamps)


async def _peek(sock: socket.socket) -> bytes:
    """The first byte, left where it is. Waits on a descriptor of its own: the loop's transport gets `sock` right after."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            ready = asyncio.Event()
            watched = sock.dup()
            loop.add_reader(watched, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(watched)
                watched.close()


async def _redirect(sock: socket.socket) -> None:
    """To the same address over https. The Host header is echoed only when it looks like one (attack row 4)."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(FIRST_BYTE_S):
        head = await loop.sock_recv(sock, 8192)
        host = next((line[5:].strip() for line in head.split(b"\r\n") if line[:5].lower() == b"host:"), b"")
        target = head.split(b" ")[1] if head.count(b" ") > 1 else b"/"
        text = b"This port speaks HTTPS.\n"
        sane = host and all(c in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]" for c in host)
        known = sane and target.startswith(b"/") and all(0x21 <= c < 0x7F for c in target)
        line = (
            b"301 Moved Permanently\r\nlocation: https://" + host + target if known else b"400 This port speaks HTTPS"
        )
        await loop.sock_sendall(
            sock,
            b"HTTP/1.1 " + line + b"\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(text)
            + text,
        )  # fmt: skip
    sock.close()
