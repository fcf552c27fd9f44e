"""Every route against every role, anonymous callers and tokens: what the gate lets through, computed independently.

`test_gate` replaces handlers by recorders, so that it sees exactly whether a call gets through. `test_nobody_changes_anything`
runs the real handlers as users without rights and compares the store before and after (invariant 10).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from panal.api import permission as p
from panal.api.all_routes import table
from panal.api.call import Call
from panal.api.table import Routes, Table
from tests.api.in_process import Desk, desk, samples
from tests.contract.pve.facts import roles

METHODS = table().methods
ELSEWHERE = "/vms/999999"


def expected(
    form: p.Permission, privs: frozenset[str], params: dict[str, Any], caller: str, *, root: bool = False
) -> bool:
    """Whether a caller who holds exactly `privs`, on every path, may. A second implementation, on purpose."""
    if root:
        return not isinstance(form, p.Self) or params.get("userid") == caller
    match form:
        case p.World() | p.AnyUser() | p.Described():
            return True
        case p.RootOnly():
            return False
        case p.Perm():
            if form.when and not params.get(form.when):
                return False
            return bool(set(form.privs) & privs) if form.any_of else set(form.privs) <= privs
        case p.AllOf():
            return all(expected(f, privs, params, caller) for f in form.forms)
        case p.OneOf():
            return any(expected(f, privs, params, caller) for f in form.forms)
        case p.Self():
            return params.get("userid") == caller
        case p.RealmPriv():
            return form.priv in privs
        case p.UserGroup():
            return bool(set(form.privs) & privs)
        case p.PermModify():
            return bool({"Permissions.Modify", "VM.Allocate"} & privs)  # the sample's path is a guest's
    raise AssertionError(form)


class Recorder:
    """Stands for every handler."""

    def __init__(self) -> None:
        self.reached = 0

    async def __call__(self, call: Call) -> None:
        self.reached += 1

    def wrap(self, real: Table) -> Table:
        routes = Routes("recorded")
        routes.methods = [replace(m, handler=self) for m in real.methods]
        return Table([routes])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[tuple[Desk, dict[str, str]]]:
    """A node, and one token per role and kind: name → Authorization value."""
    async with desk() as d:
        tokens: dict[str, str] = {}
        grants: list[tuple[str, str | None, str]] = [(role, role, "/") for role in roles()]
        grants += [("nothing", None, "/"), ("elsewhere", "Administrator", ELSEWHERE)]
        for name, role, path in grants:
            user = f"m-{name.lower()}@pve"
            await d.must("POST", "/access/users", userid=user)
            if role is not None:
                await d.must("PUT", "/access/acl", path=path, users=user, roles=role)
            for kind, privsep in (("full", 0), ("bare", 1)):
                made = await d.must("POST", f"/access/users/{user}/token/{kind}", privsep=privsep)
                tokens[f"{name}/{kind}"] = f"{made['full-tokenid']}={made['value']}"
        yield d, tokens


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("name", [*roles(), "nothing", "elsewhere"])
async def test_gate(world, name):
    """Planted faults that this caught: no `permission.check` in dispatch; `any_of` ignored in Perm.check."""
    d, tokens = world
    for kind in ("full", "bare"):
        recorder = Recorder()
        recording = d.with_table(recorder.wrap(table()))
        privs = roles()[name] if kind == "full" and name in roles() else frozenset()
        for method in METHODS:
            if isinstance(method.permission, p.World):
                continue
            params = samples(method)
            before = recorder.reached
            status, reason, body = await recording.call(method, params, token=tokens[f"{name}/{kind}"])
            may = expected(method.permission, privs, params, f"m-{name.lower()}@pve") and method.allow_token
            where = f"{name}/{kind} {method.verb} {method.path}: {status} {reason} {body}"
            assert (recorder.reached > before) == may, where
            assert status == (200 if may else 403), where


async def test_strangers_get_401_everywhere(world):
    """Attack row 6: crawl everything without a login. Planted fault: dispatch without `_authenticate`'s
    `No ticket` fails this."""
    d, _ = world
    recorder = Recorder()
    recording = d.with_table(recorder.wrap(table()))
    open_to_all = {
        "/access/domains", "/access/ticket", "/access/vncticket", "/access/openid/auth-url", "/access/openid/login",
    }  # fmt: skip
    for method in METHODS:
        for wrong in (
            {},
            {"token": "root@pam!x=00000000-0000-0000-0000-000000000000"},
            {"ticket": "PVE:root@pam:0::x"},
        ):
            before = recorder.reached
            status, _, _ = await recording.call(method, samples(method), **wrong)
            if isinstance(method.permission, p.World):
                assert method.path in open_to_all, f"{method.verb} {method.path} is open to strangers"
                continue
            assert (status, recorder.reached) == (401, before), f"{method.verb} {method.path}"


async def test_root_passes(world):
    """Through the local door everything is allowed."""
    d, _ = world
    recorder = Recorder()
    recording = d.with_table(recorder.wrap(table()))
    for method in METHODS:
        params = samples(method)
        params_of_root = {**params, "userid": "root@pam"} if "userid" in params else params
        status, reason, body = await recording.call(method, params_of_root, local=True)
        assert status == 200, f"{method.verb} {method.path}: {status} {reason} {body}"


@pytest.mark.parametrize("who", ["nothing/full", "Administrator/bare", "NoAccess/full", "elsewhere/full"])
async def test_nobody_changes_anything(world, who):
    """Real handlers, users without rights: nothing in the store moves, no task begins. Planted fault: a handler of a
    Described route without its `call.require` fails this."""
    d, tokens = world
    for method in METHODS:
        if not method.changes or isinstance(method.permission, p.World):
            continue
        if method.path == "/nodes/{node}/panal/noop":
            continue
        before, tasks = _state(d), d.services.tasks.running
        status, reason, body = await d.call(method, samples(method), token=tokens[who])
        where = f"{who} {method.verb} {method.path}: {status} {reason} {body}"
        assert _state(d) == before and d.services.tasks.running == tasks, where
        assert status in (400, 403, 404, 500), where
        assert "internal error" not in reason, where


def _state(d: Desk) -> dict[str, int]:
    """Everything stored, by key: also numbers reserved for a moment."""
    return {item.key: item.revision for item in d.services.store.list("")}


async def test_absent_and_forbidden_look_the_same(world):
    """Attack row 20: a caller without rights learns nothing about which guests, storages, pools and users exist."""
    d, tokens = world
    await d.must("POST", "/pools", poolid="secret")
    there = {"poolid": "secret", "storage": "local", "userid": "m-nothing@pve", "groupid": "g1"}
    absent = {"poolid": "nopool", "storage": "nostore", "userid": "nouser@pve", "groupid": "g2"}
    for method in METHODS:
        if method.verb != "GET" or not set(method.path_params) & set(there) or method.noun == "index":
            continue
        answers = []
        for values in (there, absent):
            params = {**samples(method), **{k: v for k, v in values.items() if k in method.path_params}}
            status, reason, _ = await d.call(method, params, token=tokens["Administrator/bare"])
            for name, value in values.items():
                reason = reason.replace(value, name)
            answers.append((status, reason))
        assert answers[0] == answers[1], f"{method.path}: {answers}"


async def test_another_node_is_nobody(world):
    """Forwarding has no target outside of the member list."""
    d, _ = world
    for node in ("n2", "127.0.0.1", "localhost.localdomain", "..", "n1.evil"):
        status, reason, _ = await d.ask("GET", f"/nodes/{node}/version", local=True)
        assert status in (400, 500), (node, status, reason)
    assert (await d.ask("GET", "/nodes/localhost/version", local=True))[0] == 200
