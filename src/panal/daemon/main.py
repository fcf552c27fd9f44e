"""paneld: the privileged half of a node. `python -m panal.daemon.main --state DIR --run DIR [--node NAME] …`"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
import uvloop

from panal.core import logs
from panal.core.errors import PanalError
from panal.daemon.compose import Settings, run_node
from panal.host.notify import notify
from panal.host.privileges import DAEMON_CAPABILITIES, keep_capabilities

_log = structlog.get_logger("daemon")


def arguments(argv: list[str] | None = None) -> Settings:
    """The command line as settings; ends the program on a mistake."""
    parser = argparse.ArgumentParser("paneld", description="The privileged half of a Panal node.")
    parser.add_argument("--state", type=Path, default=Path("/var/lib/panal"), help="what survives a restart")
    parser.add_argument("--run", type=Path, default=Path("/run/panal"), help="sockets and run records")
    parser.add_argument("--node", default=socket.gethostname().partition(".")[0].lower(), help="name of this node")
    parser.add_argument("--driver", choices=("qemu", "fake"), default="qemu", help="hypervisor")
    parser.add_argument("--web-user", default="panal", help="user that panal-web runs as")
    parser.add_argument("--populate", type=int, default=0, help="with --driver fake: make that many guests (benches)")
    found = parser.parse_args(argv)
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", found.node):
        parser.error(f"--node: {found.node!r} is no host name (RFC 1123, lower case)")
    return Settings(
        found.node, found.state.resolve(), found.run.resolve(), found.driver, found.web_user, found.populate
    )


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT; guests run on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        await run_node(settings, stack)
        notify("READY=1")
        _log.info("serving", node=settings.node, state=str(settings.state), run=str(settings.run))
        await stop.wait()
        notify("STOPPING=1")
        _log.info("stopping")


def main() -> None:
    """Entry point."""
    os.umask(0o077)
    logs.configure()
    settings = arguments()
    try:
        keep_capabilities(frozenset(DAEMON_CAPABILITIES.values()))
        uvloop.run(serve(settings))
    except PanalError as exc:
        _log.error("cannot go on", error=str(exc))
        sys.exit(1)


if __name__ == "__main__":
    main()
