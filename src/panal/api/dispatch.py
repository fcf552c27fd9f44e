"""One request from its frame to its answer: find, authenticate, validate, permit, forward, handle, audit, encode.

Called by `daemon/server.py`. Knows no verb of the product: everything it needs to know of a method stands in the table.
Invariants: nothing runs before authentication, validation and the declared permission; an anonymous caller learns nothing
but 401 of every path that needs a login, existing or not; whatever a handler raises becomes one answer and at most one log
line.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import unquote

import msgspec
import structlog

from panal.api import errors, openapi
from panal.api.call import Call, Console, NotModified
from panal.api.idempotency import Replays
from panal.api.permission import Rights, World
from panal.api.services import Services
from panal.api.table import Method, Table
from panal.api.validate import validate
from panal.api.wire import encode, model
from panal.core.errors import BadInput, Failed, Forbidden, NotAuthenticated, NotFound
from panal.core.redact import redact_params

HANDLER_TIMEOUT_S: Final = 600.0
_log = structlog.get_logger("api")

Params = dict[str, Any]
Take = Callable[[int, Callable[[Params], None]], Awaitable[int]]
"""lets web write a file into a descriptor; the callback checks the late fields; returns the size (daemon/server.py)"""


@dataclass(frozen=True, slots=True)
class Change:
    """One line for the audit log: who, from where, what, with which result. `params` hold no secrets."""

    user: str
    client: str
    verb: str
    path: str
    params: Mapping[str, object]
    status: int
    message: str
    request_id: str


class Gate(Protocol):
    """What dispatch needs of `access` (daemon/compose.py fits it)."""

    async def authenticate(self, ticket: str | None, token: str | None, csrf: str | None, changes: bool) -> Rights:
        """The caller's rights. Raises NotAuthenticated."""

    def root(self) -> Rights:
        """Rights of root@pam, for the local door."""

    async def audit(self, change: Change) -> None:
        """Write it down."""


class Nobody:
    """The rights of a caller who has not logged in: none."""

    userid = ""
    owner = ""
    is_root = False

    def privileges(self, path: str) -> Mapping[str, bool]:
        """None."""
        return {}

    def groups_of(self, userid: str) -> frozenset[str]:
        """None."""
        return frozenset()


@dataclass(slots=True)
class Reply:
    """What goes back: header, body, and a descriptor that the server sends and closes."""

    answer: model.Answer
    body: bytes
    descriptors: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """What is known of a request so far: for the audit and the log when it fails."""

    request: model.Request
    method: Method | None = None
    rights: Rights | None = None
    params: Params = field(default_factory=dict)


class Dispatcher:
    """Answers requests over one table and one object graph."""

    def __init__(self, table: Table, services: Services, gate: Gate, replays: Replays) -> None:
        self._table = table
        self._services = services
        self._gate = gate
        self._replays = replays
        self._openapi = openapi.document(table)

    async def answer(self, request: model.Request, body: bytes, *, local: bool, take: Take | None = None) -> Reply:
        """Never raises but for cancellation. `local`: came through admin.sock, so the caller is root@pam."""
        if request.kind == "openapi":  # the same for everybody, and no secret: it is in the package
            return Reply(model.Answer(200), self._openapi)
        work = _Work(request)
        try:
            reply = await self._perform(work, body, local, take)
        except NotModified as exc:
            return Reply(*encode.not_modified(str(exc)))
        except Exception as exc:
            if isinstance(exc, _NotImplemented):
                problem = errors.not_implemented(request.verb, request.path)
            else:
                problem = errors.failure(exc, request.id)
            if problem.code == "internal":
                _log.error("request failed", request=request.id, verb=request.verb, path=request.path, exc_info=exc)
            await self._audit(work, problem.status, problem.message)
            return Reply(*encode.failed(request.format, problem))
        await self._audit(work, 200, "OK")
        return reply

    async def _perform(self, work: _Work, body: bytes, local: bool, take: Take | None) -> Reply:
        request = work.request
        found = self._find(request)
        if found is None:
            await self._authenticate(request, None, local)
            raise _NotImplemented(request.path)
        method, path_values = found
        work.method = method
        rights = work.rights = await self._authenticate(request, method, local)
        for name in path_values:
            if name == method.forward and path_values[name] == "localhost":
                path_values[name] = self._services.node
        sent = _read_params(body)
        work.params = {**path_values, **sent}
        params = validate(method, path_values, sent, partial=take is not None)
        method.permission.check(rights, params)
        _check_kind(request, method)
        self._forward(method, params)
        call = Call(
            params, rights, self._services, request.client, request.ticket, request.csrf, request.id,
            if_none_match=request.if_none_match,
        )  # fmt: skip
        if method.upload and take is not None:
            call.take = _taker(take, call, method, path_values, sent)
        # an anonymous answer (a login) belongs to nobody whose repetition it could be
        kept = bool(rights.userid) and not method.secret_answer
        if request.idempotency_key is not None and request.verb == "POST" and kept:
            return await self._replays.once(
                (rights.userid, request.path, request.idempotency_key), body,
                lambda: self._run(method, call, request.format),
            )  # fmt: skip
        return await self._run(method, call, request.format)

    def _find(self, request: model.Request) -> tuple[Method, dict[str, str]] | None:
        try:
            segments = [unquote(part, errors="strict") for part in request.path.split("/") if part]
        except UnicodeDecodeError:
            return None
        return self._table.find(request.verb, segments)

    async def _authenticate(self, request: model.Request, method: Method | None, local: bool) -> Rights:
        if local:
            return self._gate.root()
        if method is not None and isinstance(method.permission, World):
            return Nobody()
        if request.ticket is None and request.token is None:
            raise NotAuthenticated("No ticket")
        changes = request.verb != "GET" and (method is None or (method.csrf and not method.upload))
        rights = await self._gate.authenticate(request.ticket, request.token, request.csrf, changes)
        if method is not None and not method.allow_token and "!" in rights.userid:
            raise Forbidden("Permission check failed (API tokens may not do this; log in with a password)")
        return rights

    def _forward(self, method: Method, params: Mapping[str, Any]) -> None:
        """Requests for other nodes go there once there is a cluster; until then there are none."""
        node = params.get(method.forward) if method.forward else None
        if node is not None and node != self._services.node:
            raise NotFound(
                f"hostname lookup '{node}' failed - failed to get address info for: {node}: Name or service not known"
            )

    async def _run(self, method: Method, call: Call, kind: model.Format) -> Reply:
        timeout_s = None if method.upload else HANDLER_TIMEOUT_S
        try:
            async with asyncio.timeout(timeout_s) as limit:
                data = await method.handler(call)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Failed(
                f"no answer within {HANDLER_TIMEOUT_S:.0f} s; look whether it happened, then try again"
            ) from None
        if isinstance(data, Console):
            answer = model.Answer(101, "Switching Protocols", step="socket", terminal=data.terminal)
            return Reply(answer, b"", [data.descriptor])
        if isinstance(data, list) and len(data) > encode.SLICE_ROWS:
            data = await encode.sliced(data)
        return Reply(*encode.success(kind, data, call.extras, call.etag))

    async def _audit(self, work: _Work, status: int, message: str) -> None:
        # a login has its own, fuller line in access; a GET changes nothing; a stranger has no name to write down
        if work.method is None or not work.method.changes or work.rights is None or not work.rights.userid:
            return
        secret = [p.name for p in work.method.params if p.secret]
        shown = {k: v for k, v in redact_params(work.params, secret).items() if k not in work.method.path_params}
        change = Change(
            work.rights.userid, work.request.client, work.request.verb, work.request.path, shown, status, message,
            work.request.id,
        )  # fmt: skip
        try:
            await self._gate.audit(change)
        except Exception as exc:
            _log.error("audit line lost", request=work.request.id, exc_info=exc)


class _NotImplemented(Exception):
    """No such method (after authentication)."""


def _check_kind(request: model.Request, method: Method) -> None:
    wanted = "upload" if method.upload else "websocket" if method.websocket else "call"
    if request.kind == wanted:
        return
    if wanted == "call":
        raise BadInput(request.kind, "this path takes no file and no WebSocket handshake")
    text = {
        "upload": "send a multipart form with one file",
        "websocket": "this path answers a WebSocket handshake only",
    }
    raise BadInput(wanted, text[wanted])


def _read_params(body: bytes) -> Params:
    try:
        return model.read_params(body)
    except msgspec.DecodeError:
        raise BadInput("body", "the body is not a JSON object of plain values") from None


def _taker(take: Take, call: Call, method: Method, path_values: dict[str, str], sent: Params) -> Callable[..., Any]:
    def late(fields: Params) -> None:
        call.params = validate(method, path_values, {**fields, **sent})

    async def receive(descriptor: int) -> int:
        return await take(descriptor, late)

    return receive


def close_all(descriptors: list[int]) -> None:
    """Close descriptors of a Reply."""
    for descriptor in descriptors:
        os.close(descriptor)
