"""Bodies and reason phrases of the four formats. The whole body is made once, here, with msgspec; web passes it through.

json     {"data": …} with the status and the message in the status line
extjs    always 200: {"success": 1|0, "data": …, "status": …, "message": …}
htmljs   the extjs object as text of an HTML page (old upload forms)
png      the picture; errors as in json
"""

from __future__ import annotations

import asyncio
import base64
import html
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from panal.api.errors import Failure
from panal.api.wire.model import CONTENT_TYPES, Answer, Format
from panal.api.wire.values import Encoded, Picture

SLICE_ROWS: Final = 1000
_REASON_BYTES: Final = 400
_NOT_PRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_encoder = msgspec.json.Encoder()
# what a page may show even if a browser takes our JSON for HTML (attack row 4)
_SCRIPT: Final = ((b"<", b"\\u003c"), (b">", b"\\u003e"))


def plain(value: Any) -> Any:
    """Booleans as 0/1, as on PVE's wire; containers are copied, nothing else is touched."""
    if value is True:
        return 1
    if value is False:
        return 0
    if type(value) is dict:
        return {key: item if type(item) in _ATOMS else plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [item if type(item) in _ATOMS else plain(item) for item in value]
    return value


_ATOMS: Final = frozenset({str, int, float, type(None)})


def reason(message: str) -> str:
    """A message as reason phrase: one line, latin-1, bounded. Nobody can put a header in there (attack row 4)."""
    line = _NOT_PRINTABLE.sub(" ", message).strip().encode("latin-1", "replace")[:_REASON_BYTES]
    return line.decode("latin-1") or "Error"


async def sliced(rows: list[Any]) -> Encoded:
    """A long list as JSON, a slice at a time, so that others get their turn in between (design D10: 10,000 rows take 17 ms)."""
    parts: list[bytes] = []
    for at in range(0, len(rows), SLICE_ROWS):
        parts.append(_encoder.encode(plain(rows[at : at + SLICE_ROWS]))[1:-1])
        await asyncio.sleep(0)
    return Encoded(b"[" + b",".join(parts) + b"]")


def success(kind: Format, data: Any, extras: Mapping[str, Any], etag: str | None) -> tuple[Answer, bytes]:
    """The answer for what a handler returned."""
    if kind == "png" and isinstance(data, Picture):
        return Answer(200, content_type=CONTENT_TYPES["png"], etag=etag), data.data
    if isinstance(data, Picture):
        data = base64.b64encode(data.data).decode()
    encoded = data.data if isinstance(data, Encoded) else _encoder.encode(plain(data))
    head = {"success": 1, **extras} if kind in ("extjs", "htmljs") else dict(extras)
    parts = [b'"data":' + encoded, *(_encoder.encode(k) + b":" + _encoder.encode(plain(v)) for k, v in head.items())]
    return Answer(200, content_type=_content_type(kind), etag=etag), _page(kind, b"{" + b",".join(parts) + b"}")


def failed(kind: Format, error: Failure) -> tuple[Answer, bytes]:
    """The answer for a failure."""
    body: dict[str, Any] = {"data": None, "message": error.message, "panal-code": error.code}
    if error.params:
        body["panal-params"] = error.params
    if error.fields:
        body["errors"] = error.fields
    enveloped = kind in ("extjs", "htmljs")
    if enveloped:
        body |= {"success": 0, "status": error.status}
    answer = Answer(
        200 if enveloped else error.status,
        "OK" if enveloped else reason(error.message),
        _content_type(kind),
        hold_s=error.hold_s,
        retry_after_s=2 if error.status in (429, 503) else 0,
    )
    encoded = _encoder.encode(body)
    for plain_byte, escaped in _SCRIPT:
        encoded = encoded.replace(plain_byte, escaped)
    return answer, _page(kind, encoded)


def not_modified(etag: str | None) -> tuple[Answer, bytes]:
    """304."""
    return Answer(304, "Not Modified", etag=etag), b""


def _content_type(kind: Format) -> str:
    return CONTENT_TYPES["json"] if kind == "png" else CONTENT_TYPES[kind]


def _page(kind: Format, body: bytes) -> bytes:
    if kind != "htmljs":
        return body
    return b"<html><body><pre>" + html.escape(body.decode()).encode() + b"</pre></body></html>"
