"""`Access`: what every verb of this folder and the API's handlers are given. Built once by the daemon.

Invariant: `policy` is never older than the mirror; it is rebuilt when something that decides about rights changed, and not
when only login counters did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from panal.access import policy as policies
from panal.access import tickets
from panal.access.audit import AuditLog
from panal.access.console import ConsoleTickets
from panal.access.keys import Keyring
from panal.access.lockout import Doorman
from panal.access.model import LOCKOUT, REALM, REVOKED
from panal.access.realms import PamRealm, PveRealm, RealmDriver

if TYPE_CHECKING:
    from pathlib import Path

    from panal.access.policy import Policy
    from panal.access.rights import UserRights
    from panal.cluster.store import Event, Mirror
    from panal.core.clock import Clock

_NOT_POLICY: Final = (LOCKOUT, REVOKED)


@dataclass(slots=True)
class Access:
    """Users and their rights on this node. `state`: directory of what survives a restart (audit log)."""

    store: Mirror
    clock: Clock
    state: Path
    realms: Mapping[str, RealmDriver] = field(default_factory=lambda: {"pam": PamRealm(), "pve": PveRealm()})
    """realm type → driver"""
    keyring: Keyring = field(init=False)
    doorman: Doorman = field(init=False)
    consoles: ConsoleTickets = field(init=False)
    audit: AuditLog = field(init=False)
    _policy: Policy | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.keyring = Keyring(self.store, self.clock)
        self.doorman = Doorman(self.store, self.clock)
        self.consoles = ConsoleTickets(self.clock)
        self.audit = AuditLog(self.state / "audit", self.clock)
        self.store.listen("access/", self._changed)
        self.store.listen("pool/", self._changed)

    def _changed(self, events: tuple[Event, ...]) -> None:
        if any(not event.key.startswith(_NOT_POLICY) for event in events):
            self._policy = None

    @property
    def policy(self) -> Policy:
        """Everything that decides about rights, now."""
        if self._policy is None:
            items = [*self.store.list("access/"), *self.store.list("pool/")]
            self._policy = policies.build((item.key, item.value) for item in items)
        return self._policy

    def rights(self, userid: str) -> UserRights:
        """Rights of `name@realm` or `name@realm!token`; none for an unknown one. Says nothing about expiry."""
        return self.policy.rights(userid)

    def csrf_matches(self, csrf: str, userid: str, session: str) -> bool:
        """Whether this CSRF token belongs to this session."""
        return tickets.verify_csrf(self.keyring.all(), csrf, userid, self.clock.wall_s(), session)

    def realm_type(self, realm: str) -> str | None:
        """Type of a realm; None when there is no such realm."""
        value = self.store.value(REALM + realm)
        return None if value is None else str(value["type"])

    def console_ticket(self, userid: str, path: str, node: str, port: int) -> str:
        """A one-use ticket for a console; `consoles.consume` is the other end. Raises Busy."""
        return self.consoles.issue(userid, path, node, port)

    def pool_of(self, vmid: int) -> str | None:
        """The pool a guest is in."""
        return self.policy.pool_of.get(vmid)
