"""Login as a state machine (attack row 1): the only code that makes tickets.

    ASKED ─ tfa answer sent ───────────────────────────────► REFUSED   no second factor exists yet: no answer can be right
    ASKED ─ password is a ticket ─► RENEWING ─ ticket right ─► ADMITTED
                                             └ wrong ─────────► REFUSED
    ASKED ─ password ─► COUNTING ─ no tries left ─► SPENT ─ looked at for nothing ─► REFUSED
                                 └ may try ─► CHECKING ─ wrong ─► REFUSED
                                                       └ right ─► PROVEN ─ account closed ─► REFUSED
                                                                         └ account open ───► ADMITTED
    ADMITTED ─ nothing more asked ─► TICKET                            the only state with a ticket
    ADMITTED ─ path and privileges asked ─► WEIGHED ─ held ─► VOUCHED  (answers the name, no ticket)
                                                    └ not held ─► REFUSED

An event that is not listed for a state leads to REFUSED. All refusals look the same from outside: one sentence, one time
(the real reason is in the audit log). `otp` never replaces anything: without a second factor it is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from panal.access import tickets
from panal.access.authenticate import verify_ticket
from panal.access.lockout import network_of
from panal.access.model import User
from panal.core.errors import NotAuthenticated, PanalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from panal.access.context import Access

FAILURE: Final = "authentication failure"
AUDITED_FAILURES: Final = 8


class State(Enum):
    """Where a login is."""

    ASKED = auto()
    RENEWING = auto()
    COUNTING = auto()
    SPENT = auto()
    CHECKING = auto()
    PROVEN = auto()
    ADMITTED = auto()
    WEIGHED = auto()
    TICKET = auto()
    VOUCHED = auto()
    REFUSED = auto()


class Event(Enum):
    """What was found out."""

    TFA_ANSWER = auto()
    A_TICKET = auto()
    A_PASSWORD = auto()
    NONE_LEFT = auto()
    MAY_TRY = auto()
    RIGHT = auto()
    WRONG = auto()
    CLOSED = auto()
    OPEN = auto()
    PRIVS_ASKED = auto()
    NO_MORE = auto()


_NEXT: Final = {
    (State.ASKED, Event.A_TICKET): State.RENEWING,
    (State.ASKED, Event.A_PASSWORD): State.COUNTING,
    (State.RENEWING, Event.RIGHT): State.ADMITTED,
    (State.COUNTING, Event.NONE_LEFT): State.SPENT,
    (State.COUNTING, Event.MAY_TRY): State.CHECKING,
    (State.CHECKING, Event.RIGHT): State.PROVEN,
    (State.PROVEN, Event.OPEN): State.ADMITTED,
    (State.ADMITTED, Event.NO_MORE): State.TICKET,
    (State.ADMITTED, Event.PRIVS_ASKED): State.WEIGHED,
    (State.WEIGHED, Event.RIGHT): State.VOUCHED,
}


def after(state: State, event: Event) -> State:
    """The next state. Pure."""
    return _NEXT.get((state, event), State.REFUSED)


@dataclass(frozen=True, slots=True)
class Request:
    """What was sent. `userid` is name@realm, put together by the API."""

    userid: str
    password: str = field(repr=False)
    client: str = ""
    tfa_challenge: str | None = field(default=None, repr=False)
    path: str | None = None
    privs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """`ticket` and `csrf` are empty when only privileges were asked about."""

    userid: str
    ticket: str = field(default="", repr=False)
    csrf: str = field(default="", repr=False)


@dataclass(slots=True)
class _Login:
    """One login on its way."""

    access: Access
    request: Request
    address: str
    state: State = State.ASKED
    user: User | None = None
    session: str = ""
    reason: str = ""

    async def step(self) -> Event:
        """Find out what the present state is about."""
        match self.state:
            case State.ASKED:
                return self._asked()
            case State.RENEWING:
                return self._renew()
            case State.COUNTING:
                self.reason = "too many tries"
                may = await self.access.doorman.may_try(self.request.userid, self.user is not None, self.address)
                return Event.MAY_TRY if may else Event.NONE_LEFT
            case State.SPENT:
                await self._check(None)
                return Event.WRONG
            case State.CHECKING:
                self.reason = "wrong password" if self.user else "no such user"
                return Event.RIGHT if await self._check(self.user) else Event.WRONG
            case State.PROVEN:
                return await self._proven()
            case State.ADMITTED:
                return Event.PRIVS_ASKED if self.request.path is not None or self.request.privs else Event.NO_MORE
            case State.WEIGHED:
                self.reason = "lacks the privileges asked about"
                have = self.access.rights(self.request.userid).privileges(self.request.path or "")
                return Event.RIGHT if self.request.privs and all(p in have for p in self.request.privs) else Event.WRONG
        return Event.WRONG

    def _asked(self) -> Event:
        self.user = self.access.policy.users.get(self.request.userid)
        if self.request.tfa_challenge is not None:
            self.reason = "answer to a second factor that does not exist"
            return Event.TFA_ANSWER
        return Event.A_TICKET if tickets.parse(self.request.password) else Event.A_PASSWORD

    def _renew(self) -> Event:
        try:
            self.user, self.session = verify_ticket(self.access, self.request.password)
        except NotAuthenticated as exc:
            self.reason = exc.message
            return Event.WRONG
        self.reason = "ticket of another user"
        return Event.RIGHT if self.user.userid == self.request.userid else Event.WRONG

    async def _check(self, user: User | None) -> bool:
        realm = self.access.realm_type(self.request.userid.rpartition("@")[2])
        driver = self.access.realms.get(realm or "", self.access.realms["pve"])
        if self.state is State.SPENT:  # no PAM for a locked one: it would count in the machine's own books
            driver = self.access.realms["pve"]
        return await driver.check(self.access, user, self.request.password)

    async def _proven(self) -> Event:
        user = self.user
        if user is None:
            return Event.CLOSED
        self.session = tickets.new_session()
        problem = user.problem(self.access.clock.wall_s())
        self.reason = problem or ""
        await self.access.doorman.right(user.userid, self.address)
        return Event.CLOSED if problem else Event.OPEN


async def login(access: Access, request: Request) -> Admitted:
    """Run the machine. Raises NotAuthenticated("authentication failure"), Busy, or Unavailable when a back end is down."""
    address = network_of(request.client)
    flow = _Login(access, request, address)
    await access.doorman.wait(address)
    try:
        while flow.state not in (State.TICKET, State.VOUCHED, State.REFUSED):
            flow.state = after(flow.state, await flow.step())
    except PanalError as exc:
        await _note(flow, f"failed: {exc.message}")
        raise
    finally:
        access.doorman.leave(address)
    if flow.state is State.REFUSED or flow.user is None:
        count = access.doorman.wrong(address)
        # a flood from one address must not push a year of history out of the log
        if count <= AUDITED_FAILURES or count & (count - 1) == 0:
            await _note(flow, f"refused: {flow.reason}", failures=count)
        raise NotAuthenticated(FAILURE)
    if flow.state is State.VOUCHED:
        await _note(flow, "privileges confirmed")
        return Admitted(flow.user.userid)
    key = await access.keyring.current()
    # as of now: the password may have been changed while the old one was being checked
    user = access.policy.users.get(flow.user.userid)
    if user is None or (user.uid, user.epoch) != (flow.user.uid, flow.user.epoch):
        raise NotAuthenticated(FAILURE)
    now_s = access.clock.wall_s()
    await _note(flow, "OK")
    return Admitted(
        user.userid,
        tickets.issue(key, user, now_s, flow.session),
        tickets.issue_csrf(key, user.userid, now_s, flow.session),
    )


async def _note(flow: _Login, result: str, **params: Any) -> None:
    await flow.access.audit.record(flow.request.userid, flow.request.client, "login", params, result)
