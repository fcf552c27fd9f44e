"""/access and /pools through the dispatcher: wire types, permissions on every route, no daemon."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from panal.access import Access, bootstrap
from panal.access.realms import PveRealm
from panal.api import access as access_routes
from panal.api import access_domains, access_groups, access_users, pools, schema
from panal.api.dispatch import Change, Dispatcher
from panal.api.idempotency import Replays
from panal.api.permission import Rights
from panal.api.table import Table
from panal.api.wire.model import Request
from panal.cluster.store import Mirror, Put, SqliteStore
from panal.daemon.compose import Gate
from tests.unit.access.conftest import CHEAP, FakeClock, FakePam

ROUTES = (access_routes.routes, access_domains.routes, access_groups.routes, access_users.routes, pools.routes)
TABLE = Table(ROUTES)


class Api:
    """Asks as somebody: a ticket holder (`login`), a token, or root through the local door."""

    def __init__(self, access: Access, dispatcher: Dispatcher) -> None:
        self.access = access
        self._dispatcher = dispatcher
        self.key: str | None = None
        self.tickets: dict[str, tuple[str, str]] = {}

    async def login(self, userid: str, password: str) -> None:
        status, answer = await self.raw("POST", "/access/ticket", None, username=userid, password=password)
        assert status == 200, answer
        self.tickets[userid] = (answer["data"]["ticket"], answer["data"]["CSRFPreventionToken"])

    async def raw(
        self, verb: str, path: str, by: str | None, token: str | None = None, /, **params: Any
    ) -> tuple[int, dict[str, Any]]:
        ticket, csrf = self.tickets.get(by or "", (None, None))
        sent = {k.rstrip("_").replace("_", "-"): v for k, v in params.items()}
        request = Request(
            verb, path, client="192.0.2.1", ticket=ticket, csrf=csrf, token=token, idempotency_key=self.key
        )
        reply = await self._dispatcher.answer(request, json.dumps(sent).encode(), local=by == "root@pam")
        return reply.answer.status, json.loads(reply.body)

    async def __call__(self, verb: str, path: str, by: str = "root@pam", /, **params: Any) -> Any:
        """The data of an answer that must be good and of the declared shape."""
        status, answer = await self.raw(verb, path, by, None, **params)
        assert status == 200, (verb, path, answer)
        found = TABLE.find(verb, [part for part in path.split("/") if part])
        assert found is not None
        shape = schema.parse(found[0].returns)
        assert list(schema.problems(shape, answer["data"])) == []
        return answer["data"]

    async def fails(
        self, status: int, verb: str, path: str, by: str | None = "root@pam", /, **params: Any
    ) -> dict[str, Any]:
        got, answer = await self.raw(verb, path, by, None, **params)
        assert got == status, answer
        return answer


class QuietGate(Gate):
    """Remembers what was audited."""

    changes: list[Change]

    async def audit(self, change: Change) -> None:
        self.changes.append(change)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    clock = FakeClock()
    store = Mirror(SqliteStore(tmp_path / "store.db"))
    await store.start()
    context = Access(store, clock, tmp_path, realms={"pam": FakePam(), "pve": PveRealm(CHEAP)})
    await bootstrap(context)
    services = cast(Any, SimpleNamespace(node="a", access=context, store=store, clock=clock))
    gate = QuietGate(context)
    gate.changes = []
    replays = Replays(tmp_path / "replays.db", clock, b"a key for tests")
    yield Api(context, Dispatcher(TABLE, services, gate, replays))
    replays.close()
    context.audit.close()
    await store.close()


async def people(api: Api) -> None:
    """One user a role; each logged in."""
    for name, role, path in (
        ("admin", "Administrator", "/"), ("auditor", "PVEAuditor", "/"), ("useradmin", "PVEUserAdmin", "/"),
        ("vmadmin", "PVEVMAdmin", "/vms/100"), ("plain", "NoAccess", "/"),
    ):  # fmt: skip
        await api("POST", "/access/users", userid=f"{name}@pve", password="a password")
        await api("PUT", "/access/acl", path=path, roles=role, users=f"{name}@pve")
        await api.login(f"{name}@pve", "a password")


async def test_login_answer(api: Api) -> None:
    answer = await api("POST", "/access/ticket", "", username="root", realm="pam", password="correct horse")
    assert answer["username"] == "root@pam"
    assert set(answer["cap"]) == {"vms", "access", "storage", "nodes", "sdn", "dc", "mapping"}
    assert answer["cap"]["vms"]["VM.Audit"] == 1
    assert answer["ticket"].startswith("PVE:root@pam:")
    for wrong in (
        {"username": "root@pam", "password": "x"}, {"username": "root", "password": "correct horse"},
        {"username": "root@pam", "password": "x", "otp": "1"}, {"username": "nobody@pve", "password": "x"},
        {"username": "root@pam", "password": "correct horse", "tfa_challenge": "x"},
    ):  # fmt: skip
        answer = await api.fails(401, "POST", "/access/ticket", None, **wrong)
        assert answer["message"] == "authentication failure"
    errors = (await api.fails(400, "POST", "/access/ticket", None, username="a@pve"))["errors"]
    assert list(errors) == ["password"]
    answer = await api.fails(400, "POST", "/access/ticket", None, username="root@pam", password="x", path="/")
    assert "privs" in answer["errors"]


async def test_users_have_the_wire_types_of_pve(api: Api) -> None:
    await api("POST", "/access/groups", groupid="g", comment="a group")
    await api("POST", "/access/groups", groupid="h")
    await api(
        "POST", "/access/users", userid="u@pve", groups="g,h", email="u@example.org", enable=1, expire=1_900_000_000,
        firstname="U", comment="x", keys="",
    )  # fmt: skip
    await api("POST", "/access/users/u@pve/token/tok", privsep=0, comment="c")
    (root, user) = await api("GET", "/access/users", full=1)
    assert user == {
        "userid": "u@pve", "enable": 1, "expire": 1_900_000_000, "firstname": "U", "email": "u@example.org", "comment": "x",
        "groups": "g,h", "realm-type": "pve",
        "tokens": [{"tokenid": "tok", "privsep": 0, "expire": 1_900_000_000, "comment": "c"}],
    }  # fmt: skip
    assert root["userid"] == "root@pam"
    assert await api("GET", "/access/users/u@pve") == {
        "enable": 1, "expire": 1_900_000_000, "firstname": "U", "email": "u@example.org", "comment": "x",
        "groups": ["g", "h"], "tokens": {"tok": {"privsep": 0, "expire": 1_900_000_000, "comment": "c"}},
    }  # fmt: skip
    await api("PUT", "/access/users/u@pve", groups="g", enable=0, expire=0)
    assert [u["userid"] for u in await api("GET", "/access/users", enabled=0)] == ["u@pve"]
    groups = await api("GET", "/access/groups")
    assert groups == [{"groupid": "g", "users": "u@pve", "comment": "a group"}, {"groupid": "h", "users": ""}]
    assert (await api("GET", "/access/groups/g"))["members"] == ["u@pve"]
    assert "keys" in (await api.fails(400, "PUT", "/access/users/u@pve", keys="x!abc"))["errors"]
    assert "uid" in (await api.fails(400, "PUT", "/access/users/u@pve", uid="forged"))["errors"]
    assert "userid" in (await api.fails(400, "POST", "/access/users", userid="a!b@pve"))["errors"]


async def test_token_life(api: Api) -> None:
    made = await api("POST", "/access/users/root@pam/token/tok", privsep=0)
    assert made["full-tokenid"] == "root@pam!tok"
    assert made["info"] == {"expire": 0, "privsep": 0}
    token = f"PVEAPIToken=root@pam!tok={made['value']}"
    status, answer = await api.raw("POST", "/access/groups", None, token, groupid="g")
    assert status == 200, answer
    status, answer = await api.raw("PUT", "/access/password", None, token, userid="root@pam", password="12345678")
    assert status == 403, answer
    assert await api("PUT", "/access/users/root@pam/token/tok", comment="c") == {
        "expire": 0,
        "privsep": 0,
        "comment": "c",
    }
    answer = await api("PUT", "/access/users/root@pam/token/tok", regenerate=1, delete="comment")
    assert answer["value"] != made["value"]
    assert "comment" not in answer
    assert (await api.raw("GET", "/access/roles", None, token))[0] == 401
    assert [t["tokenid"] for t in await api("GET", "/access/users/root@pam/token")] == ["tok"]
    await api("DELETE", "/access/users/root@pam/token/tok")
    await api.fails(500, "GET", "/access/users/root@pam/token/tok")


async def test_an_idempotency_key_keeps_no_secret(api: Api, tmp_path: Path) -> None:
    """Row 20. Planted fault: dispatch without `kept`: the ticket and the token's secret lie in replays.db."""
    api.key = "k1"
    await api.login("root@pam", "correct horse")
    await api("POST", "/access/users/root@pam/token/tok")
    assert (await api.fails(500, "POST", "/access/users/root@pam/token/tok"))["message"].endswith("already exists.")
    await api("POST", "/access/groups", groupid="g")
    await api("POST", "/access/groups", groupid="g")  # this one is kept
    held = b"".join(p.read_bytes() for p in tmp_path.glob("replays.db*"))
    assert b"/access/groups" in held
    assert b"/access/ticket" not in held
    assert b"/token/tok" not in held


async def test_roles_acl_and_permissions(api: Api) -> None:
    await api("POST", "/access/roles", roleid="mine", privs="VM.Audit VM.Console")
    assert await api("GET", "/access/roles/mine") == {"VM.Audit": 1, "VM.Console": 1}
    rows = {r["roleid"]: r for r in await api("GET", "/access/roles")}
    assert len(rows) == 18
    assert rows["mine"] == {"roleid": "mine", "privs": "VM.Audit,VM.Console", "special": 0}
    assert rows["NoAccess"] == {"roleid": "NoAccess", "privs": "", "special": 1}
    await api("PUT", "/access/roles/mine", privs="VM.Clone", append=1)
    await api("POST", "/access/users", userid="u@pve")
    await api("PUT", "/access/acl", path="/vms", roles="mine", users="u@pve", propagate=0)
    assert await api("GET", "/access/acl") == [
        {"path": "/vms", "type": "user", "ugid": "u@pve", "roleid": "mine", "propagate": 0}
    ]
    tree = await api("GET", "/access/permissions", userid="u@pve")
    assert tree == {"/vms": {"VM.Audit": 0, "VM.Clone": 0, "VM.Console": 0}}
    assert await api("GET", "/access/permissions", userid="u@pve", path="/vms/100") == {"/vms/100": {}}
    assert len((await api("GET", "/access/permissions"))["/"]) == 47
    assert "roles" in (await api.fails(400, "PUT", "/access/acl", path="/", roles="nope", users="u@pve"))["errors"]
    await api("DELETE", "/access/roles/mine")
    assert await api("GET", "/access/acl") == []


async def test_what_others_may_see(api: Api) -> None:
    """Absent and forbidden look alike for those without rights; lists hold only what one may see."""
    await people(api)
    assert [u["userid"] for u in await api("GET", "/access/users", "plain@pve")] == ["plain@pve"]
    assert len(await api("GET", "/access/users", "auditor@pve")) == 6
    assert await api("GET", "/access/groups", "plain@pve") == []
    assert await api("GET", "/access/acl", "plain@pve") == []
    assert len(await api("GET", "/access/acl", "auditor@pve")) == 5
    a = await api.fails(403, "GET", "/access/users/admin@pve", "plain@pve")
    b = await api.fails(403, "GET", "/access/users/nobody@pve", "plain@pve")
    assert a == b
    a = await api.fails(403, "GET", "/access/permissions", "plain@pve", userid="admin@pve")
    b = await api.fails(403, "GET", "/access/permissions", "plain@pve", userid="nobody@pve")
    assert a == b
    assert await api("GET", "/access/permissions", "plain@pve") == {}


async def test_passwords(api: Api) -> None:
    """Planted fault: no confirmation asked."""
    await people(api)
    change = {"userid": "plain@pve", "password": "new password"}
    assert "confirmation-password" in (await api.fails(400, "PUT", "/access/password", "plain@pve", **change))["errors"]
    answer = await api.fails(400, "PUT", "/access/password", "plain@pve", **change, confirmation_password="wrong")
    assert "confirmation-password" in answer["errors"]
    await api("PUT", "/access/password", "plain@pve", **change, confirmation_password="a password")
    await api.fails(401, "GET", "/access/users", "plain@pve")  # its own session ended, too
    await api.login("plain@pve", "new password")
    admin = {"userid": "admin@pve", "password": "stolen one", "confirmation_password": "a password"}
    await api.fails(403, "PUT", "/access/password", "useradmin@pve", **admin)
    await api("PUT", "/access/password", userid="root@pam", password="another horse")
    assert (
        "password" in (await api.fails(400, "PUT", "/access/password", userid="root@pam", password="short"))["errors"]
    )


async def test_logout(api: Api) -> None:
    await people(api)
    await api("DELETE", "/panal/session", "plain@pve")
    await api.fails(401, "GET", "/access/users", "plain@pve")
    await api.login("plain@pve", "a password")
    await api("DELETE", "/panal/sessions/plain@pve", "plain@pve")
    await api.fails(401, "GET", "/access/users", "plain@pve")
    await api.fails(403, "DELETE", "/panal/sessions/admin@pve", "useradmin@pve")


async def test_realms(api: Api) -> None:
    listed = await api("GET", "/access/domains", "")
    assert [(r["realm"], r["type"]) for r in listed] == [("pam", "pam"), ("pve", "pve")]
    answer = await api.fails(400, "POST", "/access/domains", realm="corp", type="ldap", server1="ldap.example.org")
    assert list(answer["errors"]) == ["type"]
    assert "pam, pve" in answer["errors"]["type"]
    await api("PUT", "/access/domains/pve", comment="ours", default=1)
    assert (await api("GET", "/access/domains/pve"))["comment"] == "ours"
    assert (await api("GET", "/access/domains", ""))[1]["default"] == 1
    await api.fails(400, "DELETE", "/access/domains/pve")
    await api.fails(501, "POST", "/access/domains/pve/sync")


async def test_pools(api: Api) -> None:
    store = api.access.store
    for vmid in (100, 101):
        value = {"v": 1, "type": "qemu", "node": "a", "config": {"name": f"vm{vmid}"}, "pending": {}}
        await store.txn([], [Put(f"guest/{vmid}/config", value)])
    await store.txn([], [Put("storage/local", {"v": 1})])
    await people(api)
    await api("POST", "/pools", poolid="a", comment="c")
    await api("POST", "/pools", poolid="a/b")
    await api("PUT", "/pools", poolid="a", vms="100,101", storage="local")
    assert await api("GET", "/pools") == [{"poolid": "a", "comment": "c"}, {"poolid": "a/b"}]
    (pool,) = await api("GET", "/pools", poolid="a")
    assert [m["id"] for m in pool["members"]] == ["qemu/100", "qemu/101", "storage/a/local"]
    assert pool["members"][0]["vmid"] == 100
    assert [m["id"] for m in (await api("GET", "/pools/a", type="storage"))["members"]] == ["storage/a/local"]
    assert "vms" in (await api.fails(400, "PUT", "/pools", poolid="a/b", vms="100"))["errors"]
    await api("PUT", "/pools", poolid="a/b", vms="100", allow_move=1)
    assert "vms" in (await api.fails(400, "PUT", "/pools/a", vms="999"))["errors"]
    await api("PUT", "/pools/a", vms="101", storage="local", delete=1)
    await api.fails(500, "DELETE", "/pools/a")
    await api("PUT", "/pools", poolid="a/b", vms="100", delete=1)
    await api("DELETE", "/pools", poolid="a/b")
    await api("DELETE", "/pools/a")


async def test_a_pool_is_no_way_around_permissions(api: Api) -> None:
    """Row 13. Planted fault: `_update` without PermModify: who owns a pool takes every guest into it."""
    await api.access.store.txn([], [Put("guest/101/config", {"v": 1, "type": "qemu", "node": "a", "config": {}})])
    await people(api)
    await api("POST", "/pools", poolid="mine")
    await api("PUT", "/access/acl", path="/pool/mine", roles="PVEAdmin", users="vmadmin@pve")
    await api.fails(403, "PUT", "/pools", "vmadmin@pve", poolid="mine", vms="101")
    await api.fails(403, "PUT", "/pools", "vmadmin@pve", poolid="mine", storage="local")
    assert await api("GET", "/access/permissions", "vmadmin@pve", path="/vms/101") == {"/vms/101": {}}


SAMPLE: Mapping[str, Any] = {
    "userid": "plain@pve", "tokenid": "x1", "groupid": "g1", "roleid": "r1", "realm": "pve", "poolid": "p1", "node": "a",
    "username": "x@pve", "password": "a password", "path": "/vms/100", "roles": "PVEVMUser", "users": "plain@pve",
    "type": "ldap",
}  # fmt: skip


@pytest.mark.parametrize("method", TABLE.methods, ids=lambda m: f"{m.verb} {m.path}")
async def test_nobody_without_rights_changes_anything(api: Api, method: Any) -> None:
    """Invariant 10: anonymous, without any role, and an auditor: the store is the same after every change they try."""
    await people(api)
    if method.path in ("/access/ticket",):
        return
    path = method.path
    for name in method.path_params:
        path = path.replace("{" + name + "}", str(SAMPLE[name] if name != "userid" else "admin@pve"))
    params = {
        p.name: SAMPLE[p.name] for p in method.params if p.required and p.name not in method.path_params
    }  # fmt: skip
    if "userid" in params:
        params["userid"] = "admin@pve"
    if path == "/access/password":
        params["confirmation-password"] = "a password"
    before = [(i.key, i.revision) for i in api.access.store.list("") if not i.key.startswith("access/lockout/")]
    for by in (None, "plain@pve", "auditor@pve"):
        status, answer = await api.raw(method.verb, path, by, **params)
        if by is None and (method.verb, path) != ("GET", "/access/domains"):
            assert status == 401, answer
        elif method.changes and path != "/panal/session":
            assert status == 403, (by, answer)
    if path != "/panal/session":
        after = [(i.key, i.revision) for i in api.access.store.list("") if not i.key.startswith("access/lockout/")]
        assert after == before


def test_rights_fit_the_protocol(api: Api) -> None:
    rights: Rights = api.access.rights("root@pam")
    assert rights.is_root
