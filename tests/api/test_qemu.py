"""Virtual machines over the wire: what clients of PVE do, the answers' types, who may, what a wrong field gets."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from panal.api import schema as shapes
from panal.api.all_routes import table
from tests.daemon_under_test import NodeUnderTest

BASE = "/nodes/n1/qemu"
_numbers = itertools.count(4000)


def ended(node: NodeUnderTest, upid: str) -> str:
    for _ in range(600):
        status = node.must("GET", f"/nodes/n1/tasks/{upid}/status")
        if status["status"] == "stopped":
            return str(status["exitstatus"])
        time.sleep(0.05)
    raise AssertionError(f"{upid} does not end")


def made(node: NodeUnderTest, **config: Any) -> int:
    vmid = next(_numbers)
    assert ended(node, node.must("POST", BASE, vmid=vmid, serial0="socket", **config)) == "OK"
    return vmid


def fits(verb: str, path: str, answer: Any) -> None:
    """The answer has the declared types."""
    method = next(m for m in table().methods if (m.verb, m.path) == (verb, path))
    assert not list(shapes.problems(shapes.parse(method.returns), answer))


def user(node: NodeUnderTest, name: str, privs: str, path: str) -> dict[str, str]:
    """Headers of a token of a user with these privileges there."""
    if privs:
        node.must("POST", "/access/roles", roleid=name, privs=privs)
    node.must("POST", "/access/users", userid=f"{name}@pve")
    if privs:
        node.must("PUT", "/access/acl", path=path, users=f"{name}@pve", roles=name)
    value = node.must("POST", f"/access/users/{name}@pve/token/tok", privsep=0)["value"]
    return {"Authorization": f"PVEAPIToken={name}@pve!tok={value}"}


def test_a_life(node: NodeUnderTest) -> None:
    """Create → start → snapshot with RAM → rollback → clone → delete, every task to its end."""
    vmid = made(node, name="web", memory=256, scsi0="local:1,format=qcow2", net0="virtio,bridge=vmbr0", tags="b;a")
    path = f"{BASE}/{vmid}"
    current = node.must("GET", f"{path}/status/current")
    fits("GET", "/nodes/{node}/qemu/{vmid}/status/current", current)
    assert (current["status"], current["qmpstatus"], current["maxmem"], current["maxdisk"], current["ha"]) == (
        "stopped", "stopped", 256 << 20, 1 << 30, {"managed": 0},
    )  # fmt: skip
    assert ended(node, node.must("POST", f"{path}/status/start")) == "OK"
    current = node.must("GET", f"{path}/status/current")
    fits("GET", "/nodes/{node}/qemu/{vmid}/status/current", current)
    assert current["status"] == "running" and current["running-machine"] and isinstance(current["pid"], int)
    assert ended(node, node.must("POST", f"{path}/snapshot", snapname="one", vmstate=1, description="x")) == "OK"
    rows = node.must("GET", f"{path}/snapshot")
    fits("GET", "/nodes/{node}/qemu/{vmid}/snapshot", rows)
    assert [(r["name"], r.get("parent"), r.get("vmstate")) for r in rows] == [
        ("one", None, 1),
        ("current", "one", None),
    ]
    assert rows[1]["running"] == 1
    assert ended(node, node.must("POST", f"{path}/status/suspend")) == "OK"
    assert node.must("GET", f"{path}/status/current")["qmpstatus"] == "paused"
    assert ended(node, node.must("POST", f"{path}/snapshot/one/rollback")) == "OK"
    assert node.must("GET", f"{path}/status/current")["qmpstatus"] == "running"
    assert node.must("GET", f"{path}/snapshot/one/config")["memory"] == "256"
    node.must("PUT", f"{path}/snapshot/one/config", description="other")
    assert node.must("GET", f"{path}/snapshot")[0]["description"] == "other"
    newid = next(_numbers)
    assert ended(node, node.must("POST", f"{path}/clone", newid=newid, name="copy", full=1)) == "OK"
    assert node.must("GET", f"{BASE}/{newid}/config")["name"] == "copy"
    assert ended(node, node.must("DELETE", f"{path}/snapshot/one")) == "OK"
    status, reason, _ = node.admin("DELETE", path)
    assert status == 500 and "running" in reason
    assert ended(node, node.must("POST", f"{path}/status/stop")) == "OK"
    for number in (vmid, newid):
        assert ended(node, node.must("DELETE", f"{BASE}/{number}")) == "OK"
        status, reason, _ = node.admin("GET", f"{BASE}/{number}/status/current")
        assert status == 500 and "does not exist" in reason
    left = node.must("GET", "/nodes/n1/storage/local/content", content="images")
    assert not [v for v in left if v.get("vmid") in (vmid, newid)]


def test_list(node: NodeUnderTest) -> None:
    vmid = made(node, name="listed", memory=512)
    for full in (0, 1):
        rows = node.must("GET", BASE, full=full)
        fits("GET", "/nodes/{node}/qemu", rows)
        (row,) = [r for r in rows if r["vmid"] == vmid]
        assert (row["name"], row["status"], row["cpus"], row["uptime"]) == ("listed", "stopped", 1, 0)


def test_create_without_a_number(node: NodeUnderTest) -> None:
    upid = node.must("POST", BASE, name="numbered")
    assert ended(node, upid) == "OK"
    number = upid.split(":")[6]
    assert node.must("GET", f"{BASE}/{number}/config")["name"] == "numbered"


@pytest.mark.parametrize(
    ("path", "params", "field"),
    [
        ("", {"vmid": 99}, "vmid"),
        ("", {"scsi0": "nowhere:1"}, "scsi0"),
        ("", {"scsi0": "local:4000/vm-4000-disk-99.raw"}, "scsi0"),
        ("", {"net0": "virtio,bridge=a b"}, "net0"),
        ("", {"archive": "local:backup/x.vma"}, "archive"),
        ("", {"pool": "nowhere"}, "pool"),
        ("", {"template": 1}, "template"),
        ("", {"boot": "order=scsi5"}, "boot"),
        ("", {"unknown": "x"}, "unknown"),
        ("/{vmid}/clone", {"newid": 5999, "full": 0}, "full"),
        ("/{vmid}/clone", {"newid": 5999, "target": "n9"}, "target"),
        ("/{vmid}/clone", {"newid": 5999, "storage": "nowhere"}, "storage"),
        ("/{vmid}/clone", {}, "newid"),
        ("/{vmid}/migrate", {"target": "n1"}, "target"),
        ("/{vmid}/migrate", {"target": "n9"}, "target"),
        ("/{vmid}/snapshot", {"snapname": "current"}, "snapname"),
        ("/{vmid}/snapshot", {"snapname": "1x"}, "snapname"),
        ("/{vmid}/status/suspend", {"todisk": 1}, "todisk"),
        ("/{vmid}/status/start", {"stateuri": "tcp"}, "stateuri"),
        ("/{vmid}/termproxy", {"serial": "serial3"}, "serial"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_and_nothing_changes(
    node: NodeUnderTest, path: str, params: dict[str, Any], field: str
) -> None:
    vmid = made(node, scsi0="local:0.01")
    before = len(node.must("GET", BASE)), node.stored()
    status, _, body = node.admin("POST", BASE + path.format(vmid=vmid), **params)
    assert status == 400, body
    assert field in body["errors"], body
    assert (len(node.must("GET", BASE)), node.stored()) == before


def test_numbers_are_not_given_twice(node: NodeUnderTest) -> None:
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: node.must("GET", "/cluster/nextid"), range(30)))
    assert len(set(got)) == 30
    assert all(isinstance(n, str) for n in got)
    vmid = made(node)
    status, _, body = node.admin("GET", "/cluster/nextid", vmid=vmid)
    assert status == 400 and "already exists" in body["errors"]["vmid"]
    assert node.must("GET", "/cluster/nextid", vmid=987654) == "987654"


def test_fifty_clones_by_five_clients(node: NodeUnderTest) -> None:
    vmid = made(node, scsi0="local:0.01")
    assert ended(node, node.must("POST", f"{BASE}/{vmid}/template")) == "OK"

    def client(_: int) -> list[str]:
        upids = []
        for _ in range(10):
            newid = node.must("GET", "/cluster/nextid")
            upids.append(node.must("POST", f"{BASE}/{vmid}/clone", newid=newid))
        return upids

    with ThreadPoolExecutor(5) as pool:
        upids = [u for part in pool.map(client, range(5)) for u in part]
    assert [ended(node, u) for u in upids] == ["OK"] * 50


def test_absent_and_forbidden_look_the_same(node: NodeUnderTest) -> None:
    """Attack row 20. Planted fault: status/current declared for any user."""
    vmid = made(node)
    stranger = user(node, "stranger", "", "/")
    for path in ("/status/current", "/snapshot", "/snapshot/xx/config"):
        there = node.http("GET", f"{BASE}/{vmid}{path}", headers=stranger)
        absent = node.http("GET", f"{BASE}/777777{path}", headers=stranger)
        assert (there.status_code, there.reason.replace(str(vmid), "N")) == (
            absent.status_code, absent.reason.replace("777777", "N"),
        )  # fmt: skip
        assert there.status_code == 403
    assert node.http("GET", BASE, headers=stranger).json()["data"] == []


def test_every_way_to_a_running_guest_needs_the_right_to_run_it(node: NodeUnderTest) -> None:
    """Attack row 13. Planted fault: create with `start` that does not ask for VM.PowerMgmt."""
    maker = user(node, "maker", "VM.Allocate,VM.Config.Options", "/vms")
    number = next(_numbers)
    answer = node.http("POST", BASE, data={"vmid": number, "start": 1}, headers=maker)
    assert answer.status_code == 403 and "VM.PowerMgmt" in answer.reason
    assert node.http("POST", f"{BASE}/{made(node)}/status/start", headers=maker).status_code == 403
    answer = node.http("POST", BASE, data={"vmid": number, "scsi0": "local:1"}, headers=maker)
    assert answer.status_code == 403
    assert node.http("POST", BASE, data={"vmid": number}, headers=maker).status_code == 200


def test_a_rollback_that_starts_needs_the_right_to_run(node: NodeUnderTest) -> None:
    """Attack row 13: `start` of a rollback. Planted fault, as found: only the right to roll back was asked for."""
    vmid = made(node, scsi0="local:0.01,format=qcow2")
    path = f"{BASE}/{vmid}/snapshot"
    assert ended(node, node.must("POST", path, snapname="one")) == "OK"
    keeper = user(node, "keeper", "VM.Snapshot.Rollback", "/vms")
    answer = node.http("POST", f"{path}/one/rollback", data={"start": 1}, headers=keeper)
    assert answer.status_code == 403 and "VM.PowerMgmt" in answer.reason
    answer = node.http("POST", f"{path}/one/rollback", headers=keeper)
    assert answer.status_code == 200 and ended(node, answer.json()["data"]) == "OK"
    assert node.must("GET", f"{BASE}/{vmid}/status/current")["status"] == "stopped"


def test_a_clone_of_a_snapshot_needs_the_rights_for_what_the_snapshot_holds(node: NodeUnderTest) -> None:
    """Attack row 13: a bridge that the guest has no more, but its snapshot has.

    Planted fault, as found: the rights were asked for the present configuration.
    """
    vmid = made(node, scsi0="local:0.01,format=qcow2", net0="virtio,bridge=vmbr0")
    path = f"{BASE}/{vmid}"
    assert ended(node, node.must("POST", f"{path}/snapshot", snapname="one")) == "OK"
    node.must("PUT", f"{path}/config", delete="net0")
    cloner = user(node, "cloner", "VM.Clone,VM.Allocate,Datastore.AllocateSpace", "/")
    node.must("PUT", "/access/acl", path="/sdn", users="cloner@pve", roles="NoAccess")
    answer = node.http("POST", f"{path}/clone", data={"newid": next(_numbers), "snapname": "one"}, headers=cloner)
    assert answer.status_code == 403 and "/sdn" in answer.reason
    answer = node.http("POST", f"{path}/clone", data={"newid": next(_numbers)}, headers=cloner)
    assert answer.status_code == 200 and ended(node, answer.json()["data"]) == "OK"


def test_a_pool_lets_in(node: NodeUnderTest) -> None:
    node.must("POST", "/pools", poolid="team")
    member = user(node, "member", "VM.Allocate,VM.Audit", "/pool/team")
    number = next(_numbers)
    assert node.http("POST", BASE, data={"vmid": number}, headers=member).status_code == 403
    answer = node.http("POST", BASE, data={"vmid": number, "pool": "team"}, headers=member)
    assert answer.status_code == 200, answer.reason
    assert ended(node, answer.json()["data"]) == "OK"
    rows = node.http("GET", BASE, headers=member).json()["data"]
    assert [r["vmid"] for r in rows] == [number]
    assert ended(node, node.must("DELETE", f"{BASE}/{number}")) == "OK"
    assert node.must("GET", "/pools", poolid="team")[0]["members"] == []


def test_console_tickets(node: NodeUnderTest) -> None:
    vmid = made(node)
    status, reason, _ = node.admin("POST", f"{BASE}/{vmid}/termproxy")
    assert status == 500 and "not running" in reason
    assert ended(node, node.must("POST", f"{BASE}/{vmid}/status/start")) == "OK"
    answer = node.must("POST", f"{BASE}/{vmid}/termproxy")
    fits("POST", "/nodes/{node}/qemu/{vmid}/termproxy", answer)
    assert answer["user"] == "root@pam" and answer["ticket"].startswith("PVEVNC:root@pam:")
    assert node.http("GET", f"{BASE}/{vmid}/vncwebsocket").status_code == 401


def test_keys_and_screen(node: NodeUnderTest) -> None:
    vmid = made(node)
    assert ended(node, node.must("POST", f"{BASE}/{vmid}/status/start")) == "OK"
    node.must("PUT", f"{BASE}/{vmid}/sendkey", key="ctrl-alt-delete")
    status, _, body = node.admin("PUT", f"{BASE}/{vmid}/sendkey", key="$(reboot)")
    assert status == 400 and "key" in body["errors"]
    assert node.must("GET", f"{BASE}/{vmid}/panal/screenshot")


def test_a_killed_daemon_forgets_nothing(node: NodeUnderTest) -> None:
    vmid = made(node, scsi0="local:0.01", onboot=1)
    node.kill_daemon()
    node.start_daemon()
    assert node.must("GET", f"{BASE}/{vmid}/status/current")["status"] == "stopped", "a restart is no boot"
    assert node.must("GET", f"{BASE}/{vmid}/config")["scsi0"].startswith(f"local:{vmid}/vm-{vmid}-disk-0.raw")
