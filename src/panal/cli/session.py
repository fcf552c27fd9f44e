"""Which node to talk to and as whom: from options, environment, the file of `panal login`, or the node's own socket.

In this order: `--url`/PANAL_URL with PANAL_TOKEN or the saved login; else the admin socket of this machine
(`--run`/PANAL_RUN, default /run/panal), which makes root of this machine root@pam, as pvesh does.
Secrets come from the environment, a prompt or standard input, never from the command line.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from panal.client.connection import AdminSocket, Connection, Https, Login
from panal.core.errors import NotFound, Unavailable

DEFAULT_RUN: Final = "/run/panal"


@dataclass(frozen=True, slots=True)
class Saved:
    """What `panal login` keeps (mode 0600): no password, only the ticket, which lives two hours."""

    url: str
    userid: str
    ticket: str
    csrf: str
    ca_file: str | None = None
    insecure: bool = False


def login_file() -> Path:
    """Where the login is kept."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "panal" / "login.json"


def save(login: Saved) -> None:
    """Keep a login."""
    path = login_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        json.dump(asdict(login), file)


def saved() -> Saved | None:
    """The kept login, if any; a broken file counts as none."""
    try:
        return Saved(**json.loads(login_file().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@dataclass(slots=True)
class Session:
    """The options every command shares, and the connection made from them."""

    url: str | None = None
    run: str | None = None
    ca_file: str | None = None
    insecure: bool = False
    as_json: bool = False
    wait: bool = True
    yes: bool = False
    node: str | None = None
    _connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """Opened at first use."""
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        kept = saved()
        token = os.environ.get("PANAL_TOKEN")
        url = self.url or os.environ.get("PANAL_URL")
        run = self.run or os.environ.get("PANAL_RUN")
        ca_file = self.ca_file or os.environ.get("PANAL_CA")
        if url or (kept and not run):
            if kept and (not url or url == kept.url):
                url, ca_file = kept.url, ca_file or kept.ca_file
                self.insecure = self.insecure or kept.insecure
                if not token:
                    return Https(url, Login(ticket=kept.ticket, csrf=kept.csrf), ca_file, self.insecure)
            if not token:
                raise Unavailable(f"not logged in to {url}; use `panal login --url {url}` or set PANAL_TOKEN")
            return Https(str(url), Login(token=token), ca_file, self.insecure)
        socket_path = Path(run or DEFAULT_RUN) / "admin.sock"
        if not os.access(socket_path, os.W_OK):
            raise Unavailable(
                f"no node here that you may administer ({socket_path}); "
                "name one with --url https://NODE:8006, after `panal login --url …`"
            )
        return AdminSocket(socket_path)

    def node_name(self) -> str:
        """The node a command is for: `--node`, else the only one there is. NotFound when there is a choice."""
        if self.node:
            return self.node
        names = sorted(str(row["node"]) for row in self.connection.call("GET", "/nodes").data)
        if len(names) != 1:
            raise NotFound(f"which node? Say --node with one of: {', '.join(names)}")
        return names[0]

    def node_of(self, vmid: str) -> str:
        """The node a guest lives on. NotFound."""
        rows: list[dict[str, Any]] = self.connection.call("GET", "/cluster/resources", {"type": "vm"}).data
        for row in rows:
            if str(row.get("vmid")) == vmid:
                return str(row["node"])
        raise NotFound(f"there is no VM {vmid}, or you may not see it; `panal vm list` shows what there is")
