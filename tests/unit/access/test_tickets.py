"""Tickets and CSRF tokens by themselves: what each part of them is bound to, and for how long."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from panal.access.keys import GRACE_S, TICKET_LIFE_S, TicketKey
from panal.access.tickets import issue_csrf, new_session, parse, verify_csrf

NOW = 1_800_000_000.0
USER, SESSION = "eve@pve", new_session()


@pytest.fixture(scope="module")
def keys() -> list[TicketKey]:
    pairs = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
    return [TicketKey(n, NOW, pair, pair.public_key(), bytes([n]) * 32) for n, pair in enumerate(pairs)]


def test_a_csrf_token_is_for_one_user_of_one_session_for_a_while(keys: list[TicketKey]) -> None:
    token = issue_csrf(keys[0], USER, NOW, SESSION)
    assert verify_csrf(keys, token, USER, NOW, SESSION)
    assert not verify_csrf(keys, token, "adam@pve", NOW, SESSION)
    assert not verify_csrf(keys, token, USER, NOW, new_session())
    for late, good in ((TICKET_LIFE_S, True), (TICKET_LIFE_S + 1, False), (-GRACE_S, True), (-GRACE_S - 1, False)):
        assert verify_csrf(keys, token, USER, NOW + late, SESSION) == good


def test_a_csrf_token_of_any_living_key_counts(keys: list[TicketKey]) -> None:
    for key in keys:
        token = issue_csrf(key, USER, NOW, SESSION)
        assert verify_csrf(keys, token, USER, NOW, SESSION) and verify_csrf(keys[::-1], token, USER, NOW, SESSION)
        assert not verify_csrf([k for k in keys if k is not key], token, USER, NOW, SESSION)


@pytest.mark.parametrize("more", ["\n", ":x", " ", "=x", "::AAAA"])
def test_nothing_may_follow_a_ticket(more: str) -> None:
    ticket = "PVE:eve@pve:6B49D200::" + "A" * 368
    assert parse(ticket) is not None
    assert parse(ticket + more) is None
