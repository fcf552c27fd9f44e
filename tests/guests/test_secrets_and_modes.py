"""Invariant 11 and attack rows 17 and 20 on a whole node with real QEMU: canary secrets and the modes of every file.

One run uses every kind of secret the node knows; then every log, file, answer and argument list is searched for them.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.daemon_under_test import NodeUnderTest

pytestmark = pytest.mark.real
BASE = "/nodes/n1/qemu"
PASSWORD, CHANGED, CLOUD, WRONG = "canary-pass-4711", "canary-changed-4712", "canary-cloud-4713", "canary-wrong-4714"


@pytest.fixture(scope="module")
def run() -> Iterator[tuple[NodeUnderTest, dict[str, str], str]]:
    """A node after a life full of secrets: the node, the secrets by name, the arguments of all its processes."""
    with NodeUnderTest(driver="qemu") as node:
        secrets = lived(node)
        arguments = "\n".join(argument_lists(node))
        yield node, secrets, arguments
        for row in node.must("GET", BASE):
            ended(node, node.must("POST", f"{BASE}/{row['vmid']}/status/stop"))


def ended(node: NodeUnderTest, upid: str) -> str:
    while (status := node.must("GET", f"/nodes/n1/tasks/{upid}/status"))["status"] != "stopped":
        time.sleep(0.05)
    return str(status["exitstatus"])


def lived(node: NodeUnderTest) -> dict[str, str]:
    node.must("POST", "/access/users", userid="mole@pve", password=PASSWORD)
    node.must("PUT", "/access/acl", path="/", users="mole@pve", roles="Administrator")
    token = node.must("POST", "/access/users/mole@pve/token/tt", privsep=0)["value"]
    login = node.http("POST", "/access/ticket", data={"username": "mole@pve", "password": PASSWORD}).json()["data"]
    head = {"Cookie": "PVEAuthCookie=" + quote(login["ticket"]), "CSRFPreventionToken": login["CSRFPreventionToken"]}
    config = {
        "vmid": 100, "memory": 64, "scsi0": "local:1,format=qcow2", "serial0": "socket", "cipassword": CLOUD,
        "bios": "ovmf", "efidisk0": "local:1,format=qcow2",
    }  # fmt: skip
    answer = node.http("POST", BASE, data=config, headers={**head, "Idempotency-Key": "one"})
    assert ended(node, answer.json()["data"]) == "OK"
    by_token = {"Authorization": f"PVEAPIToken=mole@pve!tt={token}"}
    assert ended(node, node.http("POST", f"{BASE}/100/status/start", headers=by_token).json()["data"]) == "OK"
    assert ended(node, node.must("POST", f"{BASE}/100/snapshot", snapname="one", vmstate=1)) == "OK"
    console = node.http("POST", f"{BASE}/100/termproxy", headers={**head, "Idempotency-Key": "two"}).json()["data"]
    # mistakes are where secrets leak: a wrong password, secrets in wrong fields, in the query, in a wrong path
    assert node.http("POST", "/access/ticket", data={"username": "mole@pve", "password": WRONG}).status_code == 401
    assert node.http("POST", BASE, data={**config, "vmid": 101, "cores": "x"}, headers=by_token).status_code == 400
    assert node.http("PUT", f"{BASE}/100/config?cipassword={CLOUD}", headers=head).status_code == 200
    assert node.http("GET", f"/nowhere?password={PASSWORD}", headers=head).status_code == 501
    assert node.http("GET", f"{BASE}/100/vncwebsocket", headers=head, params={"port": 5900}).status_code >= 400
    change = {"userid": "mole@pve", "password": CHANGED, "confirmation-password": PASSWORD}
    assert node.http("PUT", "/access/password", data=change, headers=head).status_code == 200
    node.restart_daemon()
    return {
        "password": PASSWORD, "changed": CHANGED, "wrong": WRONG, "cloud": CLOUD, "token": token,
        "ticket": login["ticket"].partition("::")[2], "csrf": login["CSRFPreventionToken"].partition(":")[2],
        "console": console["ticket"].partition("::")[2],
    }  # fmt: skip


def argument_lists(node: NodeUnderTest) -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            yield (entry / "cmdline").read_text(errors="replace") + (entry / "environ").read_text(errors="replace")
        except OSError:
            continue


def test_no_secret_is_written_anywhere(run: tuple[NodeUnderTest, dict[str, str], str]) -> None:
    """Planted fault: `redact_params` that hides nothing (the audit log has the password)."""
    node, secrets, arguments = run
    assert all(len(value) > 8 for value in secrets.values())
    for path in node.dir.rglob("*"):
        if path.is_file() and not path.is_socket():
            data = path.read_bytes()
            found = [name for name, value in secrets.items() if value.encode() in data or quote(value).encode() in data]
            assert not found, (path, found)
    assert not [name for name, value in secrets.items() if value in arguments]


def test_no_answer_shows_a_secret(run: tuple[NodeUnderTest, dict[str, str], str]) -> None:
    node, secrets, _ = run
    answers: list[Any] = [
        node.must("GET", path)
        for path in (
            f"{BASE}/100/config", f"{BASE}/100/pending", f"{BASE}/100/snapshot/one/config", "/cluster/log", "/cluster/tasks",
            "/access/users", "/access/users/mole@pve", "/access/users/mole@pve/token/tt", "/cluster/resources",
        )
    ]  # fmt: skip
    for task in node.must("GET", "/nodes/n1/tasks", limit=500):
        answers.append(node.must("GET", f"/nodes/n1/tasks/{task['upid']}/log", limit=500))
    text = str(answers)
    assert not [name for name, value in secrets.items() if value in text]
    assert "$" not in str(node.must("GET", f"{BASE}/100/config").get("cipassword"))


def test_every_file_is_the_daemons_own(run: tuple[NodeUnderTest, dict[str, str], str]) -> None:
    """Attack row 17. Planted fault: `umask(0o022)` in paneld.

    Group and others may connect to panal-web's door and pass through directories; they may read nothing but certificates.
    """
    node, _, _ = run
    for root in (node.state, node.run):
        for path in [root, *root.rglob("*")]:
            mode = path.lstat().st_mode
            loose = stat.S_IMODE(mode) & 0o077
            if stat.S_ISDIR(mode):
                assert loose in (0, 0o011) or "storage" in path.parts, (path, oct(mode))
                assert not loose & 0o022, (path, oct(mode))
            elif stat.S_ISSOCK(mode):
                assert loose == (0o060 if path.name == "paneld.sock" else 0), (path, oct(mode))
            else:
                assert not loose or path.name == "ca.pem", (path, oct(mode))
    if os.geteuid() == 0:
        assert all(p.stat().st_uid == 0 for p in node.state.rglob("*") if p.is_file())


def test_console_tickets_open_what_they_name_once(run: tuple[NodeUnderTest, dict[str, str], str]) -> None:
    """Attack row 18, over the wire. Planted fault: `consume` that leaves the ticket in its table."""
    node, _, _ = run
    assert ended(node, node.must("POST", BASE, vmid=102, memory=64, serial0="socket", serial1="socket")) == "OK"
    assert ended(node, node.must("POST", f"{BASE}/102/status/start")) == "OK"
    users = {}
    for name in ("one", "two"):
        node.must("POST", "/access/users", userid=f"{name}@pve")
        node.must("PUT", "/access/acl", path="/vms", users=f"{name}@pve", roles="PVEVMUser")
        made = node.must("POST", f"/access/users/{name}@pve/token/tt", privsep=0)
        users[name] = {"Authorization": f"PVEAPIToken={made['full-tokenid']}={made['value']}"}

    def issue() -> dict[str, Any]:
        answer = node.http("POST", f"{BASE}/102/termproxy", headers=users["one"], data={"serial": "serial0"})
        data: dict[str, Any] = answer.json()["data"]
        return data

    def shake(user: str, vmid: int, port: int, ticket: str, **head: str) -> int:
        answer = node.http(
            "GET", f"{BASE}/{vmid}/vncwebsocket", params={"port": port, "vncticket": ticket}, stream=True,
            headers={
                **users[user], "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": "binary", **head,
            },
        )  # fmt: skip
        answer.close()
        return answer.status_code

    for user, vmid, port in (("two", 102, 5900), ("one", 100, 5900), ("one", 102, 5901)):
        assert shake(user, vmid, port, issue()["ticket"]) in (401, 403), (user, vmid, port)
    ticket = issue()["ticket"]
    assert shake("one", 102, 5900, ticket, Origin="https://evil.example") == 403
    ticket = issue()["ticket"]
    assert shake("one", 102, 5900, ticket) == 101
    assert shake("one", 102, 5900, ticket) in (401, 403)
