"""The serial console over a real WebSocket."""

from __future__ import annotations

import ssl
import time
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol


@pytest.fixture(scope="module")
def guest(node, admin):
    _wait(node, "/nodes/n1/qemu", vmid=100, memory="64", serial0="socket")
    _wait(node, "/nodes/n1/qemu/100/status/start")
    return 100


def _wait(node, path, **params) -> None:
    upid = node.must("POST", path, **params)
    for _ in range(200):
        if node.must("GET", f"/nodes/n1/tasks/{upid}/status")["status"] == "stopped":
            return
        time.sleep(0.05)


def open_console(node, admin, **kwargs):
    made = node.http("POST", "/nodes/n1/qemu/100/termproxy", headers=admin.headers).json()["data"]
    return made, lambda **more: connect(
        f"wss://127.0.0.1:{node.port}/api2/json/nodes/n1/qemu/100/vncwebsocket"
        f"?port={made['port']}&vncticket={quote(made['ticket'], safe='')}",
        ssl=ssl.create_default_context(cafile=str(node.run / "tls" / "ca.pem")),
        subprotocols=[Subprotocol("binary")],
        additional_headers={"Cookie": admin.headers["Cookie"], **kwargs.get("headers", {})},
        **more,
    )


def test_terminal(node, admin, guest):
    made, dial = open_console(node, admin)
    with dial() as ws:
        assert ws.subprotocol == "binary"
        ws.send(f"{made['user']}:{made['ticket']}\n")
        assert ws.recv(timeout=10) == b"OK"
        ws.send("1:80:24:")
        ws.send("2")
        ws.send("0:4:a")
        ws.send("b\r\n")
        seen = b""
        while b"ab\r\n" not in seen:
            seen += ws.recv(timeout=10)


def test_ticket_is_for_one_use(node, admin, guest):
    """Row 18. Planted fault: `consume` that only looks fails this."""
    made, dial = open_console(node, admin)
    with dial() as ws:
        ws.send(f"{made['user']}:{made['ticket']}\n")
        assert ws.recv(timeout=10) == b"OK"
    with pytest.raises(InvalidStatus), dial():
        pass


def test_wrong_first_line(node, admin, guest):
    _, dial = open_console(node, admin)
    with dial() as ws:
        ws.send("root@pam:wrong\n")
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=10)


def test_foreign_page_is_refused(node, admin, guest):
    """Row 18: Origin. Planted fault: same_origin → True fails this."""
    _, dial = open_console(node, admin, headers={"Origin": "https://evil.example"})
    with pytest.raises(InvalidStatus) as caught, dial():
        pass
    assert caught.value.response.status_code == 403


def test_own_page_is_welcome(node, admin, guest):
    _, dial = open_console(node, admin, headers={"Origin": f"https://127.0.0.1:{node.port}"})
    with dial():
        pass


def test_without_websocket(node, admin, guest):
    made, _ = open_console(node, admin)
    answer = node.http(
        "GET", "/nodes/n1/qemu/100/vncwebsocket", headers=admin.headers,
        params={"port": made["port"], "vncticket": made["ticket"]},
    )  # fmt: skip
    assert answer.status_code == 400
