"""Builds the object graph of a node and takes it down again, in the order that the safety argument wants.

    store → access (root@pam, keys) → tasks → storages → guests (adopt, kill what is not ours) → tasks.start (undo, finish)
    → doors open → guests that start with the node

Holds no logic of the product. A new noun: build its context in `build`, give it to `Services`, add it to `start` in its place.
"""

from __future__ import annotations

import datetime
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from panal.access import Access
from panal.access.authenticate import authenticate
from panal.access.bootstrap import bootstrap
from panal.api.all_routes import table
from panal.api.dispatch import Change, Dispatcher
from panal.api.idempotency import Replays
from panal.api.permission import Rights
from panal.api.services import Services
from panal.cluster import certificates
from panal.cluster.store import Mirror, SealedStore, SqliteStore
from panal.cluster.store.sealed import load_key
from panal.core.clock import SystemClock
from panal.daemon.server import Server
from panal.host import privileges
from panal.tasks.runner import Tasks

_log = structlog.get_logger("daemon")


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line. `web_user` is whom panal-web runs as; only root can give it anything."""

    node: str
    state: Path
    run: Path
    driver: str = "qemu"
    web_user: str = "panal"


class Gate:
    """What dispatch asks of `access`."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def authenticate(self, ticket: str | None, token: str | None, csrf: str | None, changes: bool) -> Rights:
        """Rights of who holds the ticket or token."""
        return await authenticate(self._access, ticket, token, csrf, changes)

    def root(self) -> Rights:
        """root@pam."""
        return self._access.rights("root@pam")

    async def audit(self, change: Change) -> None:
        """Into the audit log."""


async def run_node(settings: Settings, stack: AsyncExitStack) -> Services:
    """Build, start and open the doors. What was started is taken down by `stack`, in reverse. Raises PanalError."""
    clock = SystemClock()
    for directory, mode in ((settings.state, 0o700), (settings.run, 0o711)):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
    store = Mirror(SealedStore(SqliteStore(settings.state / "store.db"), load_key(settings.state / "cluster.key")))
    stack.push_async_callback(store.close)
    await store.start()
    tasks = Tasks(settings.node, settings.state / "tasks", clock, _task_error)
    stack.push_async_callback(tasks.close)
    access = Access(store, clock, settings.state)
    await bootstrap(access)
    guests: Any = None
    services = Services(settings.node, settings.state, settings.run, clock, store, tasks, guests, access)
    web = _web_account(settings)
    await _certificate(settings, store, web)
    await tasks.start()
    replays = Replays(settings.state / "idempotency.db", clock)
    stack.callback(replays.close)
    server = Server(Dispatcher(table(), services, Gate(access), replays))
    stack.push_async_callback(server.close)
    _open_doors(settings, server, web)
    return services


def _open_doors(settings: Settings, server: Server, web: privileges.Account | None) -> None:
    own = frozenset({0, os.geteuid()})
    admitted = own if web is None else own | {web.uid}
    server.listen(settings.run / "admin.sock", local=True, uids=own)
    server.listen(settings.run / "paneld.sock", local=False, uids=admitted, group=None if web is None else web.gid)


def _web_account(settings: Settings) -> privileges.Account | None:
    if os.geteuid() != 0:
        return None
    found = privileges.account(settings.web_user)
    if found is None:
        _log.warning("no such user; panal-web can only run as root or not at all", user=settings.web_user)
    return found


async def _certificate(settings: Settings, store: Mirror, web: privileges.Account | None) -> None:
    now = datetime.datetime.now(datetime.UTC)
    ca = await certificates.authority(store, now)
    chain, key = certificates.node_certificate(settings.state / "tls", settings.node, ca, now)
    owner = None if web is None else (web.uid, web.gid)
    directory = settings.run / "tls"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o711)  # the umask is 077
    certificates.write_private(directory / "node.key", key, owner)
    certificates.write_private(directory / "node.pem", chain, owner)
    certificates.write_private(directory / "ca.pem", ca.pem, owner)


def _task_error(upid: str, error: BaseException) -> None:
    _log.error("task failed", task=upid, exc_info=error)
