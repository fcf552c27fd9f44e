"""Console tickets: one use, 30 s, bound (attack row 18)."""

from __future__ import annotations

import pytest

from panal.access.console import CONSOLE_LIFE_S, OPEN_PER_USER, ConsoleTickets
from panal.core.errors import Busy, NotAuthenticated
from panal.core.redact import redact
from tests.unit.access.conftest import FakeClock

PLACE = ("eve@pve", "/vms/100", "a", 5900)


def refused(tickets: ConsoleTickets, ticket: str, place: tuple[str, str, str, int]) -> None:
    with pytest.raises(NotAuthenticated, match="invalid PVEVNC ticket"):
        tickets.consume(ticket, *place)


def test_a_ticket_opens_once(clock: FakeClock) -> None:
    """Planted fault: `get` instead of `pop`."""
    tickets = ConsoleTickets(clock)
    ticket = tickets.issue(*PLACE)
    tickets.consume(ticket, *PLACE)
    refused(tickets, ticket, PLACE)


@pytest.mark.parametrize(
    "place",
    [
        ("bob@pve", *PLACE[1:]),
        ("eve@pve", "/vms/101", "a", 5900),
        ("eve@pve", "/vms/100", "b", 5900),
        (*PLACE[:3], 5901),
    ],
)
def test_a_ticket_opens_nothing_else_and_the_try_uses_it_up(clock: FakeClock, place: tuple[str, str, str, int]) -> None:
    """Planted fault: each field of the comparison left out."""
    tickets = ConsoleTickets(clock)
    ticket = tickets.issue(*PLACE)
    refused(tickets, ticket, place)
    refused(tickets, ticket, PLACE)


def test_a_ticket_lives_30_seconds(clock: FakeClock) -> None:
    tickets = ConsoleTickets(clock)
    ticket = tickets.issue(*PLACE)
    clock.now_s += CONSOLE_LIFE_S
    tickets.consume(ticket, *PLACE)
    ticket = tickets.issue(*PLACE)
    clock.now_s += CONSOLE_LIFE_S + 0.1
    refused(tickets, ticket, PLACE)


def test_unused_tickets_are_counted(clock: FakeClock) -> None:
    tickets = ConsoleTickets(clock)
    for _ in range(OPEN_PER_USER):
        tickets.issue(*PLACE)
    with pytest.raises(Busy):
        tickets.issue(*PLACE)
    tickets.issue("bob@pve", "/vms/100", "a", 5900)
    clock.now_s += 31
    tickets.issue(*PLACE)
    assert len(tickets._open) == 1


def test_a_ticket_is_redacted_in_logs(clock: FakeClock) -> None:
    ticket = ConsoleTickets(clock).issue(*PLACE)
    assert ticket.partition("::")[2] not in redact(f"console {ticket} opened")
