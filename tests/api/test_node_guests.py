"""All guests of a node at once, over the API: who may, and that the machine goes down only after them."""

from __future__ import annotations

import asyncio

import pytest

from panal.core.errors import Unsupported
from panal.node import power
from panal.tasks.index import Filter
from tests.api.in_process import Desk, desk

NODE = "/nodes/n1"


async def _done(d: Desk, upid: str) -> list[str]:
    record = await d.services.tasks.wait(upid, 60)
    assert record.status == "OK", record.status
    return [line for _, line in (await d.services.tasks.read_log(upid, 0, 100))[0]]


async def _running(d: Desk) -> None:
    for vmid in (100, 101):
        await _done(d, await d.must("POST", f"{NODE}/qemu", vmid=vmid, memory="64", onboot=1))
    await _done(d, await d.must("POST", f"{NODE}/startall"))
    assert sorted(d.services.guests.live.running()) == [100, 101]


async def test_stop_and_start() -> None:
    async with desk() as d:
        await _running(d)
        await _done(d, await d.must("POST", f"{NODE}/stopall", vms="101"))
        assert sorted(d.services.guests.live.running()) == [100]
        await _done(d, await d.must("POST", f"{NODE}/stopall"))
        assert not d.services.guests.live.running()


async def test_the_machine_goes_after_its_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted faults: the machine's command first; guests shut down before it is known whether the machine can."""
    async with desk() as d:
        await _running(d)
        left: list[object] = []

        async def act(info: object, command: str) -> None:
            left.append((command, len(d.services.guests.live.running())))

        def refuse(info: object, command: str) -> list[str]:
            raise Unsupported("this node runs in a container")

        monkeypatch.setattr(power, "act", act)
        monkeypatch.setattr(power, "plan", refuse)
        status, reason, _ = await d.ask("POST", f"{NODE}/status", {"command": "reboot"}, local=True)
        assert status == 501 and "container" in reason
        assert len(d.services.guests.live.running()) == 2
        monkeypatch.setattr(power, "plan", lambda info, command: ["true"])
        assert await d.must("POST", f"{NODE}/status", command="reboot") is None
        async with asyncio.timeout(30):
            while not left:
                await asyncio.sleep(0.01)
        assert left == [("reboot", 0)]
        found, _ = await d.services.tasks.list(Filter(type="stopall"))
        assert "reboot of the node" in await _done(d, str(found[0].upid))


async def test_who_may() -> None:
    """Planted fault: no look at every guest of `vms`."""
    async with desk() as d:
        await _running(d)
        await d.must("POST", "/access/users", userid="victim@pve")
        await d.must("PUT", "/access/acl", path="/vms/100", users="victim@pve", roles="PVEVMUser")
        token = await d.must("POST", "/access/users/victim@pve/token/t1", privsep=0)
        for path in (f"{NODE}/stopall", f"{NODE}/startall"):
            for vms, want in (("100", 200), ("100,101", 403), ("", 403), ("100;999", 403)):
                params = {"vms": vms} if vms else {}
                status, reason, body = await d.ask(
                    "POST", path, params, token=f"{token['full-tokenid']}={token['value']}"
                )
                assert status == want, (path, vms, reason)
                if status == 200:
                    await _done(d, body["data"])
