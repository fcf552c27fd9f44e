"""panal-web's application: `/api2/…` goes to paneld, `/` says what this is.

Parses the outside world so that paneld need not: what leaves here is a Request and a JSON object of parameters. Knows no
method, verifies nobody, opens no file. Invariant: a request's credentials travel with it and are kept nowhere.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import time
import uuid
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from panal.api import errors
from panal.api.wire import encode, model
from panal.core.errors import PanalError
from panal.web_front import console, page, upload
from panal.web_front.backend import Backend
from panal.web_front.limits import LOGINS, REQUESTS, Buckets, Refusals
from panal.web_front.request import TOO_MANY_REFUSED, Head, Refused, check_body, parameters, read_head

GZIP_FROM_BYTES: Final = 1024
# a body this big takes more than 5 ms to compress: in a thread (zlib lets go of the GIL)
GZIP_INLINE_BYTES: Final = 64 * 1024
BODY_TIMEOUT_S: Final = 30.0
_access = structlog.get_logger("access")


class Api:
    """The ASGI application under /api2."""

    def __init__(self, backend: Backend, refusals: Refusals, now_s: Callable[[], float] = time.monotonic) -> None:
        self._backend = backend
        self._now_s = now_s
        self._requests = Buckets(REQUESTS, now_s)
        self._logins = Buckets(LOGINS, now_s)
        self._refusals = refusals
        self._consoles = console.Consoles(backend, self._refusals)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """HTTP requests and WebSockets."""
        if scope["type"] == "websocket":
            await self._consoles(scope, receive, send)
            return
        began = self._now_s()
        request_id = uuid.uuid4().hex[:16]
        address = scope["client"][0] if scope["client"] else ""
        kind: model.Format = "json"
        try:
            head = _head(scope)
            kind = head.format
            answer, body = await self._answer(head, scope, receive, address, request_id)
        except Refused as exc:
            failure = errors.Failure(exc.status, exc.message, exc.fields, "refused")
            answer, body = encode.failed(kind, failure)
        except PanalError as exc:
            answer, body = encode.failed(kind, errors.failure(exc, request_id))
        if answer.hold_s and not await self._refusals.late(address, began, answer.hold_s):
            answer, body = encode.failed(kind, errors.Failure(429, TOO_MANY_REFUSED, code="refused"))
        await _respond(scope, send, answer, body)
        _access.info(
            "request", id=request_id, client=address, verb=scope["method"], path=scope["path"][:500], status=answer.status,
            reason=answer.reason, bytes=len(body), ms=round((self._now_s() - began) * 1000, 1),
        )  # fmt: skip

    async def _answer(
        self, head: Head, scope: Scope, receive: Receive, address: str, request_id: str
    ) -> tuple[model.Answer, bytes]:
        if not self._requests.take(address):
            raise Refused(429, "too many requests from this address; wait a little")
        if head.verb == "POST" and head.path.startswith("/access/") and not self._logins.take(address):
            raise Refused(429, "too many logins from this address; wait a little")
        request = build(head, address, request_id)
        if head.verb == "POST" and head.media_type == "multipart/form-data":
            request.kind = "upload"
            return await upload.run(self._backend, request, head, receive)
        length = check_body(head)
        body = await _read(receive, length) if length else b""
        sent = parameters(head, body)
        try:
            encoded = model.encode(sent)
        except (UnicodeEncodeError, ValueError, OverflowError):
            raise Refused(400, "a parameter is not valid Unicode text or too big a number") from None
        answer, data, descriptors = await self._backend.call(request, encoded)
        for descriptor in descriptors:  # nobody asked for any
            os.close(descriptor)
        return answer, data


def _head(scope: Scope) -> Head:
    raw = scope["raw_path"].decode("ascii", "replace")
    # the mount point may have been written with repeated slashes
    return read_head(scope["method"], raw.lstrip("/").removeprefix("api2"), scope["query_string"], scope["headers"])


def build(head: Head, address: str, request_id: str) -> model.Request:
    """What paneld is told of a request."""
    who = head.credentials
    return model.Request(
        head.verb, head.path, format=head.format, id=request_id, client=address, ticket=who.ticket, token=who.token,
        csrf=who.csrf, if_none_match=head.headers.get("if-none-match"),
        idempotency_key=head.headers.get("idempotency-key"),
    )  # fmt: skip


async def _read(receive: Receive, length: int) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "the client left in the middle of the body")
                data += message.get("body", b"")
                if len(data) > length:
                    raise Refused(400, "the body is longer than Content-Length says")
                if not message.get("more_body", False):
                    return bytes(data)
    except TimeoutError:
        raise Refused(408, "the body did not come in time") from None


async def _respond(scope: Scope, send: Send, answer: model.Answer, body: bytes) -> None:
    headers = [
        (b"content-type", answer.content_type.encode("latin-1")),
        (b"cache-control", b"max-age=0"),
        (b"pragma", b"no-cache"),
        (b"expires", formatdate(usegmt=True).encode()),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    ]
    if answer.etag is not None:
        headers.append((b"etag", answer.etag.encode("latin-1", "replace")))
    if answer.retry_after_s:
        headers.append((b"retry-after", str(answer.retry_after_s).encode()))
    if len(body) >= GZIP_FROM_BYTES:
        headers.append((b"vary", b"accept-encoding"))
        if _takes_gzip(scope):
            big = len(body) > GZIP_INLINE_BYTES
            body = await asyncio.to_thread(gzip.compress, body, 1) if big else gzip.compress(body, 1)
            headers.append((b"content-encoding", b"gzip"))
    if answer.status != 304:
        headers.append((b"content-length", str(len(body)).encode()))
    start: dict[str, Any] = {"type": "http.response.start", "status": answer.status, "headers": headers}
    start["reason"] = answer.reason.encode("latin-1", "replace")
    await send(start)
    await send({"type": "http.response.body", "body": body})


def _takes_gzip(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            offers = (offer.strip().replace(b" ", b"") for offer in value.lower().split(b","))
            return any(o == b"gzip" or (o.startswith(b"gzip;") and o != b"gzip;q=0") for o in offers)
    return False


def application(backend: Backend) -> Starlette:
    """The whole application."""
    api = Api(backend, Refusals(time.monotonic, asyncio.sleep))

    async def root(request: StarletteRequest) -> Response:
        return HTMLResponse(page.HTML, headers=page.HEADERS)

    async def openapi(request: StarletteRequest) -> Response:
        _, body, _ = await backend.call(model.Request("GET", "/", kind="openapi"))
        return Response(body, media_type="application/json", headers={"cache-control": "max-age=60"})

    async def unavailable(request: StarletteRequest, exc: Exception) -> Response:
        return Response(str(exc), status_code=503, media_type="text/plain")

    return Starlette(
        routes=[Route("/", root), Route("/api2/openapi.json", openapi), Mount("/api2", app=api)],
        exception_handlers={PanalError: unavailable},
    )
