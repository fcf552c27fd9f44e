"""`panal vm console` and `panal vm screenshot`: look at a guest.

The console is the guest's serial port: through the admin socket its descriptor itself, from afar a WebSocket with the
terminal frames of the API (`0:LEN:data`, `1:COLS:ROWS:`, `2`). Ctrl-] leaves.
"""

from __future__ import annotations

import asyncio
import base64
import os
import select
import shutil
import socket
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

from panal.cli.session import Session
from panal.client.connection import AdminSocket, Https, api_path
from panal.core.errors import Unavailable

LEAVE: Final = b"\x1d"


@click.command(help="Open the serial console of a virtual machine; Ctrl-] leaves.")
@click.argument("vmid")
@click.option("--serial", type=click.Choice(["serial0", "serial1", "serial2", "serial3"]), help="Which port.")
@click.pass_obj
def console(session: Session, vmid: str, serial: str | None) -> None:
    """Ask for a one-use ticket, connect, pass keys and output through."""
    base = api_path("nodes", session.node or session.node_of(vmid), "qemu", vmid)
    params = {"serial": serial} if serial else {}
    proxy = session.connection.call("POST", f"{base}/termproxy", params).data
    ticket = {"port": proxy["port"], "vncticket": proxy["ticket"]}
    print("Connected; Ctrl-] leaves.", file=sys.stderr)
    if isinstance(session.connection, AdminSocket):
        sock, _ = session.connection.open_console(f"{base}/vncwebsocket", ticket)
        with sock:
            sock.settimeout(None)
            _pass_through(sock)
    elif isinstance(session.connection, Https):
        _websocket(session.connection, base, ticket, f"{proxy['user']}:{proxy['ticket']}\n")


def _websocket(connection: Https, base: str, ticket: dict[str, object], first: str) -> None:
    url = f"wss{connection.name.removeprefix('https')}/api2/json{base}/vncwebsocket"
    url += "?" + "&".join(f"{key}={quote(str(value), safe='')}" for key, value in ticket.items())
    try:
        with _raw_keyboard():
            asyncio.run(_session(connection, url, first))
    except OSError as exc:
        raise Unavailable(f"the console of {connection.name} cannot be reached: {exc}") from exc


async def _session(connection: Https, url: str, first: str) -> None:
    # one loop owns the connection: the library's blocking client shares a TLS object between two threads and loses messages
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed
    from websockets.typing import Subprotocol

    keys: asyncio.Queue[bytes] = asyncio.Queue()

    async def send() -> None:
        while pressed := await keys.get():
            keep, leave, _ = pressed.partition(LEAVE)
            if keep:
                await ws.send(b"0:%d:%s" % (len(keep), keep))
            if leave:
                return
        await asyncio.Event().wait()  # standard input is a file or a pipe that ended: only listen from now on

    async def show() -> None:
        with suppress(ConnectionClosed):
            async for message in ws:
                os.write(sys.stdout.fileno(), message if isinstance(message, bytes) else message.encode())

    async with connect(
        url, ssl=connection.tls, additional_headers=connection.headers, subprotocols=[Subprotocol("binary")]
    ) as ws:
        await ws.send(first.encode())
        await ws.recv()  # "OK": the first line was right
        size = shutil.get_terminal_size()
        await ws.send(f"1:{size.columns}:{size.lines}:".encode())
        threading.Thread(target=_read_keyboard, args=(asyncio.get_running_loop(), keys), daemon=True).start()
        ways = {asyncio.create_task(send()), asyncio.create_task(show())}
        _, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in left:
            way.cancel()


def _read_keyboard(loop: asyncio.AbstractEventLoop, keys: asyncio.Queue[bytes]) -> None:
    """A thread, because a file as standard input cannot be waited for by a loop. Empty bytes: it has ended."""
    while True:
        pressed = os.read(sys.stdin.fileno(), 4096)
        with suppress(RuntimeError):  # the session ended first
            loop.call_soon_threadsafe(keys.put_nowait, pressed)
        if not pressed:
            return


def _pass_through(sock: socket.socket) -> None:
    keyboard = sys.stdin.fileno()
    waiting = [sock.fileno(), keyboard]
    with _raw_keyboard():
        while True:
            ready, _, _ = select.select(waiting, [], [])
            if sock.fileno() in ready:
                data = sock.recv(65536)
                if not data:
                    return
                os.write(sys.stdout.fileno(), data)
            if keyboard in ready:
                keys = os.read(keyboard, 4096)
                if not keys:
                    waiting.remove(keyboard)  # a file or a pipe that ended: only listen from now on
                    continue
                keep, leave, _ = keys.partition(LEAVE)
                if keep:
                    sock.sendall(keep)
                if leave:
                    return


@contextmanager
def _raw_keyboard() -> Iterator[None]:
    """Every key goes to the guest; the terminal is as before afterwards."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard) if os.isatty(keyboard) else None
    if before is None:
        yield
        return
    tty.setraw(keyboard)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        print(file=sys.stderr)


@click.command(help="Save a picture of the guest's screen as PNG.")
@click.argument("vmid")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def screenshot(session: Session, vmid: str, file: Path) -> None:
    """Fetch and write."""
    base = api_path("nodes", session.node or session.node_of(vmid), "qemu", vmid)
    file.write_bytes(base64.b64decode(session.connection.call("GET", f"{base}/panal/screenshot").data))
