"""Attack rows 10, 14 and 15 over the wire with real QEMU: an image that names a host file, or pretends to be another format.

However it came there (an upload, a download, an administrator's copy, a guest writing into its own disk), no verb shows a byte
of the host's file and none follows a header that was not asked for.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.daemon_under_test import NodeUnderTest

pytestmark = pytest.mark.real
BASE = "/nodes/n1/qemu"
SECRET = b"the host's own secret 0815 "


@pytest.fixture(scope="module")
def node() -> Iterator[NodeUnderTest]:
    with NodeUnderTest(driver="qemu") as started:
        yield started
        for row in started.must("GET", BASE):
            ended(started, started.must("POST", f"{BASE}/{row['vmid']}/status/stop"))


def ended(node: NodeUnderTest, upid: str) -> str:
    while (status := node.must("GET", f"/nodes/n1/tasks/{upid}/status"))["status"] != "stopped":
        time.sleep(0.05)
    return str(status["exitstatus"])


def end_of(node: NodeUnderTest, verb: str, path: str, /, **params: Any) -> str:
    """How a call ended, by its answer or by its task."""
    status, reason, body = node.admin(verb, path, **params)
    if status != 200:
        return f"{reason} {body.get('errors')}"
    return ended(node, body["data"]) if isinstance(body["data"], str) else "OK"


def hostile(directory: Path, kind: str) -> Path:
    """A qcow2 whose header names the secret."""
    secret = directory / "secret"
    secret.write_bytes(SECRET * 4096)
    secret.chmod(0o644)
    image = directory / f"{kind}.qcow2"
    if kind == "backing":
        argv = ["create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(image), "1M"]
    else:
        argv = ["create", "-q", "-f", "qcow2", "-o", f"data_file={secret},data_file_raw=on", str(image), "64k"]
    subprocess.run(["qemu-img", *argv], check=True, capture_output=True)
    secret.write_bytes(SECRET * 4096)  # making the data file emptied it
    return image


def holds_secret(node: NodeUnderTest) -> list[str]:
    """Files of the storage with the secret in them."""
    root = node.state / "storage"
    return [str(p) for p in root.rglob("*") if p.is_file() and SECRET in p.read_bytes()]


@pytest.mark.parametrize("kind", ["backing", "data-file"])
def test_no_route_takes_or_follows_it(node: NodeUnderTest, tmp_path: Path, kind: str) -> None:
    """Planted fault: `require_plain` that returns the header unchecked turns copy, move and resize red."""
    image = hostile(tmp_path, kind)
    with image.open("rb") as file:
        answer = node.session.post(
            f"{node.url}/api2/json/nodes/n1/storage/local/upload",
            data={"content": "import"}, files={"filename": ("evil.qcow2", file)}, headers=admin(node, kind), timeout=60,
        )  # fmt: skip
    assert answer.status_code == 400 or "refers to" in ended(node, answer.json()["data"])
    assert "refers to" in end_of(
        node, "POST", "/nodes/n1/storage/local/download-url",
        url=served(image), content="import", filename="evil.qcow2", verify_certificates=0,
    )  # fmt: skip
    assert not [v for v in node.must("GET", "/nodes/n1/storage/local/content") if "evil" in v["volid"]]

    vmid = 200 + (kind == "backing")
    assert end_of(node, "POST", BASE, vmid=vmid, memory=64, scsi0="local:1,format=qcow2") == "OK"
    volume = node.state / f"storage/local/images/{vmid}/vm-{vmid}-disk-0.qcow2"
    volume.write_bytes(image.read_bytes())
    path = f"{BASE}/{vmid}"
    ends = {
        "clone": end_of(node, "POST", f"{path}/clone", newid=vmid + 50),
        "raw clone": end_of(node, "POST", f"{path}/clone", newid=vmid + 52, format="raw"),
        "move": end_of(node, "POST", f"{path}/move_disk", disk="scsi0", storage="local", format="raw"),
        "resize": end_of(node, "PUT", f"{path}/resize", disk="scsi0", size="+1G"),
        "snapshot": end_of(node, "POST", f"{path}/snapshot", snapname="one"),
    }
    assert "OK" not in ends.values(), ends
    # started it is with `backing: null`: the guest sees zeros; a data file cannot be left out, so that one does not start
    assert (end_of(node, "POST", f"{path}/status/start") == "OK") == (kind == "backing")
    assert end_of(node, "POST", f"{path}/status/stop") == "OK"
    assert not holds_secret(node)
    assert [r["vmid"] for r in node.must("GET", BASE) if r["vmid"] > 249] == []
    assert (tmp_path / "secret").read_bytes() == SECRET * 4096
    assert end_of(node, "DELETE", path) == "OK"


def test_a_guest_that_writes_a_header_into_its_raw_disk(node: NodeUnderTest, tmp_path: Path) -> None:
    """Attack row 15. Planted fault: no `driver=raw` in `qemu_img.of_fd` makes the clone show the secret."""
    image = hostile(tmp_path, "backing").read_bytes()
    assert end_of(node, "POST", BASE, vmid=300, memory=64, scsi0="local:0.01,format=raw") == "OK"
    volume = node.state / "storage/local/images/300/vm-300-disk-0.raw"
    with volume.open("r+b") as file:
        file.write(image)
    head = volume.read_bytes()[: len(image)]
    assert end_of(node, "PUT", f"{BASE}/300/resize", disk="scsi0", size="+1M") == "OK"
    assert end_of(node, "POST", f"{BASE}/300/clone", newid=301) == "OK"
    assert end_of(node, "POST", f"{BASE}/300/clone", newid=302, format="qcow2") == "OK"
    assert end_of(node, "POST", f"{BASE}/300/move_disk", disk="scsi0", storage="local", format="qcow2") == "OK"
    copy = node.state / "storage/local/images/301/vm-301-disk-0.raw"
    assert copy.read_bytes()[: len(head)] == head
    told = subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", str(node.state / "storage/local/images/302/vm-302-disk-0.qcow2")],
        capture_output=True, check=True,
    )  # fmt: skip
    assert "backing-filename" not in json.loads(told.stdout)
    assert end_of(node, "POST", f"{BASE}/302/status/start") == "OK"
    assert not holds_secret(node)
    for vmid in (300, 301, 302):
        end_of(node, "POST", f"{BASE}/{vmid}/status/stop")
        assert end_of(node, "DELETE", f"{BASE}/{vmid}") == "OK"


def test_nobody_attaches_what_is_no_disk_or_not_his(node: NodeUnderTest) -> None:
    """Rows 10 and 13: a backup, a snippet, a path, another guest's disk as a drive of one's own."""
    root = node.state / "storage/local"
    (root / "dump/vzdump-qemu-100-2026_01_01-00_00_00.vma").write_bytes(SECRET)
    (root / "snippets/hook.sh").write_bytes(SECRET)
    assert end_of(node, "POST", BASE, vmid=310, memory=64, scsi0="local:0.01") == "OK"
    assert end_of(node, "POST", BASE, vmid=311, memory=64) == "OK"
    node.must("POST", "/access/users", userid="owner@pve")
    node.must("PUT", "/access/acl", path="/vms/311", users="owner@pve", roles="PVEVMAdmin")
    node.must("PUT", "/access/acl", path="/storage/local", users="owner@pve", roles="PVEDatastoreUser")
    token = node.must("POST", "/access/users/owner@pve/token/tt", privsep=0)
    head = {"Authorization": f"PVEAPIToken={token['full-tokenid']}={token['value']}"}
    for drive in (
        "local:backup/vzdump-qemu-100-2026_01_01-00_00_00.vma", "local:snippets/hook.sh", "/etc/shadow",
        "local:../../../../etc/shadow", "local:310/vm-310-disk-0.raw", "local:310/../310/vm-310-disk-0.raw",
        "local:iso/../snippets/hook.sh", "file:/etc/shadow", "json:{}", "nbd://127.0.0.1/x", "local:0,import-from=/etc/shadow",
        "local:0,import-from=local:310/vm-310-disk-0.raw",
    ):  # fmt: skip
        for extra in ("", ",media=cdrom"):
            answer = node.http("PUT", f"{BASE}/311/config", headers=head, data={"ide0": drive + extra})
            assert answer.status_code in (400, 403), (drive, extra, answer.status_code, answer.text)
    assert "ide0" not in node.must("GET", f"{BASE}/311/config")
    for vmid in (310, 311):
        assert end_of(node, "DELETE", f"{BASE}/{vmid}") == "OK"


def admin(node: NodeUnderTest, name: str) -> dict[str, str]:
    """Headers of an administrator's token."""
    node.must("POST", "/access/users", userid=f"adm-{name}@pve")
    node.must("PUT", "/access/acl", path="/", users=f"adm-{name}@pve", roles="Administrator")
    token = node.must("POST", f"/access/users/adm-{name}@pve/token/tt", privsep=0)
    return {"Authorization": f"PVEAPIToken={token['full-tokenid']}={token['value']}"}


def served(image: Path) -> str:
    """A URL that gives the file once."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = image.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.timeout = 30

    def serve() -> None:
        with server:
            server.handle_request()

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/evil.qcow2"
