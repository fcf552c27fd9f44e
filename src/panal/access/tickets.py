"""Tickets and CSRF tokens: made at login, checked at every request, bound to a session and to the very user record.

    PVE:USER@REALM:HEXTIME8::BASE64(RSA signature ‖ session id)

The signature covers also the user's `uid` and `epoch`, which are not in the ticket: deleting the user, changing the
password, disabling him or ending all his sessions makes every ticket of before worthless at once, on every node. A renewed
ticket keeps its session id, so that logging out ends the whole chain. CSRF tokens are bound to the session too (attack row 5).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from panal.access.keys import GRACE_S, TICKET_LIFE_S, TicketKey
from panal.access.model import User

SESSION_BYTES: Final = 12
MAX_TICKET: Final = 1024
_TICKET = re.compile(r"(PVE:([^\s:]+):([0-9A-F]{8}))::([A-Za-z0-9+/]+=*)")
_CSRF = re.compile(r"([0-9A-F]{8}):([A-Za-z0-9+/]+=*)")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A well-formed ticket, not yet verified."""

    plain: str
    userid: str
    time_s: int
    signature: bytes
    session: str


def new_session() -> str:
    """Id of a session that begins now."""
    return secrets.token_hex(SESSION_BYTES)


def _signed(plain: str, session: str, user: User) -> bytes:
    return f"{plain}|{session}|{user.uid}|{user.epoch}".encode()


def issue(key: TicketKey, user: User, now_s: float, session: str) -> str:
    """A ticket valid from now for TICKET_LIFE_S."""
    plain = f"PVE:{user.userid}:{int(now_s):08X}"
    signature = key.private.sign(_signed(plain, session, user), padding.PKCS1v15(), hashes.SHA256())
    return f"{plain}::{base64.b64encode(signature + bytes.fromhex(session)).decode()}"


def parse(ticket: str) -> Claimed | None:
    """Take the form apart; None when it is none."""
    match = _TICKET.fullmatch(ticket) if len(ticket) <= MAX_TICKET else None
    if match is None:
        return None
    try:
        blob = base64.b64decode(match[4], validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(blob) <= SESSION_BYTES:
        return None
    return Claimed(match[1], match[2], int(match[3], 16), blob[:-SESSION_BYTES], blob[-SESSION_BYTES:].hex())


def fresh(time_s: int, now_s: float) -> bool:
    """Neither too old nor from the future."""
    return -GRACE_S <= now_s - time_s <= TICKET_LIFE_S


def verify(keys: Sequence[TicketKey], claimed: Claimed, user: User, now_s: float) -> bool:
    """Whether we made this ticket for this very user and it still lives."""
    if not fresh(claimed.time_s, now_s):
        return False
    data = _signed(claimed.plain, claimed.session, user)
    for key in keys:
        try:
            key.public.verify(claimed.signature, data, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            continue
        return True
    return False


def _csrf_mac(key: TicketKey, stamp: str, userid: str, session: str) -> bytes:
    return hmac.new(key.csrf, f"{stamp}:{userid}:{session}".encode(), hashlib.sha256).digest()


def issue_csrf(key: TicketKey, userid: str, now_s: float, session: str) -> str:
    """The token a browser sends beside its ticket with every change."""
    stamp = f"{int(now_s):08X}"
    return f"{stamp}:{base64.b64encode(_csrf_mac(key, stamp, userid, session)).decode()}"


def verify_csrf(keys: Sequence[TicketKey], token: str, userid: str, now_s: float, session: str) -> bool:
    """Constant time in the secret part."""
    match = _CSRF.fullmatch(token) if len(token) <= MAX_TICKET else None
    if match is None or not fresh(int(match[1], 16), now_s):
        return False
    try:
        given = base64.b64decode(match[2], validate=True)
    except (binascii.Error, ValueError):
        return False
    good = False
    for key in keys:
        good |= hmac.compare_digest(_csrf_mac(key, match[1], userid, session), given)
    return good
