"""A connected Unix socket that carries frames and descriptors, without blocking the loop.

Used by both ends (`web_front/backend.py`, `daemon/server.py`). asyncio streams cannot carry descriptors, so this waits for
readiness by itself. One reader and one writer at a time. Descriptors that arrive unasked are closed.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence

from panal.core.frames import LENGTHS_BYTES, MAX_DESCRIPTORS, BadFrame, lengths, pack

_CHUNK = 1 << 18


class Channel:
    """Frames over a socket. Every method raises BadFrame or OSError when the peer is gone."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, path: str) -> Channel:
        """To a listening socket. OSError when nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, path)
            return cls(sock)
        except BaseException:
            sock.close()
            raise

    async def send(self, header: bytes, body: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """One frame; the caller keeps (and closes) its descriptors."""
        view = memoryview(pack(header, body))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        while view:
            try:
                sent = self._sock.sendmsg([view[:_CHUNK]], rights)
            except (BlockingIOError, InterruptedError):
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
                continue
            rights = []
            view = view[sent:]

    async def receive(self) -> tuple[bytes, bytes, list[int]] | None:
        """One frame and its descriptors (the caller closes them); None when the peer closed between two frames."""
        found: list[int] = []
        try:
            first = await self._exactly(LENGTHS_BYTES, found, may_end=True)
            if first is None:
                return None
            header_length, body_length = lengths(first)
            data = await self._exactly(header_length + body_length, found) or memoryview(b"")
        except BaseException:
            for descriptor in found:
                os.close(descriptor)
            raise
        return bytes(data[:header_length]), bytes(data[header_length:]), found

    async def _exactly(self, count: int, found: list[int], may_end: bool = False) -> memoryview | None:
        data = bytearray()
        while len(data) < count:
            try:
                part, ancillary, _, _ = self._sock.recvmsg(
                    min(count - len(data), _CHUNK), socket.CMSG_SPACE(4 * MAX_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
                continue
            for level, kind, raw in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds = array.array("i")
                    fds.frombytes(raw[: len(raw) - len(raw) % fds.itemsize])
                    found.extend(fds)
            if not part:
                if may_end and not data:
                    return None
                raise BadFrame("the other end closed the connection in the middle of a message")
            data += part
        return memoryview(data)

    async def _ready(self, add: Callable[..., None], remove: Callable[[socket.socket], object]) -> None:
        ready = asyncio.Event()
        add(self._sock, ready.set)
        try:
            await ready.wait()
        finally:
            remove(self._sock)

    def alive(self) -> bool:
        """Whether an idle connection may be used again: the peer neither closed it nor said anything."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def hang_up(self) -> None:
        """End the conversation from another task: its `receive` returns None."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
