"""What panal-web (and the local command line) and paneld say to each other, one JSON header a frame.

    web → paneld   Request (body: the parameters as a JSON object)
    paneld → web   Answer  (body: the whole HTTP body)

Upload: Request(kind="upload") → Answer(step="receive", one descriptor) → the file's bytes are written by web →
Part(kind="finish", params of the fields after the file) or another Part → Answer.
WebSocket: Request(kind="websocket") → Answer(step="socket", one descriptor) or an ordinary refusal.

Nothing in an Answer names a file, a host or a header: web cannot be told to fetch something (attack row 3).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Format = Literal["json", "extjs", "htmljs", "png"]
FORMATS: tuple[Format, ...] = ("json", "extjs", "htmljs", "png")
CONTENT_TYPES: dict[str, str] = {
    "json": "application/json;charset=UTF-8",
    "extjs": "application/json;charset=UTF-8",
    "htmljs": "text/html;charset=UTF-8",
    "png": "image/png",
}
# what a caller may send as a parameter: JSON scalars, or a list of them (a key given several times)
Sent = dict[str, Any]


class Request(msgspec.Struct, omit_defaults=True):
    """One request. `path` begins after the format and is not decoded: `/nodes/a/qemu/100`. `client` is an address."""

    verb: str
    path: str
    kind: Literal["call", "upload", "websocket", "openapi"] = "call"
    format: Format = "json"
    id: str = ""
    client: str = ""
    ticket: str | None = None
    token: str | None = None
    csrf: str | None = None
    if_none_match: str | None = None
    idempotency_key: str | None = None


class Part(msgspec.Struct, omit_defaults=True):
    """The end of an upload. finish: all is there; broken: the multipart is wrong; gone: the client left; failed: no writing.

    `reason` says why it was given up.
    """

    kind: Literal["finish", "broken", "gone", "failed"]
    size: int = 0
    reason: str = ""


class Answer(msgspec.Struct, omit_defaults=True):
    """One answer. `status` and `reason` go into the status line; `hold_s`: web waits so long before it sends it."""

    status: int
    reason: str = "OK"
    content_type: str = CONTENT_TYPES["json"]
    etag: str | None = None
    hold_s: float = 0
    retry_after_s: int = 0
    step: Literal["", "receive", "socket"] = ""
    terminal: str = ""
    """with step "socket": the first line a terminal client must send; empty: bytes pass as they are"""


encode = msgspec.json.encode
_request = msgspec.json.Decoder(Request)
_part = msgspec.json.Decoder(Part)
_answer = msgspec.json.Decoder(Answer)
_params = msgspec.json.Decoder(dict[str, str | int | float | bool | list[str | int | float | bool | None] | None])

read_request = _request.decode
read_part = _part.decode
read_answer = _answer.decode


def read_params(body: bytes) -> Sent:
    """The parameters of a Request (or of a Part); msgspec.DecodeError for anything but an object of scalars and lists."""
    return _params.decode(body) if body else {}
