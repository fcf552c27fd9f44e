"""Where the demo lives and what it decided once: paths below one directory, and `demo.json` in it.

Invariant: `demo.json` (mode 0600, it holds the generated password) appears whole or not at all, and is what a second run
goes by: nothing that it names is made again.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

MAX_SOCKET_PATH = 90
"""a Unix socket's path ends at 107 bytes; guests' sockets have long names below the run directory"""


class DemoError(Exception):
    """The demo cannot go on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was decided at the first run. `bridge` is None without root; `subnet` its first three numbers (`10.11.12`)."""

    node: str
    port: int
    userid: str
    password: str
    bridge: str | None
    subnet: str | None
    vmid: int = 100
    made_user: bool = False
    web_user: str = "panal"


@dataclass(frozen=True, slots=True)
class Place:
    """The directory of one demo."""

    state: Path

    @property
    def run(self) -> Path:
        """Sockets and process ids."""
        return self.state / "run"

    @property
    def node(self) -> Path:
        """What paneld keeps."""
        return self.state / "node"

    @property
    def log(self) -> Path:
        """What the daemons say."""
        return self.state / "log"

    @property
    def cache(self) -> Path:
        """The Python environment and the guest's disk: made again when missing."""
        return self.state / "cache"

    @property
    def images(self) -> Path:
        """The disks of the demo's storage."""
        return self.state / "images"

    @property
    def ca(self) -> Path:
        """The node's certificate authority, for clients and browsers."""
        return self.run / "tls/ca.pem"

    @property
    def facts(self) -> Facts | None:
        """What an earlier run decided, None before the first."""
        try:
            return Facts(**json.loads((self.state / "demo.json").read_text()))
        except FileNotFoundError:
            return None

    def prepare(self) -> None:
        """The directories that daemons and bridge write into; sockets may be reached by panal-web's user."""
        for directory, mode in ((self.log, 0o700), (self.run, 0o711)):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(mode)

    def keep(self, facts: Facts) -> None:
        """Write `demo.json`."""
        new = self.state / "demo.json.new"
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump(asdict(facts), out, indent=1)
        new.rename(self.state / "demo.json")


def here() -> Place:
    """The place that `./demo` chose."""
    state = Path(os.environ["PANAL_DEMO_STATE"]).resolve()
    if len(str(state)) > MAX_SOCKET_PATH - len("/run/guests/100/serial0.sock"):
        raise DemoError(f"{state} is too long a path for sockets below it; set PANAL_DEMO_STATE to a shorter one")
    return Place(state)
