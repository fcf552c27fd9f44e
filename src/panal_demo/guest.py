"""Makes the demo's login and its VM 100 through the API, as any client would, and sees that the guest answers.

Every step looks first and acts only where something is missing, so a second run, or one after a crash, changes nothing that
is there.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from panal.client.connection import AdminSocket, ApiError, Https, Login
from panal.core.errors import PanalError
from panal_demo import bridge
from panal_demo.place import DemoError, Facts, Place

STORAGE = "demo"
TASK_S = 300.0
BOOT_S = 120.0
PROMPT = b"guest# "

Say = Callable[[str], None]


def ensure_user(place: Place, facts: Facts) -> bool:
    """The demo's administrator, made through the admin socket; returns whether it was missing."""
    admin = AdminSocket(place.run / "admin.sock")
    if any(user["userid"] == facts.userid for user in admin.call("GET", "/access/users").data):
        return False
    admin.call(
        "POST", "/access/users", {"userid": facts.userid, "password": facts.password, "comment": "made by ./demo"}
    )
    admin.call("PUT", "/access/acl", {"path": "/", "users": facts.userid, "roles": "Administrator"})
    return True


def login(place: Place, facts: Facts) -> Https:
    """A connection with a ticket, its certificate checked."""
    url = f"https://127.0.0.1:{facts.port}"
    data = Https(url, Login(), str(place.ca)).call(
        "POST", "/access/ticket", {"username": facts.userid, "password": facts.password}
    ).data  # fmt: skip
    return Https(url, Login(ticket=data["ticket"], csrf=data["CSRFPreventionToken"]), str(place.ca))


def wait(api: Https, upid: str) -> None:
    """Until the task has ended; DemoError with its words when it failed."""
    path = f"/nodes/{upid.split(':')[1]}/tasks/{quote(upid, safe=':@!')}"
    deadline = time.monotonic() + TASK_S
    while (status := api.call("GET", f"{path}/status").data)["status"] != "stopped":
        if time.monotonic() > deadline:
            raise DemoError(f"the task takes longer than {TASK_S:.0f} s: {upid}")
        time.sleep(0.2)
    if status.get("exitstatus") != "OK":
        lines = [line["t"] for line in api.call("GET", f"{path}/log", {"limit": 20}).data]
        raise DemoError(f"{status.get('type')}: {status.get('exitstatus')}\n" + "\n".join(lines))


def ensure_storage(api: Https, place: Place) -> None:
    """A directory storage below the demo's state."""
    if any(row["storage"] == STORAGE for row in api.call("GET", "/storage").data):
        return
    place.images.mkdir(mode=0o700, exist_ok=True)
    api.call(
        "POST",
        "/storage",
        {"storage": STORAGE, "type": "dir", "path": str(place.images), "content": "images,iso,snippets,import"},
    )


def exists(api: Https, facts: Facts) -> bool:
    """Whether VM 100 is there."""
    rows = api.call("GET", "/cluster/resources", {"type": "vm"}).data
    return any(row["vmid"] == facts.vmid for row in rows)


def make_disk(api: Https, facts: Facts, vmid: int, disk: Path) -> str:
    """Upload the disk, make a volume of VM `vmid` out of it, forget the upload; the volume's id."""
    at, upload = f"/nodes/{facts.node}/storage/{STORAGE}", f"{STORAGE}:import/{disk.stem}.qcow2"
    with disk.open("rb") as file:
        wait(
            api,
            api.upload(
                f"{at}/upload", {"content": "import"}, file, f"{disk.stem}.qcow2", lambda sent, total: None
            ).data,
        )
    content = api.call("GET", f"{at}/content", {"vmid": vmid}).data
    numbers = {int(found[1]) for row in content if (found := re.search(r"disk-(\d+)", row["volid"]))}
    name = f"vm-{vmid}-disk-{max(numbers, default=-1) + 1}.qcow2"
    wait(api, api.call("POST", f"{at}/panal/volume", {"vmid": vmid, "filename": name, "source": upload}).data)
    forgotten = api.call("DELETE", f"{at}/content/{quote(upload, safe='')}").data
    if forgotten:
        wait(api, forgotten)
    return f"{STORAGE}:{vmid}/{name}"


def create(api: Https, facts: Facts, disk: Path, say: Say) -> None:
    """VM 100 around a disk made through the API."""
    volume = make_disk(api, facts, facts.vmid, disk)
    say(f"the guest's disk is {volume}")
    network = f"virtio,bridge={facts.bridge}" if facts.bridge else "virtio"
    upid = api.call(
        "POST",
        f"/nodes/{facts.node}/qemu",
        {
            "vmid": facts.vmid, "name": "demo-guest", "memory": 128, "cores": 1, "ostype": "l26", "scsihw": "virtio-scsi-pci",
            "scsi0": volume, "boot": "order=scsi0", "net0": network, "serial0": "socket", "tags": "demo",
            "description": "Made by ./demo: a tiny Linux of the distribution's own kernel and busybox.",
        },
    ).data  # fmt: skip
    wait(api, upid)


def ensure_running(api: Https, facts: Facts) -> bool:
    """Start VM 100 unless it runs; returns whether it was started."""
    base = f"/nodes/{facts.node}/qemu/{facts.vmid}/status"
    if api.call("GET", f"{base}/current").data["status"] == "running":
        return False
    wait(api, api.call("POST", f"{base}/start").data)
    return True


def answers_on_serial(api: Https, facts: Facts) -> str:
    """Type into the guest's serial console through the WebSocket; what it answered. DemoError when it does not in time."""
    base = f"/nodes/{facts.node}/qemu/{facts.vmid}"
    deadline = time.monotonic() + BOOT_S
    seen = b""
    while time.monotonic() < deadline:
        ticket = api.call("POST", f"{base}/termproxy", {"serial": "serial0"}).data
        url = f"wss{api.name.removeprefix('https')}/api2/json{base}/vncwebsocket"
        url += f"?port={ticket['port']}&vncticket={quote(ticket['ticket'], safe='')}"
        seen = asyncio.run(_converse(api, url, f"{ticket['user']}:{ticket['ticket']}\n", deadline))
        found = re.search(rb"answer-42 (\S+)", seen)
        if found:
            return found[1].decode()
        time.sleep(1)
    raise DemoError(f"the guest says nothing on its serial console after {BOOT_S:.0f} s; last seen: {seen[-200:]!r}")


async def _converse(api: Https, url: str, first: str, deadline: float) -> bytes:
    """Ask until the guest's shell has answered or the connection ends.

    One loop owns the connection: the library's blocking client shares a TLS object between two threads and loses messages.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, WebSocketException
    from websockets.typing import Subprotocol

    seen, question = b"", b"\recho answer-$((6*7)) $(uname -r)\r"
    try:
        async with connect(
            url, ssl=api.tls, additional_headers=api.headers, subprotocols=[Subprotocol("binary")]
        ) as console:
            await console.send(first.encode())
            while time.monotonic() < deadline and not re.search(rb"answer-42 \S+", seen):
                await console.send(b"0:%d:%s" % (len(question), question))
                pause = time.monotonic() + 2
                while time.monotonic() < pause and not re.search(rb"answer-42 \S+\r", seen):
                    try:
                        message = await asyncio.wait_for(console.recv(), 0.5)
                    except TimeoutError:
                        continue
                    seen += message if isinstance(message, bytes) else message.encode()
    except InvalidHandshake as exc:
        raise DemoError(f"the console of VM 100 cannot be opened: {exc}") from exc
    except (WebSocketException, TimeoutError, OSError):
        pass  # asked again with a new ticket
    return seen


def answers_on_bridge(api: Https, place: Place, facts: Facts) -> str | None:
    """The guest's address that answers a ping; None when none does."""
    config = api.call("GET", f"/nodes/{facts.node}/qemu/{facts.vmid}/config").data
    mac = re.search(r"([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5})", config["net0"])
    if mac is None:
        return None
    leases = subprocess.run(
        ["busybox", "dumpleases", "-f", str(place.run / "udhcpd.leases")], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(rf"{mac[1]}\s+(\d+\.\d+\.\d+\.\d+)", leases, re.IGNORECASE)
    for address in ([found[1]] if found else []) + [bridge.link_local(mac[1])]:
        if bridge.pings(address):
            return address
    return None


def stop_all(api: Https | AdminSocket, node: str, say: Say) -> None:
    """Stop every running guest of the node: the power button first, then at once."""
    for row in api.call("GET", f"/nodes/{node}/qemu").data:
        if row["status"] != "running":
            continue
        say(f"stopping VM {row['vmid']} ({row.get('name', '')})")
        upid = api.call(
            "POST", f"/nodes/{node}/qemu/{row['vmid']}/status/shutdown", {"timeout": 20, "forceStop": True}
        ).data  # fmt: skip
        path = f"/nodes/{node}/tasks/{quote(upid, safe=':@!')}/status"
        deadline = time.monotonic() + 60
        while api.call("GET", path).data["status"] != "stopped" and time.monotonic() < deadline:
            time.sleep(0.2)


def summary(place: Place, facts: Facts) -> dict[str, Any]:
    """Nodes and guests as the API shows them; empty lists when it does not answer."""
    try:
        api = AdminSocket(place.run / "admin.sock")
        nodes = [{"node": row["node"], "status": row["status"]} for row in api.call("GET", "/nodes").data]
        guests = [
            {"vmid": row["vmid"], "name": row.get("name", ""), "node": row["node"], "status": row["status"]}
            for row in api.call("GET", "/cluster/resources", {"type": "vm"}).data
        ]
    except (PanalError, ApiError, KeyError):
        return {"nodes": [], "guests": []}
    return {"nodes": nodes, "guests": guests}
