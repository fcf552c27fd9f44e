"""paneld's two doors: `<run>/paneld.sock` for panal-web, `<run>/admin.sock` for the machine's administrator.

Each connection carries one request at a time. The peer is checked by the kernel's word (SO_PEERCRED) before a byte is read:
web's door opens for root, our own uid and the uid of panal-web; the administrator's for root and our own uid, and whoever
comes through it is root@pam. Connections are bounded, each door's by itself, so that web cannot lock the administrator out; a
handler goes on when its caller hangs up.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from panal.api.dispatch import Dispatcher, Reply, close_all
from panal.api.wire import model
from panal.api.wire.channel import Channel
from panal.core.errors import BadInput, Failed, Interrupted
from panal.core.frames import BadFrame

MAX_CONNECTIONS: Final = 512
STALLED_S: Final = 60.0
RETRY_S: Final = 0.1
_log = structlog.get_logger("server")


class Server:
    """Listens until `close`."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._listening: list[tuple[socket.socket, Path, asyncio.Task[None]]] = []
        self._busy: set[asyncio.Task[None]] = set()
        self._idle: set[Channel] = set()
        self._closing = False

    def listen(self, path: Path, *, local: bool, uids: frozenset[int], group: int | None = None) -> None:
        """Open a door. `uids` may come in; `group` may connect to the file."""
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        sock.bind(str(path))
        if group is not None:
            os.chown(path, -1, group)
        path.chmod(0o600 if group is None else 0o660)
        sock.listen(128)
        task = asyncio.create_task(self._accept(sock, local, uids), name=f"door {path.name}")
        self._listening.append((sock, path, task))

    async def _accept(self, listening: socket.socket, local: bool, uids: frozenset[int]) -> None:
        loop = asyncio.get_running_loop()
        here: set[asyncio.Task[None]] = set()
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except OSError as exc:  # out of descriptors, or the caller was gone already: the door stays open
                _log.warning("cannot accept", error=str(exc))
                await asyncio.sleep(RETRY_S)
                continue
            if _peer_uid(sock) not in uids or len(here) >= MAX_CONNECTIONS:
                sock.close()
                continue
            task = asyncio.create_task(self._serve(Channel(sock), local))
            here.add(task)
            task.add_done_callback(here.discard)
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)

    async def _serve(self, channel: Channel, local: bool) -> None:
        try:
            while not self._closing:
                self._idle.add(channel)
                frame = await channel.receive()
                self._idle.discard(channel)
                if frame is None:
                    return
                header, body, descriptors = frame
                close_all(descriptors)  # nobody sends us any
                await self._one(channel, model.read_request(header), body, local)
        except (OSError, BadFrame, msgspec.DecodeError, TimeoutError) as exc:
            _log.info("connection ended", error=str(exc))
        finally:
            self._idle.discard(channel)
            channel.close()

    async def _one(self, channel: Channel, request: model.Request, body: bytes, local: bool) -> None:
        take = _take(channel) if request.kind == "upload" else None
        reply = await self._dispatcher.answer(request, body, local=local, take=take)
        await _send(channel, reply)

    async def close(self, timeout_s: float = 10) -> None:
        """No new requests; those under way may end in time."""
        self._closing = True
        for sock, path, task in self._listening:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            path.unlink(missing_ok=True)
            sock.close()
        for channel in list(self._idle):
            channel.hang_up()
        if self._busy:
            await asyncio.wait(self._busy, timeout=timeout_s)
        for task in list(self._busy):
            task.cancel()
        if self._busy:
            await asyncio.wait(self._busy, timeout=timeout_s)


async def _send(channel: Channel, reply: Reply) -> None:
    try:
        async with asyncio.timeout(STALLED_S):
            await channel.send(model.encode(reply.answer), reply.body, reply.descriptors)
    finally:
        close_all(reply.descriptors)


def _take(channel: Channel) -> Callable[[int, Callable[[dict[str, Any]], None]], Any]:
    """What `Call.receive` does: hand the descriptor to web, wait for its word."""

    async def take(descriptor: int, late: Callable[[dict[str, Any]], None]) -> int:
        await channel.send(model.encode(model.Answer(100, "Continue", step="receive")), b"", [descriptor])
        try:
            frame = await channel.receive()  # web gives up on a client that is silent: no time limit of our own
        except (OSError, BadFrame) as exc:
            raise Interrupted(f"panal-web went away in the middle of the upload: {exc}") from None
        if frame is None:
            raise Interrupted("panal-web went away in the middle of the upload")
        header, body, descriptors = frame
        close_all(descriptors)
        part = model.read_part(header)
        if part.kind != "finish":
            raise _REFUSALS[part.kind](part.reason or "the upload was broken off")
        late(model.read_params(body))
        return part.size

    return take


_REFUSALS: Final[dict[str, Callable[[str], Exception]]] = {
    "broken": lambda reason: BadInput("filename", reason),
    "gone": Interrupted,
    "failed": Failed,
}


def _peer_uid(sock: socket.socket) -> int:
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)
