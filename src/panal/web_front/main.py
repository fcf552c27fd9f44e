"""panal-web: the half of a node that faces the network. `python -m panal.web_front.main --run DIR --listen ADDR:PORT`

Started as root it binds its sockets, then becomes user `panal` without any capability.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Final

import structlog
import uvicorn
import uvloop

from panal.core import logs
from panal.core.errors import Failed, PanalError
from panal.host.notify import notify
from panal.host.privileges import account, become
from panal.web_front.app import application
from panal.web_front.backend import Backend
from panal.web_front.listener import WebServer

WAIT_FOR_PANELD_S: Final = 60.0
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]*)):(\d{1,5})")
_log = structlog.get_logger("web")
# the name that clients of the Proxmox VE API find here
_HEADERS = [
    ("server", "pve-api-daemon/3.0"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
]


def bind(listen: str) -> list[socket.socket]:
    """Sockets of `ADDR:PORT`, `[ADDR6]:PORT` or `:PORT` (both families). Raises Failed."""
    m = _ADDRESS.fullmatch(listen)
    if m is None or int(m[3]) > 65535:
        raise Failed(f"--listen: {listen!r} is not ADDRESS:PORT, like 0.0.0.0:8006, [::1]:8006 or :8006")
    host, port = m[1] or m[2], int(m[3])
    wanted = [(socket.AF_INET6 if ":" in host else socket.AF_INET, host)] if host else []
    if not host or host == "*":
        wanted = [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]  # noqa: S104 (what the administrator asked for)
    sockets: list[socket.socket] = []
    for family, name in wanted:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            address = socket.getaddrinfo(name, port, family, socket.SOCK_STREAM)[0][4]
            sock.bind(address)
            sock.listen(1024)
        except OSError as exc:
            if family == socket.AF_INET6 and len(wanted) > 1:  # a machine without IPv6
                continue
            raise Failed(f"cannot listen on {listen}: {exc}") from exc
        port = sock.getsockname()[1]
        sockets.append(sock)
    return sockets


def configuration(backend: Backend, hsts: bool) -> uvicorn.Config:
    """uvicorn's settings, loaded: everything is imported before rights are given up (Python may lie where only root reads)."""
    headers = [*_HEADERS, ("strict-transport-security", "max-age=31536000")] if hsts else _HEADERS
    config = uvicorn.Config(
        application(backend), ws="websockets-sansio", lifespan="off", log_config=None, log_level="warning",
        access_log=False, proxy_headers=False, server_header=False, headers=headers, timeout_keep_alive=60,
        timeout_graceful_shutdown=10, ws_max_size=1 << 20, ws_per_message_deflate=False,
    )  # fmt: skip
    config.load()
    # uvicorn calls a refused WebSocket a failure of ours, although the refusal was sent as its interface says
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "without completing handshake" not in record.getMessage()
    )
    for name in ("encodings.idna", "concurrent.futures.thread", "gzip", "ssl"):
        importlib.import_module(name)
    return config


async def serve(run: Path, sockets: list[socket.socket], config: uvicorn.Config, backend: Backend) -> None:
    """Until SIGTERM or SIGINT."""
    server = WebServer(config, run / "tls")
    notify("READY=1")
    _log.info("serving", listen=[sock.getsockname()[:2] for sock in sockets])
    await server.serve(sockets=sockets)
    backend.close()


def wait_for_certificate(directory: Path) -> None:
    """paneld makes it at its first start. Raises Failed."""
    until = time.monotonic() + WAIT_FOR_PANELD_S
    while not os.access(directory / "node.pem", os.R_OK) or not os.access(directory / "node.key", os.R_OK):
        if time.monotonic() > until:
            raise Failed(f"no readable certificate in {directory}; is paneld running, with the same --run?")
        time.sleep(0.1)


def main() -> None:
    """Entry point."""
    os.umask(0o077)
    logs.configure()
    parser = argparse.ArgumentParser("panal-web", description="The half of a Panal node that faces the network.")
    parser.add_argument("--run", type=Path, default=Path("/run/panal"), help="where paneld's socket is")
    parser.add_argument("--listen", default=":8006", help="ADDRESS:PORT, [ADDRESS6]:PORT or :PORT for both")
    parser.add_argument("--user", default="panal", help="whom to become when started as root")
    parser.add_argument("--hsts", action="store_true", help="tell browsers to insist on HTTPS")
    found = parser.parse_args()
    try:
        sockets = bind(found.listen)
        backend = Backend(str(found.run / "paneld.sock"))
        config = configuration(backend, found.hsts)
        if os.geteuid() == 0:
            user = account(found.user)
            if user is None:
                raise Failed(f"no user {found.user}: make it with 'adduser --system --group {found.user}'")
            become(user)
        wait_for_certificate(found.run / "tls")
        uvloop.run(serve(found.run, sockets, config, backend))
    except (PanalError, asyncio.CancelledError, KeyboardInterrupt) as exc:
        _log.error("cannot go on", error=str(exc))
        sys.exit(1)


if __name__ == "__main__":
    main()
