"""Ends of sessions: log out of one, or of all (attack row 5). Works on every node at once, because the store says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from panal.access.authenticate import verify_ticket
from panal.access.keys import GRACE_S, TICKET_LIFE_S
from panal.access.model import REVOKED, USER
from panal.cluster.store import Delete, Put
from panal.core.errors import NotAuthenticated, NotFound

if TYPE_CHECKING:
    from panal.access.context import Access
    from panal.access.model import Json


async def log_out(access: Access, ticket: str) -> None:
    """End the session of this ticket, with every ticket it was renewed from or into. A dead ticket is no error."""
    try:
        _, session = verify_ticket(access, ticket)
    except NotAuthenticated:
        return
    now_s = access.clock.wall_s()
    until_s = now_s + TICKET_LIFE_S + 2 * GRACE_S
    old = [item.key for item in access.store.list(REVOKED) if item.value["until_s"] < now_s][:90]
    await access.store.txn([], [Put(REVOKED + session, {"v": 1, "until_s": until_s}), *map(Delete, old)])


async def end_all(access: Access, userid: str) -> None:
    """Make every ticket of the user worthless. Raises NotFound."""

    def change(value: Json | None) -> Json:
        if value is None:
            raise NotFound(f"no such user ('{userid}')")
        return {**value, "epoch": int(value.get("epoch", 0)) + 1}

    await access.store.update(USER + userid, change)
