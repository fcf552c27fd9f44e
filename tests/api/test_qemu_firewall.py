"""The firewall of a machine over the API: types, messages, digests, and who may; shapes of answers are test_returns.py's."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from panal.daemon.compose import Settings, run_node
from panal.firewall import Abilities, FakeBackend, NftBackend
from tests.api.in_process import Desk, desk

WALL = "/nodes/n1/qemu/100/firewall"
CARD = "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1"


@pytest_asyncio.fixture
async def d() -> AsyncIterator[Desk]:
    async with desk() as made:
        upid = await made.must("POST", "/nodes/n1/qemu", vmid=100, net0=CARD)
        await made.services.tasks.wait(upid, 60)
        yield made


async def refused(d: Desk, verb: str, path: str, **params: Any) -> tuple[int, str, dict[str, Any]]:
    status, reason, body = await d.ask(verb, WALL + path, params, local=True)
    assert status != 200, body
    return status, reason + " " + body["message"], body.get("errors", {})


async def options(d: Desk, **params: Any) -> None:
    assert (await d.ask("PUT", f"{WALL}/options", params, local=True))[0] == 200


async def test_rules_as_terraform_and_others_write_them(d: Desk):
    """One after the other from the last, each with its `pos`, which has no meaning then: they stand in the wanted order."""
    for pos, port in reversed(list(enumerate(("22", "80", "443")))):
        await d.must("POST", f"{WALL}/rules", type="in", action="ACCEPT", proto="tcp", dport=port, enable=1, pos=pos)
    rows = await d.must("GET", f"{WALL}/rules")
    assert [(r["pos"], r["dport"], r["enable"]) for r in rows] == [(0, "22", 1), (1, "80", 1), (2, "443", 1)]
    digest = rows[0]["digest"]
    assert len(digest) == 40 and all(r["digest"] == digest for r in rows)
    await d.must("PUT", f"{WALL}/rules/0", source="192.0.2.0/24", comment="Büro", digest=digest)
    one = await d.must("GET", f"{WALL}/rules/0")
    assert (one["source"], one["comment"], one["ipversion"]) == ("192.0.2.0/24", "Büro", 4)
    status, text, _ = await refused(d, "PUT", "/rules/0", action="DROP", digest=digest)
    assert status == 500 and "detected modified configuration - file changed by other user? Try again." in text
    await d.must("PUT", f"{WALL}/rules/0", delete="source,comment", moveto=2)
    assert [r["dport"] for r in await d.must("GET", f"{WALL}/rules")] == ["80", "22", "443"]
    await d.must("DELETE", f"{WALL}/rules/2")
    assert "no rule at position 2" in (await refused(d, "GET", "/rules/2"))[1]


async def test_wrong_values_name_their_field_and_change_nothing(d: Desk):
    for field, params in (
        ("type", {"type": "group", "action": "web"}),
        ("type", {"type": "forward", "action": "DROP"}),
        ("type", {"type": "sideways", "action": "DROP"}),
        ("dport", {"type": "in", "action": "DROP", "dport": "22"}),
        ("source", {"type": "in", "action": "DROP", "source": "+missing"}),
        ("icmp-type", {"type": "in", "action": "DROP", "proto": "tcp", "icmp-type": "any"}),
        ("log", {"type": "in", "action": "DROP", "log": "loud"}),
    ):
        status, _, errors = await refused(d, "POST", "/rules", **params)
        assert status == 400 and set(errors) == {field}
    assert await d.must("GET", f"{WALL}/rules") == []
    assert set((await refused(d, "PUT", "/options", policy_in="MAYBE"))[2]) == {"policy_in"}


async def test_aliases_and_sets(d: Desk):
    await d.must("POST", f"{WALL}/aliases", name="office", cidr="192.0.2.0/24", comment="x")
    await d.must("POST", f"{WALL}/ipset", name="admins")
    await d.must("POST", f"{WALL}/ipset/admins", cidr="office")
    await d.must("POST", f"{WALL}/ipset/admins", cidr="192.0.2.7", nomatch=1)
    await d.must("POST", f"{WALL}/ipset/admins", cidr="198.51.100.0/24")
    await d.must("POST", f"{WALL}/rules", type="in", action="ACCEPT", source="+admins")
    assert [e["cidr"] for e in await d.must("GET", f"{WALL}/ipset/admins")] == [
        "198.51.100.0/24",
        "192.0.2.7",
        "office",
    ]
    net = f"{WALL}/ipset/admins/198.51.100.0%2F24"
    await d.must("PUT", net, comment="far")
    assert (await d.must("GET", net))["comment"] == "far"
    assert "IPSet admins" in (await refused(d, "DELETE", "/aliases/office"))[1]
    assert "rule 0" in (await refused(d, "DELETE", "/ipset/admins", force=1))[1]
    await d.must("PUT", f"{WALL}/aliases/office", cidr="192.0.2.0/25", rename="hq")
    assert {r["ref"] for r in await d.must("GET", f"{WALL}/refs")} == {"guest/hq", "+guest/admins"}
    assert [r["type"] for r in await d.must("GET", f"{WALL}/refs", type="alias")] == ["alias"]
    assert (await d.must("GET", f"{WALL}/ipset/admins"))[2]["cidr"] == "hq"
    await d.must("DELETE", net)
    await d.must("DELETE", f"{WALL}/rules/0")
    assert "not empty" in (await refused(d, "DELETE", "/ipset/admins"))[1]
    await d.must("DELETE", f"{WALL}/ipset/admins", force=1)
    await d.must("DELETE", f"{WALL}/aliases/hq")


async def test_options_reach_the_kernel_or_are_refused(d: Desk):
    kernel = d.services.guests.filtering.backend
    assert isinstance(kernel, FakeBackend)
    assert set(await d.must("GET", f"{WALL}/options")) == {"digest"}
    kernel.able = Abilities("this node's kernel has no connection tracking on bridges", False)
    status, text, _ = await refused(d, "PUT", "/options", enable=1)
    assert status == 501 and "connection tracking on bridges" in text
    await options(d, policy_in="REJECT", log_level_in="info")
    kernel.able = Abilities()
    await options(d, enable=1)
    await d.services.tasks.wait(await d.must("POST", "/nodes/n1/qemu/100/status/start"), 60)
    assert "panal-n1" in json.dumps(kernel.commands) and "tap100i0-in" in json.dumps(kernel.commands)
    shown = await d.must("GET", f"{WALL}/options")
    assert (shown["enable"], shown["policy_in"], shown["log_level_in"]) == (1, "REJECT", "info")
    await options(d, delete="enable")
    assert "tap100i0" not in json.dumps(kernel.commands)


async def test_there_is_none_without_a_guest(d: Desk):
    for verb, path in (("GET", "/rules"), ("GET", "/options"), ("PUT", "/options"), ("GET", "/log"), ("GET", "/refs")):
        status, _, body = await d.ask(verb, f"/nodes/n1/qemu/101/firewall{path}", {}, local=True)
        assert status == 500 and "does not exist" in body["message"]


@pytest.mark.real
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not installed")
async def test_the_real_hypervisor_has_the_real_kernel_behind_it():
    """Planted fault: compose without the line that sets it."""
    with tempfile.TemporaryDirectory(prefix="pnl", dir="/tmp") as name:
        async with AsyncExitStack() as stack:
            services = await run_node(Settings("n1", Path(name) / "state", Path(name) / "run", "qemu", "nobody"), stack)
            assert isinstance(services.guests.filtering.backend, NftBackend)
