"""Tickets for consoles: one use, CONSOLE_LIFE_S, bound to user, guest, node and port (attack row 18).

Kept in this node's memory: they are used where they were given out, and a restart ends every console anyway.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from panal.core.errors import Busy, NotAuthenticated

if TYPE_CHECKING:
    from panal.core.clock import Clock

CONSOLE_LIFE_S: Final = 30.0
OPEN_MAX: Final = 1000
OPEN_PER_USER: Final = 50


@dataclass(frozen=True, slots=True)
class Console:
    """What a ticket opens. `path`: permission path of the guest or node (`/vms/100`, `/nodes/a`)."""

    userid: str
    path: str
    node: str
    port: int


class ConsoleTickets:
    """Those given out and not yet used."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[bytes, tuple[float, Console]] = {}

    def issue(self, userid: str, path: str, node: str, port: int) -> str:
        """A ticket `PVEVNC:USER:HEXTIME8::SECRET`. Busy when the user has OPEN_PER_USER unused ones."""
        self._forget_old()
        mine = sum(1 for _, console in self._open.values() if console.userid == userid)
        if len(self._open) >= OPEN_MAX or mine >= OPEN_PER_USER:
            raise Busy("too many consoles were asked for at once; wait half a minute")
        ticket = f"PVEVNC:{userid}:{int(self._clock.wall_s()):08X}::{secrets.token_urlsafe(32)}"
        self._open[_digest(ticket)] = (self._clock.monotonic_s(), Console(userid, path, node, port))
        return ticket

    def consume(self, ticket: str, userid: str, path: str, node: str, port: int) -> None:
        """Use it up, also when something does not fit. Raises NotAuthenticated."""
        self._forget_old()
        entry = self._open.pop(_digest(ticket), None)
        wanted = Console(userid, path, node, port)
        if entry is None or not hmac.compare_digest(repr(entry[1]).encode(), repr(wanted).encode()):
            raise NotAuthenticated("permission denied - invalid PVEVNC ticket")

    def _forget_old(self) -> None:
        oldest = self._clock.monotonic_s() - CONSOLE_LIFE_S
        for digest in [d for d, (made, _) in self._open.items() if made < oldest]:
            del self._open[digest]


def _digest(ticket: str) -> bytes:
    # looked up by digest, so that the time of the look-up says nothing about the secret
    return hashlib.sha256(ticket.encode(errors="replace")).digest()
