"""The serial console over a real WebSocket. The client has one thread (tests/api/test_processes.py says why)."""

from __future__ import annotations

import asyncio
import ssl
import time
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
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
    headers = {"Cookie": admin.headers["Cookie"], **kwargs.get("headers", {})}
    return made, lambda **more: dial(node, made, headers, **more)


def dial(node, made, headers, **more):
    """The WebSocket for what termproxy answered."""
    return connect(
        f"wss://127.0.0.1:{node.port}/api2/json/nodes/n1/qemu/100/vncwebsocket"
        f"?port={made['port']}&vncticket={quote(made['ticket'], safe='')}",
        ssl=ssl.create_default_context(cafile=str(node.run / "tls" / "ca.pem")),
        subprotocols=[Subprotocol("binary")],
        additional_headers=headers,
        open_timeout=30,
        **more,
    )


async def received(ws) -> bytes:
    async with asyncio.timeout(30):
        data = await ws.recv()
        assert isinstance(data, bytes)
        return data


async def test_terminal(node, admin, guest):
    made, enter = open_console(node, admin)
    async with enter() as ws:
        assert ws.subprotocol == "binary"
        await ws.send(f"{made['user']}:{made['ticket']}\n")
        assert await received(ws) == b"OK"
        await ws.send("1:80:24:")
        await ws.send("2")
        await ws.send("0:4:a")
        await ws.send("b\r\n")
        seen = b""
        while b"ab\r\n" not in seen:
            seen += await received(ws)


async def test_ticket_is_for_one_use(node, admin, guest):
    """Row 18. Planted fault: `consume` that only looks fails this."""
    made, enter = open_console(node, admin)
    async with enter() as ws:
        await ws.send(f"{made['user']}:{made['ticket']}\n")
        assert await received(ws) == b"OK"
    with pytest.raises(InvalidStatus):
        await enter()


async def test_an_api_token_opens_a_console(node, admin, guest):
    """Programs have no cookie: the token in the handshake's head, its own name in the first line."""
    token = {"Authorization": f"PVEAPIToken={admin.token}"}
    made = node.http("POST", "/nodes/n1/qemu/100/termproxy", headers=token).json()["data"]
    assert made["user"] == f"{admin.user}!test"
    async with dial(node, made, token) as ws:
        await ws.send(f"{made['user']}:{made['ticket']}\n")
        assert await received(ws) == b"OK"
        await ws.send("0:3:xy\r")
        seen = b""
        while b"xy" not in seen:
            seen += await received(ws)
    made = node.http("POST", "/nodes/n1/qemu/100/termproxy", headers=token).json()["data"]
    with pytest.raises(InvalidStatus) as caught:
        await dial(node, made, {"Authorization": f"PVEAPIToken={admin.token}x"})
    assert caught.value.response.status_code == 401


async def test_wrong_first_line(node, admin, guest):
    _, enter = open_console(node, admin)
    async with enter() as ws:
        await ws.send("root@pam:wrong\n")
        with pytest.raises(ConnectionClosed):
            await received(ws)


async def test_foreign_page_is_refused(node, admin, guest):
    """Row 18: Origin. Planted fault: same_origin → True fails this."""
    _, enter = open_console(node, admin, headers={"Origin": "https://evil.example"})
    with pytest.raises(InvalidStatus) as caught:
        await enter()
    assert caught.value.response.status_code == 403


async def test_own_page_is_welcome(node, admin, guest):
    _, enter = open_console(node, admin, headers={"Origin": f"https://127.0.0.1:{node.port}"})
    async with enter():
        pass


def test_without_websocket(node, admin, guest):
    made, _ = open_console(node, admin)
    answer = node.http(
        "GET", "/nodes/n1/qemu/100/vncwebsocket", headers=admin.headers,
        params={"port": made["port"], "vncticket": made["ticket"]},
    )  # fmt: skip
    assert answer.status_code == 400
