"""Realm type `pam`: accounts of this machine's Linux, checked by PAM itself.

PAM works for all accounts only as root. It blocks (2 s after a wrong password), so it has threads of its own, bounded; a
module that hangs cannot take the daemon's other threads with it.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from panal.core.errors import BadInput, Failed, ProgramFailed, Unavailable
from panal.host.run import run

if TYPE_CHECKING:
    from panal.access.context import Access
    from panal.access.model import User
    from panal.cluster.store import Op

THREADS: Final = 4
TIMEOUT_S: Final = 30.0
SERVICES: Final = ("panal", "login", "other")
# looks like an account, and useradd would refuse to make it
_log = structlog.get_logger("access")
_NOBODY: Final = "panal-no.such+user"


class PamRealm:
    """`service`: file under /etc/pam.d; by default the first of SERVICES that is there."""

    def __init__(self, service: str | None = None) -> None:
        self._service = service
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pam")

    async def check(self, access: Access, user: User | None, password: str) -> bool:
        """See RealmDriver."""
        if not password or "\0" in password:
            return False
        name = user.name if user is not None else _NOBODY
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                good = await loop.run_in_executor(self._pool, self._ask, name, password)
        except TimeoutError:
            raise Unavailable("PAM does not answer; look at /etc/pam.d and the machine's log") from None
        return good and user is not None

    def _ask(self, name: str, password: str) -> bool:
        if os.geteuid() != 0:
            _log.warning("PAM can check other accounts only when paneld runs as root; use a user of realm pve")
        from pam import PamAuthenticator  # loads libpam: only when somebody logs in

        service = self._service or next((s for s in SERVICES if Path("/etc/pam.d", s).exists()), SERVICES[-1])
        return bool(PamAuthenticator().authenticate(name, password, service=service, resetcreds=False))

    async def new_password(self, access: Access, userid: str, uid: str, password: str) -> list[Op]:
        """Change the password of the Linux account on this node."""
        name = userid.rpartition("@")[0]
        if any(c in password for c in "\n\r\0") or ":" in name or "\n" in name:
            raise BadInput("password", "the password must not contain line breaks")
        try:
            await run(["chpasswd"], timeout_s=TIMEOUT_S, stdin=f"{name}:{password}\n".encode())
        except ProgramFailed as exc:
            raise Failed(
                f"the password of the Linux account '{name}' could not be changed; is there such an account on this node?"
            ) from exc
        return []

    def deleted(self, userid: str) -> list[Op]:
        """Nothing: the Linux account stays."""
        return []
