"""The node's own methods over the wire: shapes, who sees what, and that nothing tells whether a task exists."""

from __future__ import annotations

import time
from typing import Any

import pytest

from panal.api import schema
from panal.api.all_routes import table
from tests.daemon_under_test import NodeUnderTest

READS = [
    ("/nodes", {}),
    ("/nodes/{node}/status", {}),
    ("/nodes/{node}/version", {}),
    ("/nodes/{node}/time", {}),
    ("/nodes/{node}/dns", {}),
    ("/nodes/{node}/config", {}),
    ("/nodes/{node}/apt/versions", {}),
    ("/nodes/{node}/apt/update", {}),
    ("/nodes/{node}/hosts", {}),
    ("/nodes/{node}/services", {}),
    ("/nodes/{node}/services/{service}/state", {"service": "paneld"}),
    ("/nodes/{node}/services/{service}", {"service": "paneld"}),
    ("/nodes/{node}/network", {}),
    ("/nodes/{node}/journal", {"lastentries": 5}),
    ("/nodes/{node}/syslog", {"limit": 5}),
    ("/nodes/{node}/rrddata", {"timeframe": "hour"}),
    ("/nodes/{node}/storage/{storage}/rrddata", {"timeframe": "day", "cf": "MAX", "storage": "local"}),
    ("/nodes/{node}/tasks", {"source": "all"}),
    ("/cluster/status", {}),
    ("/cluster/resources", {}),
    ("/cluster/tasks", {}),
    ("/cluster/log", {}),
    ("/cluster/options", {}),
]


class Caller:
    """A user of realm pve with one role on one path, with a token (so that no 401 costs three seconds)."""

    def __init__(self, node: NodeUnderTest, name: str, *grants: tuple[str, str]) -> None:
        self.node, self.userid = node, f"{name}@pve"
        node.must("POST", "/access/users", userid=self.userid)
        for path, role in grants:
            node.must("PUT", "/access/acl", path=path, users=self.userid, roles=role)
        made = node.must("POST", f"/access/users/{self.userid}/token/tok", privsep=0)
        self.headers = {"Authorization": f"PVEAPIToken={made['full-tokenid']}={made['value']}"}

    def __call__(self, verb: str, path: str, /, **params: Any) -> tuple[int, str, Any]:
        reads = verb in ("GET", "DELETE")
        answer = self.node.http(
            verb, path, headers=self.headers, params=params if reads else None,
            data=None if reads else params,
        )  # fmt: skip
        body = answer.json() if answer.content else {}
        return answer.status_code, answer.reason, body


@pytest.fixture(scope="module")
def upid(node: NodeUnderTest) -> str:
    """A task of root's that has ended."""
    made = str(node.must("POST", f"/nodes/{node.node}/panal/noop"))
    while node.must("GET", f"/nodes/{node.node}/tasks/{made}/status")["status"] != "stopped":
        time.sleep(0.02)
    return made


@pytest.fixture(scope="module")
def nobody(node: NodeUnderTest) -> Caller:
    return Caller(node, "nobody")


@pytest.fixture(scope="module")
def auditor(node: NodeUnderTest) -> Caller:
    return Caller(node, "auditor", ("/", "PVEAuditor"))


@pytest.mark.parametrize(("path", "params"), READS)
def test_answers_have_the_declared_shape(node, upid, path, params):
    method = next(m for m in table().methods if m.verb == "GET" and m.path == path)
    real = path
    for name in method.path_params:
        real = real.replace(f"{{{name}}}", node.node if name == "node" else params[name])
    sent = {k: v for k, v in params.items() if k not in method.path_params}
    data = node.must("GET", real, **sent)
    assert list(schema.problems(schema.parse(method.returns), data)) == []


def test_oddities_of_types(node):
    status = node.must("GET", f"/nodes/{node.node}/status")
    assert all(isinstance(x, str) for x in status["loadavg"]) and isinstance(status["cpuinfo"]["mhz"], str)
    assert status["pveversion"].startswith("pve-manager/9.1")
    storage = next(r for r in node.must("GET", "/cluster/resources", type="storage"))
    assert storage["shared"] == 0 and storage["id"] == f"storage/{node.node}/local"


def test_a_task_from_begin_to_end(node, upid):
    base = f"/nodes/{node.node}/tasks"
    status = node.must("GET", f"{base}/{upid}/status")
    assert (status["exitstatus"], status["user"], status["type"], status["upid"]) == ("OK", "root@pam", "noop", upid)
    http_status, _, body = node.admin("GET", f"{base}/{upid}/log", limit=1)
    assert http_status == 200 and body["data"] == [{"n": 1, "t": "nothing to do"}] and body["total"] == 2
    _, _, body = node.admin("GET", f"{base}/{upid}/log", download=1)
    assert body["data"][-1]["t"] == "TASK OK"
    assert node.must("GET", f"{base}/{upid.replace(':', '%3A')}/status") == status
    assert node.must("DELETE", f"{base}/{upid}") is None
    _, _, body = node.admin("GET", base, typefilter="noop", statusfilter="ok,warning", userfilter="OOT@", limit=1)
    assert body["total"] >= 1 and len(body["data"]) == 1 and body["data"][0]["status"] == "OK"
    for empty in (
        {"errors": 1},
        {"typefilter": "qmstart"},
        {"source": "active"},
        {"vmid": 100},
        {"until": 5},
        {"limit": 0},
    ):
        assert node.must("GET", base, **empty) == []
    assert any(e["msg"] == f"end task {upid} OK" for e in node.must("GET", "/cluster/log"))
    assert node.must("GET", "/cluster/tasks")[0]["upid"].startswith("UPID:")


def test_nothing_tells_whether_anothers_task_exists(node, upid, nobody, auditor):
    """Attack row 20. Planted fault: NotFound for an unknown task before the rights are looked at."""
    other = upid.replace(":noop:", ":qmstart:")
    for verb, suffix in (("GET", "/status"), ("GET", "/log"), ("DELETE", "")):
        real, absent = (nobody(verb, f"/nodes/{node.node}/tasks/{u}{suffix}") for u in (upid, other))
        assert real[0] == 403 and real == absent
    assert nobody("GET", f"/nodes/{node.node}/tasks/{upid}") == nobody("GET", f"/nodes/{node.node}/tasks/{other}")
    assert auditor("GET", f"/nodes/{node.node}/tasks/{upid}/status")[0] == 200
    assert auditor("GET", f"/nodes/{node.node}/tasks/{other}/status")[0] == 500
    assert auditor("DELETE", f"/nodes/{node.node}/tasks/{upid}")[0] == 403
    for path in (f"/nodes/{node.node}/tasks", "/cluster/tasks", "/cluster/log"):
        assert nobody("GET", path)[2]["data"] == []
        assert nobody("GET", path)[2].get("total", 0) == 0


@pytest.mark.parametrize(
    "upid", ["x", "UPID:n:..", "..%2F..%2Fetc%2Fpasswd", "UPID:n1:00000001:00000001:00000001:a%2Fb:c:u@pve:"]
)
def test_a_name_that_is_no_upid_is_named(node, auditor, upid):
    status, _, body = auditor("GET", f"/nodes/{node.node}/tasks/{upid}/status")
    assert status in (400, 501) and (status == 501 or list(body["errors"]) == ["upid"])


def test_own_tasks_are_seen_and_a_tokens_by_its_user(node):
    power = Caller(node, "power", (f"/nodes/{node.node}", "PVESysAdmin"))
    status, reason, body = power("POST", f"/nodes/{node.node}/panal/noop")
    if status == 403:  # the role may not change the node: an administrator then
        node.must("PUT", "/access/acl", path=f"/nodes/{node.node}", users=power.userid, roles="Administrator")
        status, reason, body = power("POST", f"/nodes/{node.node}/panal/noop")
    assert status == 200, reason
    mine = body["data"]
    assert "!tok:" in mine
    node.must("PUT", "/access/acl", path=f"/nodes/{node.node}", users=power.userid, roles="Administrator", delete=1)
    assert power("GET", f"/nodes/{node.node}/tasks/{mine}/status")[0] == 200
    assert mine in [row["upid"] for row in power("GET", "/cluster/tasks")[2]["data"]]


def test_resources_show_what_one_may_see(node, nobody, auditor):
    everything = {row["id"] for row in node.must("GET", "/cluster/resources")}
    assert {f"node/{node.node}", f"storage/{node.node}/local"} <= everything
    assert {row["id"] for row in auditor("GET", "/cluster/resources")[2]["data"]} == everything
    rows = nobody("GET", "/cluster/resources")[2]["data"]
    assert rows == [{"id": f"node/{node.node}", "node": node.node, "type": "node", "status": "online"}]
    assert nobody("GET", "/nodes")[2]["data"] == rows
    assert node.must("GET", "/cluster/resources", type="vm") == node.must("GET", "/cluster/resources", type="sdn") == []


def test_unchanged_resources_are_304_and_changed_ones_are_not(node, auditor, nobody):
    """Planted fault: an ETag without the caller in it would give one user's 304 for another's list."""

    def ask(caller: Caller, etag: str | None = None) -> Any:
        headers = {**caller.headers, **({"If-None-Match": etag} if etag else {})}
        return node.http("GET", "/cluster/resources", headers=headers, params={"type": "storage"})

    for _ in range(20):  # a sample may come in between
        etag = ask(auditor).headers["ETag"]
        again = ask(auditor, etag)
        if again.status_code == 304:
            break
    assert again.status_code == 304 and again.content == b""
    assert ask(nobody, etag).status_code == 200
    node.must("PUT", "/cluster/options", description=f"changed at {time.time()}")
    assert ask(auditor, etag).status_code == 200


def test_options_are_checked_kept_and_shown(node, nobody):
    chief = Caller(node, "chief", ("/", "Administrator"))
    path = "/cluster/options"

    def change(**params: Any) -> tuple[int, Any]:
        status, _, body = chief("PUT", path, **params)
        return status, body.get("errors")

    assert change(**{"next-id": "lower=200,upper=300", "registered-tags": "b;a", "console": "html5"}) == (200, None)
    assert change(migration="type=insecure,network=10.0.0.0/8", max_workers=3, delete="console") == (200, None)
    got = node.must("GET", path)
    assert got["next-id"] == {"lower": 200, "upper": 300} and got["registered-tags"] == ["b", "a"]
    assert got["migration"] == {"type": "insecure", "network": "10.0.0.0/8"} and got["max_workers"] == 3
    assert got["allowed-tags"] == ["a", "b"] and "console" not in got
    assert set(nobody("GET", path)[2]["data"]) == {"registered-tags", "allowed-tags"}
    assert nobody("PUT", path, console="html5")[0] == 403
    before = node.must("GET", path)
    for field, value in (
        ("next-id", "lower=300,upper=200"), ("next-id", "lower=5"), ("next-id", "x=1"), ("migration", "maybe"),
        ("mac_prefix", "01:00:00"), ("max_workers", 0), ("http_proxy", "ftp://x"), ("console", "tty"),
        ("registered-tags", "a;;b"), ("delete", "nonsense"), ("email_from", "a\nb@c"), ("nonsense", "1"),
    ):  # fmt: skip
        status, errors = change(**{field: value})
        assert (status, list(errors or ())) == (400, [field]), (field, value, errors)
    assert node.must("GET", path) == before
    assert change(delete="next-id,migration,max_workers,registered-tags") == (200, None)


def test_rights_on_the_node(node, nobody, auditor):
    for path in (
        "status",
        "time",
        "dns",
        "hosts",
        "services",
        "journal",
        "syslog",
        "rrddata?timeframe=hour",
        "network/eth0",
    ):
        assert nobody("GET", f"/nodes/{node.node}/{path}")[0] == 403, path
    assert nobody("GET", f"/nodes/{node.node}/network")[2]["data"] == [
        r for r in nobody("GET", f"/nodes/{node.node}/network")[2]["data"] if r["type"] == "bridge"
    ]
    for verb, path, params in (
        ("PUT", "time", {"timezone": "UTC"}), ("PUT", "dns", {"search": "x"}), ("POST", "hosts", {"data": "x"}),
        ("POST", "status", {"command": "reboot"}), ("POST", "services/cron/restart", {}),
    ):  # fmt: skip
        assert auditor(verb, f"/nodes/{node.node}/{path}", **params)[0] == 403, path


def test_settings_of_a_node(node):
    path = f"/nodes/{node.node}/config"
    chief = Caller(node, "chief2", ("/", "Administrator"))
    assert chief("PUT", path, description="a\nb", acmedomain1="domain=x.example", **{"ballooning-target": 50})[0] == 200
    got = node.must("GET", path)
    assert (got["description"], got["ballooning-target"], got["acmedomain1"]) == ("a\nb", 50, "domain=x.example")
    assert node.must("GET", path, property="description") == {"description": "a\nb"}
    assert chief("PUT", path, wakeonlan="02:00:00:00:00:01", digest=got["digest"])[0] == 200
    status, reason, _ = chief("PUT", path, description="x", digest=got["digest"])
    assert (status, reason[:31]) == (500, "detected modified configuration")
    assert chief("PUT", path, delete="description,ballooning-target,acmedomain1,wakeonlan")[0] == 200
    assert set(node.must("GET", path)) == {"digest"}
    for field, value in (
        ("acmedomain6", "x"),
        ("location", "latitude=1"),
        ("delete", "x1"),
        ("ballooning-target", 101),
    ):
        status, _, body = chief("PUT", path, **{field: value})
        assert (status, list(body["errors"])) == (400, [field])


def test_next_id_keeps_to_its_range(node):
    chief = Caller(node, "chief3", ("/", "Administrator"))
    assert chief("PUT", "/cluster/options", **{"next-id": "lower=5000,upper=5002"})[0] == 200
    assert [chief("GET", "/cluster/nextid")[2]["data"] for _ in range(2)] == ["5000", "5001"]
    assert chief("GET", "/cluster/nextid")[0] == 429
    assert chief("PUT", "/cluster/options", delete="next-id")[0] == 200
