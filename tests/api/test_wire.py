"""The wire's oddities over real HTTPS: both processes, as clients see them."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time

import pytest

from panal.web_front.request import MAX_BODY_BYTES
from tests.daemon_under_test import NodeUnderTest


def raw(node: NodeUnderTest, request: bytes, timeout_s: float = 30) -> bytes:
    """Bytes in, bytes out, over TLS."""
    context = ssl.create_default_context(cafile=str(node.run / "tls" / "ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", node.port), timeout_s) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        sock.sendall(request)
        out = b""
        while part := sock.recv(65536):
            out += part
    return out


def test_version_through_the_local_door(node):
    """Root of the machine is root@pam."""
    data = node.must("GET", "/version")
    assert data["release"] == "9.1" and data["panal-version"]


def test_no_ticket_is_401_with_reason_and_three_seconds(node):
    """The reason phrase is the message; every 401 is late."""
    began = time.monotonic()
    answer = node.http("GET", "/version")
    assert (answer.status_code, answer.reason) == (401, "No ticket")
    assert answer.json()["data"] is None and answer.json()["message"] == "No ticket"
    assert time.monotonic() - began >= 2.9


def test_unknown_path_tells_strangers_nothing(node):
    """Anonymous callers get 401 for paths that are and that are not."""
    assert node.http("GET", "/nodes/x/nonsense").status_code == 401


def test_extjs_is_always_200(node):
    """The envelope carries the status."""
    answer = node.http("GET", "/version", fmt="extjs")
    assert answer.status_code == 200
    assert answer.json() | {"panal-code": ""} == {
        "data": None, "message": "No ticket", "status": 401, "success": 0, "panal-code": "",
    }  # fmt: skip


def test_unknown_format(node):
    """501, as PVE."""
    answer = node.http("GET", "/version", fmt="yaml")
    assert (answer.status_code, answer.reason) == (501, "no such uri")


def test_headers(node):
    """Those that clients see from PVE, and ours for browsers."""
    headers = node.http("GET", "/version").headers
    assert headers["Server"] == "pve-api-daemon/3.0"
    assert headers["Content-Type"] == "application/json;charset=UTF-8"
    assert headers["Cache-Control"] == "max-age=0" and headers["Pragma"] == "no-cache"
    assert headers["Expires"] and headers["Date"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Strict-Transport-Security" not in headers


@pytest.mark.parametrize(
    ("verb", "headers", "status"),
    [
        ("POST", b"Transfer-Encoding: chunked\r\n", b"501"),
        ("POST", b"Content-Length: 600000\r\n", b"501"),
        ("GET", b"Content-Length: 3\r\n", b"501"),
        ("DELETE", b"Content-Length: 3\r\n", b"501"),
        ("POST", b"Content-Type: text/xml\r\nContent-Length: 3\r\n", b"415"),
        ("PATCH", b"Content-Length: 0\r\n", b"501"),
        ("HEAD", b"", b"501"),
        ("OPTIONS", b"Origin: https://x\r\nAccess-Control-Request-Method: POST\r\n", b"501"),
        ("TRACE", b"", b"501"),
        ("CONNECT", b"", b"501"),
        ("GET", b"X: y\r\n" * 70, b"400"),
        ("GET", b"X: " + b"y" * 9000 + b"\r\n", b"400"),
    ],
)
def test_refused_heads(node, verb, headers, status):
    """Bodies and heads we do not take."""
    request = verb.encode() + b" /api2/json/version HTTP/1.1\r\nHost: x\r\n" + headers + b"Connection: close\r\n\r\nabc"
    assert raw(node, request).split(b" ", 2)[1] == status


def test_the_longest_body(node):
    """512 KiB are read, one byte more is not. Planted fault: `>=` in check_body."""
    for size, status in ((MAX_BODY_BYTES, b"400"), (MAX_BODY_BYTES + 1, b"501")):
        head = b"POST /api2/json/access/ticket HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        answer = raw(node, head % size + b"username=" + b"x" * (size - 9))
        assert answer.split(b" ", 2)[1] == status
        assert b"access-control-allow" not in answer.lower()


def test_plain_http_is_sent_to_https(node):
    """A person who forgets the s."""
    plain = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    plain.request("GET", "/x?y=1")
    answer = plain.getresponse()
    assert answer.status == 301
    assert answer.headers["Location"] == f"https://127.0.0.1:{node.port}/x?y=1"


def test_root_page_and_openapi(node):
    """Both without login; the document is of the table."""
    page = node.session.get(node.url + "/", timeout=10)
    assert page.status_code == 200 and "<script" not in page.text and "script-src" not in page.text
    document = node.session.get(node.url + "/api2/openapi.json", timeout=10).json()
    assert document["openapi"] == "3.1.0"
    assert "get" in document["paths"]["/api2/json/version"]


def test_reflected_path_is_no_html_and_no_header(node):
    """Row 4. Planted fault: the raw path in the body's message (without \\u003c) fails the first assertion."""
    answer = node.admin("GET", "/<script>alert(1)</script>\r\nX-Evil: 1")
    assert answer[0] == 501
    response = raw(
        node, b"GET /api2/htmljs/%3Cscript%3E%0d%0aX-Evil:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert b"<script>" not in response and b"\r\nX-Evil" not in response


def test_openapi_path_is_not_a_method(node):
    """The document has one address."""
    assert node.http("GET", "/openapi.json").status_code == 401


def test_bad_json_names_the_problem(node):
    """400, not 500."""
    answer = node.http("POST", "/access/ticket", data="{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.reason) == (400, "the body is not JSON")
    assert json.loads(answer.text)["data"] is None
