"""Both transports against small real servers: what is sent, what is understood, how failures are told."""

from __future__ import annotations

import io
import json
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme

from panal.client.connection import AdminSocket, ApiError, Https, Login, api_path
from panal.core.errors import Unavailable
from panal.core.frames import LENGTHS_BYTES, lengths, pack


def test_api_path_quotes_what_would_change_the_path():
    assert api_path("nodes", "a", "tasks", "UPID:a:1:root@pam!t:") == "/nodes/a/tasks/UPID:a:1:root@pam!t:"
    assert api_path("storage", "x/../y?z#") == "/storage/x%2F..%2Fy%3Fz%23"


@contextmanager
def admin(answer: Callable[[dict[str, Any], bytes, socket.socket], None]) -> Iterator[Path]:
    """A socket that answers one connection."""
    with tempfile.TemporaryDirectory(prefix="pnl", dir="/tmp") as directory:
        path = Path(directory) / "admin.sock"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            server.settimeout(10)

            def serve() -> None:
                peer, _ = server.accept()
                with peer:
                    while first := peer.recv(LENGTHS_BYTES, socket.MSG_WAITALL):
                        head, body = lengths(first)
                        header = json.loads(peer.recv(head, socket.MSG_WAITALL))
                        answer(header, peer.recv(body, socket.MSG_WAITALL) if body else b"", peer)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            yield path
            thread.join(10)


def test_admin_socket_sends_one_frame_and_reads_data():
    seen: dict[str, Any] = {}

    def answer(header, body, peer):
        seen.update(header, params=json.loads(body))
        peer.sendall(pack(b'{"status":200,"reason":"OK"}', b'{"data":[1],"total":1}'))

    with admin(answer) as path:
        found = AdminSocket(path).call("POST", "/nodes/a/qemu", {"vmid": 100})
    assert seen == {"verb": "POST", "path": "/nodes/a/qemu", "params": {"vmid": 100}}
    assert found.data == [1]
    assert found.extras == {"total": 1}


def test_refusals_carry_status_sentence_and_fields():
    def answer(header, body, peer):
        content = {"data": None, "message": "Parameter verification failed.", "errors": {"vmid": "bad"}}
        peer.sendall(pack(b'{"status":400,"reason":"x"}', json.dumps(content).encode()))

    with admin(answer) as path, pytest.raises(ApiError) as error:
        AdminSocket(path).call("GET", "/x")
    assert (error.value.status, error.value.errors) == (400, {"vmid": "bad"})
    assert str(error.value) == "Parameter verification failed."


def test_upload_writes_into_the_descriptor_it_is_given():
    reader, writer = os.pipe()
    kinds = []

    def answer(header, body, peer):
        kinds.append(header["kind"])
        if header["kind"] == "upload":
            header_bytes = b'{"status":200,"step":"receive"}'
            socket.send_fds(peer, [pack(header_bytes)], [writer])
            os.close(writer)
        else:
            peer.sendall(pack(b'{"status":200}', b'{"data":"UPID"}'))

    marks: list[tuple[int, int]] = []
    with admin(answer) as path:
        found = AdminSocket(path).upload("/u", {"content": "iso"}, _file(b"x" * 5), "a.iso", lambda *m: marks.append(m))
    assert found.data == "UPID"
    assert kinds == ["upload", "finish"]
    assert os.read(reader, 100) == b"xxxxx"
    assert marks[-1] == (5, 5)
    os.close(reader)


def _file(content: bytes) -> io.BufferedReader:
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the test reads it)
    file.write(content)
    file.seek(0)
    return file  # type: ignore[return-value]


def test_a_missing_daemon_is_named():
    with pytest.raises(Unavailable, match="is it running"):
        AdminSocket(Path("/tmp/there-is-no-such.sock")).call("GET", "/version")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, str, dict[str, str], bytes]]] = []

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.command, self.path, dict(self.headers), body))
        content = json.dumps({"data": "ok"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def https(tmp_path: Path) -> Iterator[tuple[str, str]]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    _Handler.seen = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_port}", str(tmp_path / "ca.pem")
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_https_shows_the_token_in_a_header_only(https):
    url, ca = https
    connection = Https(url, Login(token="joan@pve!t=12345678-secret"), ca)
    assert connection.call("POST", "/nodes", {"onboot": True, "name": "a b"}).data == "ok"
    verb, path, headers, body = _Handler.seen[0]
    assert (verb, path, body) == ("POST", "/api2/json/nodes", b"onboot=1&name=a+b")
    assert headers["Authorization"] == "PVEAPIToken=joan@pve!t=12345678-secret"
    assert "secret" not in path


def test_https_delete_puts_parameters_into_the_query(https):
    url, ca = https
    Https(url, Login(ticket="PVE:x", csrf="c"), ca).call("DELETE", "/pools", {"poolid": "p"})
    verb, path, headers, body = _Handler.seen[0]
    assert (verb, path, body) == ("DELETE", "/api2/json/pools?poolid=p", b"")
    assert headers["CSRFPreventionToken"] == "c"


def test_https_upload_is_multipart_with_a_length(https):
    url, ca = https
    Https(url, Login(), ca).upload("/u", {"content": "iso"}, _file(b"data"), 'a".iso', lambda *_: None)
    _, _, headers, body = _Handler.seen[0]
    assert int(headers["Content-Length"]) == len(body)
    assert b'name="content"\r\n\r\niso\r\n' in body
    assert b'filename="a_.iso"' in body
    assert b"\r\n\r\ndata\r\n--" in body


def test_an_unknown_certificate_is_refused_with_the_way_out(https):
    url, _ = https
    with pytest.raises(Unavailable, match="--ca"):
        Https(url, Login()).call("GET", "/version")
    assert Https(url, Login(), insecure=True).call("GET", "/version").data == "ok"
