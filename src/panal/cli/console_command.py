"""`panal vm console` and `panal vm screenshot`: look at a guest.

The console is the guest's serial port: through the admin socket its descriptor itself, from afar a WebSocket with the
terminal frames of the API (`0:LEN:data`, `1:COLS:ROWS:`, `2`). Ctrl-] leaves.
"""

from __future__ import annotations

import base64
import os
import select
import shutil
import socket
import sys
import termios
import threading
import tty
from collections.abc import Callable
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
            _pass_through(sock.fileno(), lambda: sock.recv(65536), sock.sendall)
    elif isinstance(session.connection, Https):
        _websocket(session.connection, base, ticket, f"{proxy['user']}:{proxy['ticket']}\n")


def _websocket(connection: Https, base: str, ticket: dict[str, object], first: str) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    url = f"wss{connection.name.removeprefix('https')}/api2/json{base}/vncwebsocket"
    url += "?" + "&".join(f"{key}={quote(str(value), safe='')}" for key, value in ticket.items())
    try:
        with connect(
            url, ssl=connection.tls, additional_headers=connection.headers, subprotocols=[Subprotocol("binary")]
        ) as ws:
            ws.send(first.encode())
            size = shutil.get_terminal_size()
            ws.send(f"1:{size.columns}:{size.lines}:".encode())
            # the library reads in a thread of its own: a pipe makes its messages selectable beside the keyboard
            ours, theirs = socket.socketpair()

            def read() -> None:
                try:
                    for message in ws:
                        theirs.sendall(message if isinstance(message, bytes) else message.encode())
                except (ConnectionClosed, OSError):
                    pass
                finally:
                    theirs.close()

            threading.Thread(target=read, daemon=True).start()
            with ours:
                _pass_through(
                    ours.fileno(), lambda: ours.recv(65536), lambda keys: ws.send(b"0:%d:%s" % (len(keys), keys))
                )
    except OSError as exc:
        raise Unavailable(f"the console of {connection.name} cannot be reached: {exc}") from exc


def _pass_through(source: int, receive: Callable[[], bytes], send: Callable[[bytes], None]) -> None:
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard) if os.isatty(keyboard) else None
    if before is not None:
        tty.setraw(keyboard)
    waiting = [source, keyboard]
    try:
        while True:
            ready, _, _ = select.select(waiting, [], [])
            if source in ready:
                data = receive()
                if not data:
                    return
                os.write(sys.stdout.fileno(), data)
            if keyboard in ready:
                keys = os.read(keyboard, 4096)
                if not keys:
                    waiting.remove(keyboard)  # standard input is a file or a pipe that ended: only listen from now on
                    continue
                keep, leave, _ = keys.partition(LEAVE)
                if keep:
                    send(keep)
                if leave:
                    return
    finally:
        if before is not None:
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
