"""Who is asking: the entry for the dispatcher, for every request that is not anonymous.

Answers the caller's rights or raises NotAuthenticated with a sentence PVE's clients know. What an unknown user and a wrong
secret get is the same; why a *proven* caller may not in (disabled, expired) is said.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final

from panal.access import tickets
from panal.access.model import REVOKED, TOKEN_SECRET, User
from panal.core.errors import NotAuthenticated

if TYPE_CHECKING:
    from panal.access.context import Access
    from panal.access.rights import UserRights

INVALID_TICKET: Final = "permission denied - invalid PVE ticket"
INVALID_CSRF: Final = "Permission denied - invalid csrf token"
INVALID_TOKEN: Final = "invalid token value!"  # noqa: S105
_TOKEN = re.compile(r"(?:PVEAPIToken[= ])?(([^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+)!([A-Za-z][A-Za-z0-9.\-_]*))=(\S{1,256})")


async def authenticate(
    access: Access, ticket: str | None, token: str | None, csrf: str | None, method_changes: bool
) -> UserRights:
    """Rights of who holds this ticket or API token (`USER@REALM!ID=SECRET`, with or without `PVEAPIToken=`).

    A token wins over a ticket and needs no CSRF token. Raises NotAuthenticated.
    """
    if token:
        return verify_token(access, token)
    if not ticket:
        raise NotAuthenticated("No ticket")
    user, session = verify_ticket(access, ticket)
    if method_changes and not (csrf and access.csrf_matches(csrf, user.userid, session)):
        raise NotAuthenticated(INVALID_CSRF)
    return access.rights(user.userid)


def verify_ticket(access: Access, ticket: str) -> tuple[User, str]:
    """The user and the session id."""
    claimed = tickets.parse(ticket)
    user = access.policy.users.get(claimed.userid) if claimed else None
    now_s = access.clock.wall_s()
    if (
        claimed is None
        or user is None
        or not tickets.verify(access.keyring.all(), claimed, user, now_s)
        or access.store.get(REVOKED + claimed.session) is not None
    ):
        raise NotAuthenticated(INVALID_TICKET)
    if problem := user.problem(now_s):
        raise NotAuthenticated(problem)
    return user, claimed.session


def secret_hash(secret: str) -> str:
    """What is kept of a token's secret. It has 122 random bits, so a fast hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def verify_token(access: Access, text: str) -> UserRights:
    """Rights of an API token."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise NotAuthenticated("no valid API token: send PVEAPIToken=USER@REALM!TOKENID=SECRET")
    known = access.policy.tokens.get(match[1])
    stored = access.store.value(TOKEN_SECRET + match[1]) or {}
    # compared even when there is no such token, so that time tells nothing
    same = hmac.compare_digest(str(stored.get("sha256", "-" * 64)), secret_hash(match[4]))
    user = access.policy.users.get(match[2])
    if not same or known is None or user is None or stored.get("uid") != known.uid:
        raise NotAuthenticated(INVALID_TOKEN)
    now_s = access.clock.wall_s()
    if problem := user.problem(now_s):
        raise NotAuthenticated(problem)
    if known.expire and known.expire <= now_s:
        raise NotAuthenticated(f"token '{match[1]}' access expired")
    return access.rights(match[1])
