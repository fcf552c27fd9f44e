"""Login: no subset of parameters but the listed ones gives a ticket; tries are limited and the limit survives a restart."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from panal.access import Access, authenticate, create_user, log_out, login, set_password, update_user
from panal.access.lockout import PAIR_TRIES, TOTAL_TRIES, charge, forgive, key_of, network_of
from panal.access.login import FAILURE, Admitted, Event, Request, State, after
from panal.access.model import LOCKOUT, USER
from panal.cluster.store import Mirror, Put
from panal.core.errors import Busy, NotAuthenticated
from tests.soaking import examples
from tests.unit.access.conftest import FakeClock, FakePam, put_acl
from tests.unit.access.test_authenticate import ticket_of

GOOD = "sesame open"


@pytest.fixture
async def eve(access: Access) -> str:
    await create_user(access, "eve@pve", by="root@pam", password=GOOD)
    return "eve@pve"


async def attempt(access: Access, userid: str, password: str, client: str = "192.0.2.1", **more: object) -> Admitted:
    return await login(access, Request(userid, password, client, **more))  # type: ignore[arg-type]


async def refused(access: Access, userid: str, password: str, client: str = "192.0.2.1", **more: object) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        await attempt(access, userid, password, client, **more)
    assert caught.value.message == FAILURE


def audit_of(access: Access) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for path in sorted((access.state / "audit").glob("*"))
        for line in path.read_text().splitlines()
    ]


async def test_a_password_gives_a_ticket(access: Access, eve: str) -> None:
    admitted = await attempt(access, eve, GOOD)
    assert (await authenticate(access, admitted.ticket, None, admitted.csrf, True)).userid == eve
    assert (await attempt(access, "root@pam", "correct horse")).ticket.startswith("PVE:root@pam:")
    assert [(r["who"], r["what"], r["result"], r["client"]) for r in audit_of(access)] == [
        (eve, "login", "OK", "192.0.2.1"), ("root@pam", "login", "OK", "192.0.2.1"),
    ]  # fmt: skip


def test_only_listed_steps_lead_to_a_ticket() -> None:
    """Row 1. Every path through the machine that ends in TICKET has proven a password or a ticket, and nothing skipped it."""
    tickets = []

    def walk(state: State, events: tuple[Event, ...]) -> None:
        if state is State.TICKET:
            tickets.append(events)
        if state in (State.TICKET, State.REFUSED, State.VOUCHED):
            return
        for event in Event:
            walk(after(state, event), (*events, event))

    walk(State.ASKED, ())
    assert sorted(tickets, key=len) == [
        (Event.A_TICKET, Event.RIGHT, Event.NO_MORE),
        (Event.A_PASSWORD, Event.MAY_TRY, Event.RIGHT, Event.OPEN, Event.NO_MORE),
    ]
    assert all(after(s, e) in (State.REFUSED, State.TICKET) or s in State for s, e in itertools.product(State, Event))


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    userid=st.sampled_from(
        ["eve@pve", "root@pam", "nobody@pve", "eve", "", "eve@pve@pve", "@", "eve@nowhere", "eve@pam"]
    ),
    password=st.sampled_from(
        [GOOD, "", "x", "GOOD-TICKET", "ROOT-TICKET", "!tfa!", "PVE:eve@pve:6B49D200::AAAA", GOOD + "\0"]
    ),
    tfa=st.sampled_from([None, "", "x", "totp:123456", "GOOD-TICKET", "PVE:!tfa!x:6B49D200::AAAA"]),
    path=st.sampled_from([None, "", "/", "/vms/100"]),
    privs=st.sampled_from([(), ("VM.Audit",), ("Sys.Modify",), ("",)]),
)
async def test_fuzzed_parameters(
    access: Access, eve: str, userid: str, password: str, tfa: str | None, path: str | None, privs: tuple[str, ...]
) -> None:
    """Row 1. Planted fault: `(ASKED, TFA_ANSWER): ADMITTED` and `(PROVEN, CLOSED): ADMITTED` in `_NEXT`: seen to fail."""
    for item in access.store.list(LOCKOUT):
        await access.store.txn([], [Put(item.key, {"v": 1})])
    access.doorman._failures.clear()
    good, _ = await ticket_of(access, eve)
    root, _ = await ticket_of(access, "root@pam")
    swap = {"GOOD-TICKET": good, "ROOT-TICKET": root}
    right = (userid, password) in [(eve, GOOD), (eve, "GOOD-TICKET"), ("root@pam", "ROOT-TICKET")] and tfa is None
    asked = path is not None or bool(privs)
    request = Request(userid, swap.get(password, password), "192.0.2.9", swap.get(tfa or "", tfa), path, privs)
    try:
        admitted = await login(access, request)
    except NotAuthenticated:
        assert not right or (asked and (userid != "root@pam" or privs in ((), ("",))))
    else:
        assert right
        assert bool(admitted.ticket) == (not asked)


async def test_renewal_keeps_the_session_and_is_for_oneself(access: Access, eve: str, clock: FakeClock) -> None:
    """Planted fault: `_renew` that does not compare the names."""
    first = await attempt(access, eve, GOOD)
    clock.now_s += 6000
    second = await attempt(access, eve, first.ticket)
    await refused(access, "root@pam", second.ticket)
    await authenticate(access, second.ticket, None, first.csrf, True)
    clock.now_s += 6000
    await refused(access, eve, first.ticket)
    await authenticate(access, second.ticket, None, second.csrf, True)
    await log_out(access, second.ticket)
    await refused(access, eve, second.ticket)


async def test_logout_ends_the_whole_chain_and_no_other_session(access: Access, eve: str) -> None:
    """Row 5. Planted fault: renewal that begins a new session."""
    first = await attempt(access, eve, GOOD)
    other = await attempt(access, eve, GOOD)
    second = await attempt(access, eve, first.ticket)
    await log_out(access, second.ticket)
    for dead in (first, second):
        with pytest.raises(NotAuthenticated):
            await authenticate(access, dead.ticket, None, None, False)
    await authenticate(access, other.ticket, None, None, False)


async def test_new_password_or_disabling_ends_all_sessions(access: Access, eve: str) -> None:
    """Row 5. Planted fault: `set_password` without the new epoch."""
    first = await attempt(access, eve, GOOD)
    await set_password(access, eve, "another one", by="root@pam")
    with pytest.raises(NotAuthenticated):
        await authenticate(access, first.ticket, None, None, False)
    await refused(access, eve, GOOD)
    second = await attempt(access, eve, "another one")
    await update_user(access, eve, by="root@pam", fields={"enable": False})
    await refused(access, eve, "another one")
    await refused(access, eve, second.ticket)
    await update_user(access, eve, by="root@pam", fields={"enable": True})
    with pytest.raises(NotAuthenticated):
        await authenticate(access, second.ticket, None, None, False)
    await attempt(access, eve, "another one")


async def test_expired_and_unknown_users_look_like_a_wrong_password(access: Access, eve: str, clock: FakeClock) -> None:
    """The driver is asked in each case (same work, same time). Planted fault: an early return for unknown users."""
    pam = access.realms["pam"]
    assert isinstance(pam, FakePam)
    await refused(access, "nobody@pam", "x")
    await refused(access, "root@pam", "x")
    assert pam.asked == [None, "root@pam"]
    await update_user(access, eve, by="root@pam", fields={"expire": int(clock.now_s)})
    await refused(access, eve, GOOD)
    assert [r["result"] for r in audit_of(access)] == [
        "refused: no such user", "refused: wrong password", "refused: user 'eve@pve' access expired",
    ]  # fmt: skip
    assert len({key_of(f"made-up-{n}@pve", False) for n in range(5000)}) <= 256


async def test_privileges_are_confirmed_without_a_ticket(access: Access, eve: str) -> None:
    await put_acl(access, "/vms", "user", eve, PVEVMUser=True)
    admitted = await attempt(access, eve, GOOD, path="/vms/100", privs=("VM.Audit",))
    assert (admitted.userid, admitted.ticket) == (eve, "")
    await refused(access, eve, GOOD, path="/vms/100", privs=("VM.Audit", "VM.Allocate"))
    await refused(access, eve, "wrong", path="/vms/100", privs=("VM.Audit",))


async def test_five_wrong_ones_lock_the_pair_for_a_while(access: Access, eve: str, clock: FakeClock) -> None:
    """Row 2. Planted faults: counting after the check; a lock that looks only at failures of this process."""
    for _ in range(PAIR_TRIES):
        await refused(access, eve, "wrong")
    await refused(access, eve, GOOD)
    assert (await attempt(access, eve, GOOD, "198.51.100.7")).ticket  # an address that did nothing wrong
    clock.now_s += 901
    assert (await attempt(access, eve, GOOD)).ticket


async def test_a_thousand_tries_at_once_are_a_thousand_counts(access: Access, eve: str) -> None:
    """Planted fault: counted after the password was looked at."""
    access.doorman._waiting.clear()
    looked = 0
    realm = access.realms["pve"]
    plain = realm.check

    async def counting(*args: object) -> bool:
        nonlocal looked
        looked += args[1] is not None
        return await plain(*args)  # type: ignore[arg-type]

    realm.check = counting  # type: ignore[method-assign, assignment]
    results = await asyncio.gather(*(attempt(access, eve, "wrong") for _ in range(100)), return_exceptions=True)
    assert looked <= PAIR_TRIES
    assert {type(r) for r in results} == {NotAuthenticated, Busy}


async def test_the_lock_survives_a_restart(
    access: Access, eve: str, clock: FakeClock, store: Mirror, tmp_path: Path
) -> None:
    """Row 2: another process over the same store (a restart, or another node) knows the count."""
    for _ in range(PAIR_TRIES):
        await refused(access, eve, "wrong")
    again = Access(store, clock, tmp_path / "two", realms=access.realms)
    await refused(again, eve, GOOD)
    again.audit.close()


async def test_a_stranger_cannot_lock_everybody_out(access: Access, eve: str, clock: FakeClock) -> None:
    """Planted faults: no total (unbounded tries from many addresses); known addresses not spared."""
    await attempt(access, eve, GOOD, "198.51.100.7")
    for number in range(TOTAL_TRIES):
        await refused(access, eve, "wrong", f"203.0.{number}.1")
    await refused(access, eve, GOOD, "203.0.113.99")
    assert (await attempt(access, eve, GOOD, "198.51.100.7")).ticket
    clock.now_s += 3601
    assert (await attempt(access, eve, GOOD, "203.0.113.99")).ticket


async def test_delays_grow_and_waiting_rooms_are_bounded(access: Access, eve: str, clock: FakeClock) -> None:
    clock.slept.clear()
    for number in range(9):
        await refused(access, f"u{number}@pve", "wrong")
    assert clock.slept == [1.0, 2.0, 4.0, 8.0, 16.0, 16.0]
    for _ in range(8):
        access.doorman._waiting["192.0.2.1"] = access.doorman._waiting.get("192.0.2.1", 0) + 1
    with pytest.raises(Busy):
        await attempt(access, eve, GOOD)
    assert (await attempt(access, eve, GOOD, "192.0.2.2")).ticket
    assert access.doorman._waiting == {"192.0.2.1": 8}


async def test_a_flood_does_not_fill_the_audit_log(access: Access) -> None:
    for number in range(40):
        await refused(access, f"u{number}@pve", "wrong")
    assert len(audit_of(access)) == 8 + 2


async def test_a_hash_of_a_former_user_is_no_password(access: Access, eve: str) -> None:
    """Row 19. Planted fault: `PveRealm.check` without the uid comparison."""
    value = dict(access.store.value(USER + eve) or {})
    await access.store.txn([], [Put(USER + eve, {**value, "uid": "somebody-else"})])
    await refused(access, eve, GOOD)


async def test_a_clock_that_was_wrong_for_a_while_locks_nobody_out(access: Access, eve: str, clock: FakeClock) -> None:
    """Fault list: clock jumps. Planted faults: `charge` and `_young` that take the future for now."""
    clock.now_s += 365 * 86400
    for number in range(TOTAL_TRIES + PAIR_TRIES):
        await refused(access, eve, "wrong", f"203.0.{number // PAIR_TRIES}.1")
    await attempt(access, "root@pam", "correct horse")
    clock.now_s -= 365 * 86400
    admitted = await attempt(access, eve, GOOD, "203.0.0.1")
    await authenticate(access, admitted.ticket, None, None, False)
    assert access.keyring.all()[0].created_s <= clock.now_s


def test_addresses() -> None:
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("2001:db8:0:1:2::3") == network_of("2001:db8:0:1::9") == "2001:db8:0:1::/64"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("") == ""


def test_counters_are_bounded() -> None:
    record: dict[str, object] | None = None
    for number in range(200):
        record = forgive(charge(record, f"a{number}", float(number)), f"a{number}", float(number))
    for number in range(49):
        record = charge(record, f"b{number}", 300.0)
    assert record is not None
    assert len(record["known"]) == 16  # type: ignore[arg-type]
    assert len(record["pairs"]) <= 64  # type: ignore[arg-type]
