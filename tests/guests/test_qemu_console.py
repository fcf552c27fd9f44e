"""A person at a serial port through the whole of Panal: HTTPS, ticket, WebSocket, both processes, a real guest."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.daemon_under_test import NodeUnderTest

pytestmark = [pytest.mark.real]
VM = "/nodes/n1/qemu/100"
LOCAL = "/nodes/n1/storage/local"


def done(node: NodeUnderTest, path: str, **params: Any) -> None:
    ended(node, node.must("POST", path, **params))


def ended(node: NodeUnderTest, upid: str) -> None:
    until = time.monotonic() + 120
    while (status := node.must("GET", f"/nodes/n1/tasks/{upid}/status"))["status"] != "stopped":
        assert time.monotonic() < until, status
        time.sleep(0.1)
    assert status["exitstatus"] == "OK", node.must("GET", f"/nodes/n1/tasks/{upid}/log")


@pytest.fixture
def running(guest_disk: Path):
    """A node with VM 100 started from the guest disk, and a token of root@pam."""
    with NodeUnderTest(driver="qemu") as node:
        token = node.must("POST", "/access/users/root@pam/token/test", privsep=0)
        headers = {"Authorization": f"PVEAPIToken={token['full-tokenid']}={token['value']}"}
        node.must("PUT", "/storage/local", content="images,import")
        with guest_disk.open("rb") as file:
            answer = node.http(
                "POST",
                f"{LOCAL}/upload",
                headers=headers,
                data={"content": "import"},
                files={"filename": ("g.qcow2", file)},
            )
        assert answer.status_code == 200, answer.text
        ended(node, answer.json()["data"])
        name = "vm-100-disk-0.qcow2"
        done(node, f"{LOCAL}/panal/volume", vmid=100, filename=name, source="local:import/g.qcow2")
        done(node, "/nodes/n1/qemu", vmid=100, memory=128, scsihw="virtio-scsi-pci", scsi0=f"local:100/{name}",
             boot="order=scsi0", serial0="socket")  # fmt: skip
        done(node, f"{VM}/status/start")
        yield node, headers
        done(node, f"{VM}/status/stop")


async def opened(node: NodeUnderTest, headers: dict[str, str]) -> ClientConnection:
    made = node.http("POST", f"{VM}/termproxy", headers=headers).json()["data"]
    query = f"port={made['port']}&vncticket={quote(made['ticket'], safe='')}"
    ws = await connect(
        f"wss://127.0.0.1:{node.port}/api2/json{VM}/vncwebsocket?{query}",
        ssl=ssl.create_default_context(cafile=str(node.run / "tls/ca.pem")), additional_headers=headers, open_timeout=60,
    )  # fmt: skip
    await ws.send(f"{made['user']}:{made['ticket']}\n")
    assert await ws.recv() == b"OK"
    await ws.send("1:80:24:")
    return ws


async def until(ws: ClientConnection, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(120):
        while wanted not in seen:
            data = await ws.recv()
            assert isinstance(data, bytes)
            seen += data
    return seen


async def say(ws: ClientConnection, line: str) -> None:
    await ws.send(f"0:{len(line) + 1}:{line}\r")


async def test_a_session(running) -> None:
    """Log in, type, see much come back, leave, come again to the same shell; the guest's end is the session's end."""
    node, headers = running
    ws = await opened(node, headers)
    await say(ws, "")
    await until(ws, b"guest# ")
    await say(ws, "word=there; echo $((6*7))-end")
    await until(ws, b"42-end")
    await say(ws, "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo row-$i-of-many; done")
    assert (await until(ws, b"row-2000-of-many")).count(b"-of-many\r\n") >= 1999
    await ws.close()
    again = await opened(node, headers)
    await say(again, "echo still-$word")
    await until(again, b"still-there")
    node.must("POST", f"{VM}/status/stop")
    with pytest.raises(ConnectionClosed):
        await until(again, b"never")
