"""A blocking connection to one node's API: over HTTPS, or through the node's own admin socket.

Used by `cli`. Standard library only, because the command line starts in a blink. Both transports answer alike: `Answer`, or
ApiError with PVE's status and reason. Secrets are headers, never part of a URL or an argument vector.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol
from urllib.parse import quote, urlencode, urlsplit

from panal.core.errors import PanalError, Unavailable
from panal.core.frames import exchange, exchange_descriptors

TIMEOUT_S: Final = 60.0
CHUNK_BYTES: Final = 1 << 20
Params = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer; `extras` holds `total` and `changes` where the method gives them."""

    data: Any
    extras: Mapping[str, Any] = field(default_factory=dict)


class ApiError(PanalError):
    """The node said no: HTTP status, its sentence, and a sentence per wrong parameter."""

    code = "api-error"

    def __init__(self, status: int, message: str, errors: Mapping[str, str]) -> None:
        super().__init__(message or f"the node answered with status {status}")
        self.status = status
        self.errors = dict(errors)


class Connection(Protocol):
    """A way to a node."""

    def call(self, verb: str, path: str, params: Params | None = None) -> Answer:
        """One call; `path` begins after the format (`/nodes/a/qemu`). Raises ApiError, Unavailable."""

    def upload(
        self, path: str, fields: Mapping[str, str], file: BinaryIO, filename: str, progress: Callable[[int, int], None]
    ) -> Answer:
        """Send a file (from its present position to its end) as the API's upload; `progress(sent, total)` in bytes."""

    @property
    def name(self) -> str:
        """For messages."""


def api_path(*parts: str | int) -> str:
    """Path segments, quoted, joined: `api_path("nodes", "a", "tasks", upid)`."""
    return "/" + "/".join(quote(str(part), safe=":@!") for part in parts)


def _read(status: int, reason: str, body: bytes) -> Answer:
    try:
        content = json.loads(body) if body else {}
    except ValueError:
        content = {}
    if not isinstance(content, dict):
        content = {}
    if status != 200:
        raise ApiError(status, str(content.get("message") or reason).strip(), content.get("errors") or {})
    return Answer(content.get("data"), {k: v for k, v in content.items() if k != "data"})


class AdminSocket:
    """The node's own door for its administrator, as pvesh: whoever may open the socket is root@pam."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """For messages."""
        return str(self._path)

    def call(self, verb: str, path: str, params: Params | None = None) -> Answer:
        """See Connection."""
        with self._connected() as sock:
            answer, body = exchange(sock, {"verb": verb, "path": path}, json.dumps(dict(params or {})).encode())
        return _read(int(answer["status"]), str(answer.get("reason", "")), body)

    def upload(
        self, path: str, fields: Mapping[str, str], file: BinaryIO, filename: str, progress: Callable[[int, int], None]
    ) -> Answer:
        """See Connection. The daemon hands out the descriptor to write into (`api/wire/model.py`)."""
        with self._connected() as sock:
            header = {"verb": "POST", "path": path, "kind": "upload"}
            answer, body, descriptors = exchange_descriptors(
                sock, header, json.dumps({**fields, "filename": filename}).encode()
            )
            if answer.get("step") == "receive":
                with os.fdopen(descriptors[0], "wb") as target:
                    for part, sent, total in _chunks(file):
                        target.write(part)
                        progress(sent, total)
                answer, body = exchange(sock, {"kind": "finish"})
        return _read(int(answer["status"]), str(answer.get("reason", "")), body)

    def open_console(self, path: str, params: Params) -> tuple[socket.socket, str]:
        """The connected console of a guest, and the first line that its other clients have to send."""
        with self._connected() as sock:
            header = {"verb": "GET", "path": path, "kind": "websocket"}
            answer, body, descriptors = exchange_descriptors(sock, header, json.dumps(dict(params)).encode())
        if answer.get("step") != "socket":
            _read(int(answer["status"]), str(answer.get("reason", "")), body)
            raise Unavailable("the daemon handed out no console; try again")
        return socket.socket(fileno=descriptors[0]), str(answer.get("terminal", ""))

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(TIMEOUT_S)
            try:
                sock.connect(str(self._path))
                yield sock
            except OSError as exc:
                raise Unavailable(
                    f"no answer from paneld at {self._path}: {exc.strerror or exc}; is it running?"
                ) from exc


@dataclass(frozen=True, slots=True)
class Login:
    """How to show who one is: an API token, or a ticket with its CSRF token."""

    token: str | None = None
    ticket: str | None = None
    csrf: str | None = None

    def headers(self) -> dict[str, str]:
        """HTTP headers."""
        if self.token:
            return {"Authorization": f"PVEAPIToken={self.token}"}
        if self.ticket:
            return {"Cookie": f"PVEAuthCookie={quote(self.ticket, safe='')}", "CSRFPreventionToken": self.csrf or ""}
        return {}


class Https:
    """A node's public address. The certificate is checked against `ca_file`, or the system's list, unless `insecure`."""

    def __init__(self, url: str, login: Login, ca_file: str | None = None, insecure: bool = False) -> None:
        parts = urlsplit(url if "//" in url else f"https://{url}")
        if parts.scheme != "https" or not parts.hostname:
            raise Unavailable(f"'{url}' is no address of a node; it looks like https://node.example:8006")
        self._host, self._port = parts.hostname, parts.port or 8006
        self._login = login
        self._context = ssl.create_default_context(cafile=ca_file)
        if insecure:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        self._open: http.client.HTTPSConnection | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return f"https://{self._host}:{self._port}"

    def call(self, verb: str, path: str, params: Params | None = None) -> Answer:
        """See Connection."""
        target, body, headers = f"/api2/json{path}", None, self._login.headers()
        encoded = urlencode({k: int(v) if isinstance(v, bool) else v for k, v in (params or {}).items()})
        if verb in ("GET", "DELETE"):
            target += f"?{encoded}" if encoded else ""
        else:
            body = encoded.encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        status, reason, data = self._exchange(verb, target, body, headers)
        return _read(status, reason, data)

    def upload(
        self, path: str, fields: Mapping[str, str], file: BinaryIO, filename: str, progress: Callable[[int, int], None]
    ) -> Answer:
        """See Connection. A multipart body, written while the file is read."""
        boundary = secrets.token_hex(16)
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        quoted = filename.replace("\\", "_").replace('"', "_").replace("\r", "_").replace("\n", "_")
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="filename"; filename="{quoted}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n".encode()
        begin = head.encode()
        length = len(begin) + os.fstat(file.fileno()).st_size - file.tell() + len(tail)
        headers = self._login.headers() | {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(length),
        }

        def body() -> Iterator[bytes]:
            yield begin
            for part, sent, total in _chunks(file):
                yield part
                progress(sent, total)
            yield tail

        return _read(*self._exchange("POST", f"/api2/json{path}", body(), headers))

    @property
    def tls(self) -> ssl.SSLContext:
        """For a WebSocket beside this connection."""
        return self._context

    @property
    def headers(self) -> dict[str, str]:
        """Who we are, for a WebSocket beside this connection."""
        return self._login.headers()

    def _exchange(
        self, verb: str, target: str, body: bytes | Iterator[bytes] | None, headers: dict[str, str]
    ) -> tuple[int, str, bytes]:
        kept = self._open is not None
        try:
            if self._open is None:
                self._open = http.client.HTTPSConnection(
                    self._host, self._port, timeout=TIMEOUT_S, context=self._context
                )
            self._open.request(verb, target, body, headers)
            response = self._open.getresponse()
            return response.status, response.reason, response.read()
        except (OSError, http.client.HTTPException) as exc:
            self._open = None
            # A kept connection may have been closed while idle: a GET is safe to ask again, a change is not.
            if kept and verb == "GET":
                return self._exchange(verb, target, body, headers)
            raise Unavailable(f"no answer from {self.name}: {exc}{_hint(exc)}") from exc


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    total = os.fstat(file.fileno()).st_size - file.tell()
    sent = 0
    while part := file.read(CHUNK_BYTES):
        sent += len(part)
        yield part, sent, total


def _hint(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "; give the cluster's certificate with --ca, or --insecure for a first look"
    return ""
