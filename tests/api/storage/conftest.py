"""A node's API as far as storages go: the real dispatcher, store, tasks and access; rights are given by the test."""

import json
import os
from typing import Any

import pytest

from panal.access import Access, bootstrap
from panal.api.all_routes import table
from panal.api.dispatch import Dispatcher
from panal.api.idempotency import Replays
from panal.api.services import Services
from panal.api.wire.model import Request
from panal.cluster.store import Mirror, SqliteStore
from panal.core.clock import SystemClock
from panal.storage import Storages
from panal.tasks.runner import Tasks


class Caller:
    """Rights as a test wants them: path → privileges; None is root."""

    userid = owner = "someone@pve"

    def __init__(self, have=None):
        self.have = have
        self.is_root = have is None

    def privileges(self, path):
        return dict.fromkeys(ALL if self.have is None else self.have.get(path, ()), True)

    def groups_of(self, userid):
        return frozenset()


ALL = (
    "Datastore.Allocate", "Datastore.AllocateSpace", "Datastore.AllocateTemplate", "Datastore.Audit", "Sys.AccessNetwork",
    "Sys.Audit", "Sys.Modify", "VM.Backup", "VM.Config.Disk",
)  # fmt: skip


class Gate:
    def __init__(self):
        self.caller = Caller()

    async def authenticate(self, ticket, token, csrf, changes):
        return self.caller

    def root(self):
        return Caller()

    async def audit(self, change):
        pass


class Api:
    """`await api.get(path)` → data; `await api.fails(verb, path)` → status and errors."""

    def __init__(self, services, dispatcher, gate):
        self.services, self.storages, self.tasks = services, services.storages, services.tasks
        self._dispatcher, self._gate = dispatcher, gate

    def act_as(self, have):
        self._gate.caller = Caller(have)

    async def ask(self, verb, path, params=None, file=None):
        take = None
        if file is not None:

            async def take(descriptor, late):
                os.write(descriptor, file)
                late({})
                return len(file)

        request = Request(verb, path, kind="call" if file is None else "upload", ticket="x", csrf="x")
        reply = await self._dispatcher.answer(request, json.dumps(params or {}).encode(), local=False, take=take)
        return reply.answer.status, json.loads(reply.body)

    async def _good(self, verb, path, params=None, **more):
        status, body = await self.ask(verb, path, params, **more)
        assert status == 200, body
        return body["data"]

    async def get(self, path, /, **params):
        return await self._good("GET", path, params)

    async def post(self, path, /, **params):
        return await self._good("POST", path, params)

    async def put(self, path, /, **params):
        return await self._good("PUT", path, params)

    async def delete(self, path, /, **params):
        return await self._good("DELETE", path, params)

    async def upload(self, path, data, /, **params):
        return await self._good("POST", path, params, file=data)

    async def fails(self, verb, path, /, file=None, **params):
        status, body = await self.ask(verb, path, params, file)
        assert status != 200, body
        return status, body.get("errors") or body["message"]

    async def ended(self, upid):
        return (await self.tasks.wait(upid, 60)).status


@pytest.fixture
async def api(tmp_path):
    clock = SystemClock()
    store = Mirror(SqliteStore(tmp_path / "store.db"))
    await store.start()
    tasks = Tasks("n1", tmp_path / "tasks", clock, lambda upid, error: print(upid, repr(error)))
    await tasks.start()
    access = Access(store, clock, tmp_path)
    await bootstrap(access)
    storages = Storages(store=store, state=tmp_path / "state", clock=clock, node="n1")
    await storages.ensure_default()
    unused: Any = None
    services = Services(
        node="n1", state=tmp_path, run=tmp_path, clock=clock, store=store, tasks=tasks, access=access, storages=storages,
        nodeinfo=unused, network=unused, series=unused, sampler=unused, guests=unused,
    )  # fmt: skip
    replays = Replays(tmp_path / "replays.db", clock, b"a key for tests")
    gate = Gate()
    yield Api(services, Dispatcher(table(), services, gate, replays), gate)
    await tasks.close()
    replays.close()
    await storages.close()
    await store.close()
