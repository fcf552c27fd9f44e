"""The whole object graph of a node and its dispatcher in this process: for tests that ask thousands of questions.

`Desk.ask` is a request as panal-web would send it. `samples` makes parameters that pass validation for any method.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panal.api.all_routes import table
from panal.api.dispatch import Dispatcher, close_all
from panal.api.idempotency import Replays
from panal.api.services import Services
from panal.api.table import Method, Param, Table
from panal.api.wire import model
from panal.core.errors import Interrupted
from panal.daemon.compose import Gate, Settings, run_node

UPID = "UPID:n1:00000001:00000001:00000001:qmstart:100:root@pam:"
NAMED: dict[str, Any] = {
    "node": "n1", "vmid": 100, "newid": 101, "storage": "local", "upid": UPID, "userid": "victim@pve", "groupid": "g1",
    "roleid": "r1", "realm": "pve", "poolid": "p1", "tokenid": "t1", "snapname": "s1", "volume": "local:iso/x.iso",
    "service": "cron", "iface": "vmbr0", "path": "/vms/100", "type": "dir", "disk": "scsi0", "size": "1G", "key": "ret",
    "username": "victim@pve", "password": "not-the-password", "roles": "PVEVMUser", "ticket": "x", "vncticket": "x",
    "url": "http://127.0.0.1:1/x", "filename": "x.iso", "content": "iso", "timezone": "UTC", "data": "127.0.0.1 x",
    "search": "example.org", "command": "reboot", "idlist": "scsi1", "target": "n2", "interface": "eth0",
    "privs": "Sys.Audit", "port": 5900, "state": "start", "text": "x", "starttime": 1, "cidr": "10.0.0.1", "start": 0,
}  # fmt: skip


def sample(param: Param) -> Any:
    if param.enum:
        named = NAMED.get(param.name)
        return named if named in param.enum else param.enum[0]
    if param.name in NAMED:
        return NAMED[param.name]
    if param.type in ("integer", "number"):
        return int(param.minimum if param.minimum is not None else 1)
    return 1 if param.type == "boolean" else "x" * max(1, param.min_length or 1)


def samples(method: Method) -> dict[str, Any]:
    """Every required parameter."""
    return {p.name: sample(p) for p in method.params if p.required}


@dataclass
class Desk:
    services: Services
    dispatcher: Dispatcher
    gate: Gate
    replays: Replays

    def with_table(self, other: Table) -> Desk:
        return Desk(self.services, Dispatcher(other, self.services, self.gate, self.replays), self.gate, self.replays)

    async def ask(
        self, verb: str, path: str, params: dict[str, Any] | None = None, *, local: bool = False, kind: Any = "call",
        **head: Any,
    ) -> tuple[int, str, Any]:  # fmt: skip
        """Status, reason, decoded body."""
        request = model.Request(verb, path, kind=kind, id="test", client="192.0.2.1", **head)
        take = _no_file if kind == "upload" else None
        reply = await self.dispatcher.answer(request, model.encode(params or {}), local=local, take=take)
        close_all(reply.descriptors)
        return reply.answer.status, reply.answer.reason, json.loads(reply.body) if reply.body else None

    async def must(self, verb: str, path: str, /, **params: Any) -> Any:
        status, reason, body = await self.ask(
            verb, path, {k.replace("_", "-"): v for k, v in params.items()}, local=True
        )
        assert status == 200, (verb, path, status, reason, body)
        return body["data"]

    async def call(self, method: Method, params: dict[str, Any], **kw: Any) -> tuple[int, str, Any]:
        """A table method: path parameters go into the path, percent-encoded."""
        from urllib.parse import quote

        path = method.path
        for name in method.path_params:
            path = path.replace("{" + name + "}", quote(str(params[name]), safe=""))
        rest = {k: v for k, v in params.items() if k not in method.path_params}
        kind = "upload" if method.upload else "websocket" if method.websocket else "call"
        return await self.ask(method.verb, path, rest, kind=kind, **kw)


async def _no_file(descriptor: int, late: Callable[[dict[str, Any]], None]) -> int:
    raise Interrupted("the client left")


@asynccontextmanager
async def desk(wrap: Callable[[Table], Table] = lambda t: t) -> AsyncIterator[Desk]:
    with tempfile.TemporaryDirectory(prefix="pnl", dir="/tmp") as name:
        settings = Settings("n1", Path(name) / "state", Path(name) / "run", "fake", "nobody")
        async with AsyncExitStack() as stack:
            services = await run_node(settings, stack)
            replays = Replays(settings.state / "test-idempotency.db", services.clock, b"a key for tests")
            stack.callback(replays.close)
            gate = Gate(services.access)
            yield Desk(services, Dispatcher(wrap(table()), services, gate, replays), gate, replays)
