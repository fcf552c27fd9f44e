"""Tickets, CSRF tokens and API tokens at the door."""

from __future__ import annotations

import asyncio
import base64

import pytest

from panal.access import Access, authenticate, tickets
from panal.access.authenticate import secret_hash
from panal.access.keys import TICKET_LIFE_S
from panal.access.model import KEY, REVOKED, TOKEN, TOKEN_SECRET, USER, new_uid
from panal.cluster.store import Put
from panal.core.errors import NotAuthenticated
from tests.unit.access.conftest import FakeClock, put_user


async def ticket_of(access: Access, userid: str, session: str | None = None) -> tuple[str, str]:
    """A ticket and its CSRF token."""
    key = await access.keyring.current()
    session = session or tickets.new_session()
    now_s = access.clock.wall_s()
    return (
        tickets.issue(key, access.policy.users[userid], now_s, session),
        tickets.issue_csrf(key, userid, now_s, session),
    )


async def refused(
    access: Access, ticket: str | None, match: str, csrf: str | None = None, changes: bool = False
) -> None:
    with pytest.raises(NotAuthenticated, match=match):
        await authenticate(access, ticket, None, csrf, changes)


async def test_a_ticket_lives_two_hours(access: Access, clock: FakeClock) -> None:
    """Planted fault: `fresh` without its upper bound."""
    ticket, _ = await ticket_of(access, "root@pam")
    assert ticket.startswith("PVE:root@pam:6B49D200::")
    assert (await authenticate(access, ticket, None, None, False)).userid == "root@pam"
    clock.now_s += TICKET_LIFE_S
    assert (await authenticate(access, ticket, None, None, False)).is_root
    clock.now_s += 1
    await refused(access, ticket, "permission denied - invalid PVE ticket")


async def test_a_ticket_from_the_future_has_300_seconds_of_grace(access: Access, clock: FakeClock) -> None:
    ticket, _ = await ticket_of(access, "root@pam")
    clock.now_s -= 300
    await authenticate(access, ticket, None, None, False)
    clock.now_s -= 1
    await refused(access, ticket, "invalid PVE ticket")


async def test_no_ticket_and_malformed_ones(access: Access) -> None:
    await refused(access, None, "No ticket")
    await refused(access, "", "No ticket")
    for text in (
        "x",
        "PVE:root@pam:00000000::",
        "PVE:root@pam:6B49D200::AAAA",
        "PVE:a:b::c",
        "PVE:root@pam:6B49D200::" + "A" * 5000,
    ):
        await refused(access, text, "invalid PVE ticket")


async def test_tampering_anywhere_kills_a_ticket(access: Access) -> None:
    """Planted fault: `_signed` without the session id, without the user's uid, without the plain part: each seen to fail."""
    await put_user(access, "eve@pve")
    ticket, _ = await ticket_of(access, "eve@pve")
    plain, _, blob = ticket.partition("::")
    raw = base64.b64decode(blob)
    await refused(access, ticket.replace("eve@pve", "root@pam"), "invalid PVE ticket")
    await refused(access, f"{plain[:-1]}1::{blob}", "invalid PVE ticket")
    for at in (0, 100, len(raw) - 1):
        bad = bytearray(raw)
        bad[at] ^= 1
        await refused(access, f"{plain}::{base64.b64encode(bytes(bad)).decode()}", "invalid PVE ticket")
    await authenticate(access, ticket, None, None, False)


async def test_keys_rotate_and_old_ones_live_as_long_as_their_tickets(access: Access, clock: FakeClock) -> None:
    """Planted fault: `Keyring.all` without the age filter; `rotate` that removes at once."""
    clock.now_s += 24 * 3600 - 60
    ticket, _ = await ticket_of(access, "root@pam")
    clock.now_s += 120
    newer, _ = await ticket_of(access, "root@pam")
    assert len(access.store.list(KEY)) == 2
    await authenticate(access, ticket, None, None, False)
    await authenticate(access, newer, None, None, False)
    assert len(access.keyring.all()) == 2
    clock.now_s += 3 * 3600
    assert len(access.keyring.all()) == 1
    clock.now_s += 24 * 3600
    await access.keyring.rotate()
    clock.now_s += 24 * 3600
    await access.keyring.rotate()
    assert len(access.store.list(KEY)) == 2


async def test_two_at_once_rotate_once(access: Access, clock: FakeClock) -> None:
    clock.now_s += 25 * 3600
    await asyncio.gather(*(access.keyring.current() for _ in range(5)))
    assert len(access.store.list(KEY)) == 2


async def test_csrf_token_is_needed_for_changes_and_bound_to_the_session(access: Access, clock: FakeClock) -> None:
    """Planted fault: `_csrf_mac` without the session; `authenticate` that ignores `method_changes`."""
    ticket, csrf = await ticket_of(access, "root@pam")
    _, other = await ticket_of(access, "root@pam")
    await authenticate(access, ticket, None, csrf, True)
    for bad in (None, "", "x", other, csrf[:-4] + "AAA=", "6B49D201:" + csrf.partition(":")[2]):
        await refused(access, ticket, "Permission denied - invalid csrf token", bad, True)
    clock.now_s += 3600
    later, _ = await ticket_of(access, "root@pam")
    await refused(access, later, "invalid csrf token", csrf, True)


async def test_a_disabled_expired_deleted_or_recreated_user_is_out(access: Access, clock: FakeClock) -> None:
    """Row 19. Planted fault: `_signed` without uid and epoch lets the recreated user's old ticket in."""
    await put_user(access, "eve@pve")
    ticket, _ = await ticket_of(access, "eve@pve")
    value = dict(access.store.value(USER + "eve@pve") or {})
    await access.store.txn([], [Put(USER + "eve@pve", {**value, "enable": False})])
    await refused(access, ticket, "user 'eve@pve' is disabled")
    await access.store.txn([], [Put(USER + "eve@pve", {**value, "expire": int(clock.now_s)})])
    await refused(access, ticket, "access expired")
    await access.store.txn([], [Put(USER + "eve@pve", {**value, "epoch": 1})])
    await refused(access, ticket, "invalid PVE ticket")
    await put_user(access, "eve@pve")
    await refused(access, ticket, "invalid PVE ticket")
    await access.store.txn([], [Put(USER + "eve@pve", value)])
    await authenticate(access, ticket, None, None, False)


async def test_a_revoked_session_is_out(access: Access) -> None:
    """Planted fault: no look at `access/revoked/`."""
    session = tickets.new_session()
    ticket, _ = await ticket_of(access, "root@pam", session)
    renewed, _ = await ticket_of(access, "root@pam", session)
    other, _ = await ticket_of(access, "root@pam")
    await access.store.txn([], [Put(REVOKED + session, {"v": 1, "until_s": 0})])
    await refused(access, ticket, "invalid PVE ticket")
    await refused(access, renewed, "invalid PVE ticket")
    await authenticate(access, other, None, None, False)


async def put_token(access: Access, userid: str, tokenid: str, secret: str, **more: object) -> None:
    uid = new_uid()
    value = {
        "v": 1, "uid": uid, "userid": userid, "tokenid": tokenid, "user_uid": access.policy.users[userid].uid,
        "privsep": False, "expire": 0, **more,
    }  # fmt: skip
    full = f"{userid}!{tokenid}"
    stored = {"v": 1, "uid": uid, "sha256": secret_hash(secret)}
    await access.store.txn([], [Put(TOKEN + full, value), Put(TOKEN_SECRET + full, stored)])


async def test_an_api_token(access: Access, clock: FakeClock) -> None:
    """Planted faults: comparing a prefix only; not comparing the token's uid with its secret's."""
    await put_user(access, "eve@pve")
    await put_token(access, "eve@pve", "t1", "sesame")
    for text in ("eve@pve!t1=sesame", "PVEAPIToken=eve@pve!t1=sesame", "PVEAPIToken eve@pve!t1=sesame"):
        assert (await authenticate(access, None, text, None, True)).userid == "eve@pve!t1"
    for text in (
        "eve@pve!t1=sesam",
        "eve@pve!t1=sesame1",
        "eve@pve!t2=sesame",
        "bob@pve!t1=sesame",
        "eve@pve!t1=",
        "x",
    ):
        with pytest.raises(NotAuthenticated, match=r"invalid token value!|no valid API token"):
            await authenticate(access, None, text, None, True)
    ticket, _ = await ticket_of(access, "root@pam")
    with pytest.raises(NotAuthenticated):  # a bad token is not saved by a good ticket
        await authenticate(access, ticket, "eve@pve!t1=bad", None, False)
    await put_token(access, "eve@pve", "old", "sesame", expire=int(clock.now_s))
    with pytest.raises(NotAuthenticated, match="expired"):
        await authenticate(access, None, "eve@pve!old=sesame", None, False)
    stored = dict(access.store.value(TOKEN_SECRET + "eve@pve!t1") or {})
    await access.store.txn([], [Put(TOKEN_SECRET + "eve@pve!t1", {**stored, "uid": "of a former token"})])
    with pytest.raises(NotAuthenticated, match="invalid token value!"):
        await authenticate(access, None, "eve@pve!t1=sesame", None, False)
    await access.store.txn([], [Put(TOKEN_SECRET + "eve@pve!t1", stored)])
    await authenticate(access, None, "eve@pve!t1=sesame", None, False)
    await put_user(access, "eve@pve")
    with pytest.raises(NotAuthenticated, match="invalid token value!"):
        await authenticate(access, None, "eve@pve!t1=sesame", None, False)
