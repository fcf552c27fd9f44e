"""An HTTP request as panal-web understands it: path, parameters, credentials. Pure; everything wrong is a `Refused`.

The oddities are those of the Proxmox VE API (pve-facts §1): parameters in query and body, the query's win; form bodies
without a content type; `_dc` dropped; tickets in three places.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from panal.api.wire.model import FORMATS, Format

MAX_BODY_BYTES: Final = 512 * 1024
MAX_FIELDS: Final = 2000
TOO_MANY_REFUSED: Final = "too many refused requests from this address; log in and wait a little"
COOKIE: Final = "PVEAuthCookie"
_TOKEN: Final = "PVEAPIToken"  # noqa: S105 (the name of a header's scheme)
VERBS: Final = frozenset({"GET", "POST", "PUT", "DELETE"})


class Refused(Exception):
    """Answered by panal-web itself. `fields`: the `errors` map."""

    def __init__(self, status: int, message: str, fields: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.fields = fields or {}


@dataclass(frozen=True, slots=True)
class Credentials:
    """As sent, not verified."""

    ticket: str | None = None
    token: str | None = None
    csrf: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request; header names in lower case, of a repeated header the first counts."""

    verb: str
    format: Format
    path: str
    query: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def credentials(self) -> Credentials:
        """Ticket, token and CSRF token."""
        return credentials(self.headers)

    @property
    def content_length(self) -> int | None:
        """Bytes of the body; None when not said."""
        text = self.headers.get("content-length")
        if text is None:
            return None
        if not text.isdecimal() or len(text) > 18:
            raise Refused(400, "Content-Length is not a number")
        return int(text)

    @property
    def media_type(self) -> str:
        """Content type without parameters; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def read_head(verb: str, raw_path: str, raw_query: bytes, headers: list[tuple[bytes, bytes]]) -> Head:
    """`raw_path` begins after `/api2`. Raises Refused."""
    kind, _, path = raw_path.lstrip("/").partition("/")
    fmt = next((f for f in FORMATS if f == kind), None)
    if fmt is None:
        raise Refused(501, "no such uri")
    known: dict[str, str] = {}
    for name, value in headers:
        known.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return Head(verb, fmt, "/" + path.lstrip("/"), _form(raw_query, "query"), known)


def check_body(head: Head) -> int:
    """Bytes of the body to read, or Refused: chunked, too long, not allowed with this verb, of an unknown type."""
    if head.verb not in VERBS:
        raise Refused(501, f"method '{head.verb[:20]}' not available")
    if "transfer-encoding" in head.headers:
        raise Refused(501, "chunked transfer encoding not supported")
    length = head.content_length or 0
    if length and head.verb in ("GET", "DELETE"):
        raise Refused(501, f"Unexpected content for method '{head.verb}'")
    if length > MAX_BODY_BYTES:
        raise Refused(501, f"for now, we only allow {MAX_BODY_BYTES} bytes of content; this has {length}")
    if length and head.media_type not in ("", "application/x-www-form-urlencoded", "application/json"):
        raise Refused(415, f"content type '{head.media_type[:60]}' is not understood; send a form or JSON")
    return length


def parameters(head: Head, body: bytes) -> dict[str, Any]:
    """Body and query, the query's win; without `_dc`."""
    sent = _json(body) if head.media_type == "application/json" else _form(body, "body")
    sent.update(head.query)
    sent.pop("_dc", None)
    return sent


def _form(raw: bytes, where: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS, separator="&"
        )
    except (ValueError, UnicodeDecodeError):
        raise Refused(400, f"the {where} is not urlencoded UTF-8 with at most {MAX_FIELDS} fields") from None
    for name, value in pairs:
        if name not in out:
            out[name] = value
        elif isinstance(out[name], list):
            out[name].append(value)
        else:
            out[name] = [out[name], value]
    return out


def _json(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "the body is not a JSON object")
    for name, value in found.items():
        items = value if isinstance(value, list) else [value]
        if len(name) > 256 or any(isinstance(item, (dict, list)) for item in items):
            raise Refused(400, "Parameter verification failed.", {name[:256]: "type check failed - got OBJECT"})
    return found


def credentials(headers: dict[str, str]) -> Credentials:
    """Cookie, `Authorization: PVEAuthCookie=…`, `Authorization: PVEAPIToken=…` (or a space instead of `=`)."""
    ticket = token = None
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            ticket = unquote(value.strip('"'))
    authorization = headers.get("authorization", "").strip()
    if authorization.startswith(COOKIE + "="):
        ticket = unquote(authorization[len(COOKIE) + 1 :])
    elif authorization.startswith((_TOKEN + "=", _TOKEN + " ")):
        token = authorization[len(_TOKEN) + 1 :].strip()
    return Credentials(ticket or None, token or None, headers.get("csrfpreventiontoken") or None)
