"""What a task is: its name on the wire (UPID), its states, what its code sees.

    queued ──▶ running ──▶ stopped (OK | WARNINGS: n | error text)

UPID format, from the Proxmox VE API: `UPID:NODE:PID8HEX:PSTART8HEX:STARTTIME8HEX:TYPE:ID:USER:`. The pid is the daemon's;
`pstart` is a per-node counter here, which makes the name unique (their field is the process start; clients only echo it).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol

from panal.core.errors import BadInput

MAX_ID: Final = 120
_UPID = re.compile(
    r"UPID:(?P<node>[A-Za-z0-9-]+):(?P<pid>[0-9A-F]{8}):(?P<pstart>[0-9A-F]{8,9}):(?P<start>[0-9A-F]{8}):"
    r"(?P<type>[^:\s/]+):(?P<id>[^:\s/]*):(?P<user>[^:\s/]+):"
)


@dataclass(frozen=True, slots=True)
class Upid:
    """The parts of a task's name."""

    node: str
    pid: int
    pstart: int
    starttime: int
    type: str
    id: str
    user: str

    def __str__(self) -> str:
        return (
            f"UPID:{self.node}:{self.pid:08X}:{self.pstart:08X}:{self.starttime:08X}:{self.type}:{self.id}:{self.user}:"
        )

    @staticmethod
    def escape(subject: str) -> str:
        """A subject (a volume id, say) as the `id` of a UPID: what would end the field is shown as \\xHH; bounded."""
        return re.sub(r"[:\s/\x00-\x1f\x7f]", lambda m: f"\\x{ord(m[0]):02x}", subject)[:MAX_ID]

    @classmethod
    def parse(cls, text: str) -> Upid:
        """Text → parts; BadInput on `upid` when it is not one (never used as a path: attack row 20)."""
        m = _UPID.fullmatch(text)
        if m is None:
            raise BadInput("upid", "value does not look like a valid task ID (UPID:…)")
        return cls(
            m["node"],
            int(m["pid"], 16),
            int(m["pstart"], 16),
            int(m["start"], 16),
            m["type"],
            m["id"],
            m["user"],
        )


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A row of the task index. Times are wall-clock seconds. `status` is None while it has not ended."""

    upid: Upid
    started: float
    ended: float | None = None
    status: str | None = None

    @property
    def running(self) -> bool:
        """Queued or running."""
        return self.ended is None


class Task(Protocol):
    """What the code of a task sees."""

    upid: Upid

    def log(self, line: str) -> None:
        """Add a line (or lines) to the task's log, at once visible to readers. Control characters are shown escaped."""

    def warn(self, line: str) -> None:
        """Log `WARN: line`; the task then ends with `WARNINGS: n` instead of OK."""
