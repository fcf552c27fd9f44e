"""Builds the object graph of a node and takes it down again, in the order that the safety argument wants.

    store → access (root@pam, keys) → tasks → storages → guests (adopt, kill what is not ours) → tasks.start (undo, finish)
    → doors open → guests that start with the node

Holds no logic of the product. A new noun: build its context in `build`, give it to `Services`, add it to `start` in its place.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from panal.access import Access, pools
from panal.access.authenticate import authenticate
from panal.access.bootstrap import bootstrap
from panal.api.all_routes import table
from panal.api.dispatch import Change, Dispatcher
from panal.api.idempotency import Replays
from panal.api.permission import Rights
from panal.api.services import Services
from panal.cluster import certificates
from panal.cluster.incarnation import read_boot_id, register
from panal.cluster.store import Mirror, SealedStore, SqliteStore
from panal.cluster.store.sealed import load_key
from panal.core.clock import SystemClock
from panal.daemon import measure
from panal.daemon.server import Server
from panal.firewall import NftBackend
from panal.guests import Guests, boot
from panal.guests.drivers.base import GuestDriver
from panal.guests.drivers.fake import FakeDriver
from panal.guests.drivers.fake_disks import image_copy, image_snapshot
from panal.guests.in_use import user_of, user_of_storage
from panal.guests.populate import populate
from panal.host import privileges
from panal.network import Network
from panal.node import NodeInfo, Sampler, Series
from panal.storage import Storages
from panal.tasks.runner import Tasks

UPKEEP_S: Final = 3600.0
_log = structlog.get_logger("daemon")


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line. `web_user` is whom panal-web runs as; only root can give it anything."""

    node: str
    state: Path
    run: Path
    driver: str = "qemu"
    web_user: str = "panal"
    populate: int = 0


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
        what = f"{change.verb} {change.path}"
        result = "OK" if change.status == 200 else f"{change.status} {change.message}"
        await self._access.audit.record(change.user, change.client, what, change.params, result)


async def run_node(settings: Settings, stack: AsyncExitStack) -> Services:
    """Build, start and open the doors. What was started is taken down by `stack`, in reverse. Raises PanalError."""
    for directory, mode in ((settings.state, 0o700), (settings.run, 0o711)):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
    services = await _build(settings, stack)
    guests = services.guests
    await bootstrap(services.access)
    await services.storages.ensure_default()
    settled = await boot.begin(guests, lambda line: _log.info("settle", what=line))
    _log.info("guests", adopted=settled.adopted, killed=settled.killed, released=settled.released)
    for entry in await services.tasks.start():
        _log.info("recovered", task=entry.upid, kind=entry.kind, finished=entry.committed)
    if settings.populate and isinstance(guests.driver, FakeDriver):
        await populate(guests, settings.populate, guests.driver)
    measure.add_sources(services)
    services.sampler.start()
    stack.push_async_callback(services.sampler.close)
    upkeep = asyncio.create_task(_upkeep(settings, services), name="upkeep")
    stack.push_async_callback(_end, upkeep)
    web = _web_account(settings)
    await _certificate(settings, services.store, web)
    secret = load_key(settings.state / "cluster.key", settings.state / "store.db")
    replays = Replays(settings.state / "idempotency.db", services.clock, secret)
    stack.callback(replays.close)
    server = Server(Dispatcher(table(), services, Gate(services.access), replays))
    stack.push_async_callback(server.close)
    _open_doors(settings, server, web)
    upid = await boot.autostart(guests)
    if upid is not None:
        _log.info("starting guests", task=upid)
    return services


async def _build(settings: Settings, stack: AsyncExitStack) -> Services:
    clock = SystemClock()
    node, state = settings.node, settings.state
    key = load_key(state / "cluster.key", state / "store.db")
    store = Mirror(SealedStore(SqliteStore(state / "store.db"), key))
    stack.push_async_callback(store.close)
    await store.start()
    incarnation = await register(store, node, read_boot_id(settings.run))
    access = Access(store, clock, state)
    tasks = Tasks(node, state / "tasks", clock, _task_error)
    storages = Storages(store=store, state=state, clock=clock, node=node)
    stack.push_async_callback(storages.close)
    series = Series(state / "series.db")
    stack.callback(series.close)
    driver = await _driver(settings)
    guests = Guests.build(node, incarnation, store, tasks, storages, driver, clock)
    if settings.driver != "fake":
        guests.filtering.backend = NftBackend()
    _acquaint(guests, storages, access)
    stack.push_async_callback(boot.end, guests)
    stack.push_async_callback(tasks.close)  # before the driver goes: a task that is stopped undoes through it
    return Services(
        node, state, settings.run, clock, store, tasks, access, storages, NodeInfo.build(node, clock), Network(), series,
        Sampler(series, clock, measure.on_error), guests,
    )  # fmt: skip


def _acquaint(guests: Guests, storages: Storages, access: Access) -> None:
    """Nouns that do not import each other, but must hear of each other."""
    storages.in_use = partial(user_of, guests)
    storages.storage_in_use = partial(user_of_storage, guests)
    guests.on_removed.append(partial(pools.forget_guest, access))
    guests.on_created.append(lambda vmid, pool, user: pools.join(access, pool, vmid))


async def _driver(settings: Settings) -> GuestDriver:
    if settings.driver == "fake":
        return FakeDriver(disk_snapshot=image_snapshot, disk_copy=image_copy)
    from panal.guests.drivers.qemu import QemuDriver
    from panal.network import Ports

    return await QemuDriver.open(settings.run, settings.node, Ports(), measure.on_error)


async def _upkeep(settings: Settings, services: Services) -> None:
    """What is looked after once an hour: ticket keys, the certificate, old tasks."""
    while True:
        await services.clock.sleep(UPKEEP_S)
        for work in (
            services.access.keyring.rotate(),
            _certificate(settings, services.store, _web_account(settings)),
            services.tasks.trim(),
        ):
            try:
                await work
            except Exception as exc:
                _log.error("upkeep failed", exc_info=exc)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


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
    (directory / "ca.pem").chmod(0o644)  # no secret: every user of this machine may check who answers


def _task_error(upid: str, error: BaseException) -> None:
    _log.error("task failed", task=upid, exc_info=error)
