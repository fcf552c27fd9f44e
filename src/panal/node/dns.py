"""Name servers and search domain: /etc/resolv.conf, or systemd-resolved where that owns the file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from panal.core.errors import BadInput
from panal.core.formats import check
from panal.node import files
from panal.node.context import PROGRAM_TIMEOUT_S, NodeInfo

PATH: Final = "/etc/resolv.conf"
RESOLVED: Final = "/run/systemd/resolve/"
DROP_IN: Final = "/etc/systemd/resolved.conf.d/panal.conf"
MAX_SERVERS: Final = 3


def resolved(info: NodeInfo) -> bool:
    """Whether the file is a link to what systemd-resolved writes."""
    path = info.path(PATH)
    return path.is_symlink() and "systemd/resolve/" in str(path.readlink())


def _source(info: NodeInfo) -> bytes:
    if resolved(info):
        # the stub names only the local resolver; this one the servers behind it
        return files.read(info.path(RESOLVED + "resolv.conf"))
    return files.read(info.path(PATH))


def parse(text: str) -> dict[str, str]:
    """`search`, `dns1`, `dns2`, `dns3`, as far as they are there."""
    out: dict[str, str] = {}
    servers: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) < 2:
            continue
        if words[0] in ("search", "domain"):
            out["search"] = " ".join(words[1:])
        elif words[0] == "nameserver":
            servers.append(words[1])
    return out | {f"dns{n}": server for n, server in enumerate(servers[:MAX_SERVERS], start=1)}


def render(old: str, search: str, servers: Sequence[str]) -> str:
    """The file with these servers; whatever else stood in it stays."""
    kept = [line for line in old.splitlines() if line.split()[:1] not in (["search"], ["domain"], ["nameserver"])]
    return "\n".join([f"search {search}", *(f"nameserver {s}" for s in servers), *kept]) + "\n"


async def read(info: NodeInfo) -> dict[str, str]:
    """What is set."""
    return parse((await asyncio.to_thread(_source, info)).decode(errors="replace"))


async def write(info: NodeInfo, search: str, servers: Sequence[str]) -> None:
    """Set search domains (separated by blanks) and servers; with no server given the present ones stay."""
    domains = search.split()
    if not domains:
        raise BadInput("search", "give at least one domain")
    for domain in domains:
        try:
            check("dns-name", domain)
        except ValueError as exc:
            raise BadInput("search", str(exc)) from None
    async with info.writing:
        if resolved(info):
            keep = servers or [v for k, v in sorted((await read(info)).items()) if k.startswith("dns")]
            text = f"[Resolve]\nDNS={' '.join(keep)}\nDomains={' '.join(domains)}\n"
            await asyncio.to_thread(files.replace, info.path(DROP_IN), text.encode())
            argv = ["systemctl", "try-reload-or-restart", "systemd-resolved.service"]
            await info.run(argv, timeout_s=PROGRAM_TIMEOUT_S)
            return

        def work() -> None:
            old = files.read(info.path(PATH)).decode(errors="replace")
            keep = servers or [v for k, v in sorted(parse(old).items()) if k.startswith("dns")]
            files.replace(info.path(PATH), render(old, " ".join(domains), keep).encode())

        await asyncio.to_thread(work)
