"""Where guests and their firewalls meet: never a moment unprotected, nothing inherited, nothing that only stores."""

from __future__ import annotations

import asyncio
import json

import pytest

from panal.core.errors import Failed, Unsupported
from panal.firewall import Abilities, FakeBackend, GuestFirewall, edit, firewall_key, remove_table
from panal.guests import firewall
from panal.guests.clone import CloneRequest, clone
from panal.guests.delete import delete
from panal.guests.start import start
from panal.guests.stop import stop
from tests.unit.guests.test_start import put_guest
from tests.unit.guests.world import USER, Node, World

CARD = "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1"


def kernel(node: Node) -> FakeBackend:
    backend = node.guests.filtering.backend
    assert isinstance(backend, FakeBackend)
    return backend


def guarded(node: Node) -> bool:
    return "tap100i0" in json.dumps(kernel(node).commands)


async def enable(node: Node, vmid: int = 100, **options: object) -> None:
    await firewall.change(node.guests, vmid, lambda fw: edit.set_options(fw, {"enable": True, **options}))


async def gone(node: Node) -> None:
    async with asyncio.timeout(10):
        while guarded(node):
            await asyncio.sleep(0.01)


async def test_rules_are_there_before_the_guest_and_go_after_it(world: World) -> None:
    """Planted fault: protect() after driver.start."""
    async with world.boot() as node:
        await put_guest(node, net0=CARD)
        await enable(node)
        assert not guarded(node), "it does not run"
        seen: list[bool] = []
        begin = node.driver.start

        async def watched(spec, log):
            seen.append(guarded(node))
            return await begin(spec, log)

        node.driver.start = watched  # type: ignore[method-assign]
        await node.ok(await start(node.guests, 100, USER))
        assert seen == [True] and guarded(node)
        await node.ok(await stop(node.guests, 100, USER))
        await gone(node)
        assert kernel(node).commands == remove_table("panal-n1")


async def test_a_change_reaches_a_running_guest_at_once_or_is_not_made(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node, net0=CARD)
        await node.ok(await start(node.guests, 100, USER))
        assert not guarded(node)
        await enable(node)
        assert guarded(node)
        rule = {"type": "in", "action": "ACCEPT", "enable": 1, "proto": "tcp", "dport": "7777"}
        await firewall.change(node.guests, 100, lambda fw: edit.add_rule(fw, rule))
        assert "7777" in json.dumps(kernel(node).commands)
        before = node.guests.store.value(firewall_key(100))
        kernel(node).refuse = "no memory"
        with pytest.raises(Failed, match=r"no memory"):
            await firewall.change(node.guests, 100, lambda fw: edit.delete_rule(fw, 0, {}))
        assert node.guests.store.value(firewall_key(100)) == before
        kernel(node).refuse = None
        await firewall.change(node.guests, 100, lambda fw: edit.set_options(fw, {"enable": False}))
        assert not guarded(node)


async def test_a_start_that_cannot_be_protected_is_refused_and_leaves_nothing(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node, net0=CARD)
        await enable(node)
        kernel(node).refuse = "no memory"
        assert "its firewall cannot be put in place" in await node.ended(await start(node.guests, 100, USER))
        kernel(node).refuse = None
        kernel(node).able = Abilities("this node's kernel has no nf_conntrack_bridge", False)
        assert "nf_conntrack_bridge" in await node.ended(await start(node.guests, 100, USER))
        assert (await node.driver.info(100)).status == "stopped"
        await firewall.change(node.guests, 100, lambda fw: edit.set_options(fw, {"enable": False}))
        await node.ok(await start(node.guests, 100, USER))
        with pytest.raises(Unsupported, match="nf_conntrack_bridge"):
            await enable(node)


async def test_what_cannot_be_filtered_is_refused_by_name(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node, net0=CARD, net1="virtio=BC:24:11:00:00:02,firewall=1")
        with pytest.raises(Unsupported, match="net1 has user-mode networking"):
            await enable(node)
        await firewall.change(node.guests, 100, lambda fw: edit.add_alias(fw, {"name": "web", "cidr": "10.0.0.1"}))
        await node.guests.update(100, config={"net0": CARD})
        await enable(node)
        await node.guests.update(100, config={"net3": "virtio=BC:24:11:00:00:03,firewall=1"})
        assert "net3 has user-mode networking" in await node.ended(await start(node.guests, 100, USER))


async def test_cards_without_the_flag_are_left_alone(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node, net0=CARD.replace(",firewall=1", ""))
        await enable(node)
        await node.ok(await start(node.guests, 100, USER))
        assert not guarded(node)


async def test_a_clone_has_it_and_a_new_guest_of_the_number_has_not(world: World) -> None:
    """Planted fault: delete without the firewall's key, and `of` without `birth`."""
    async with world.boot() as node:
        await put_guest(node, net0=CARD)
        await enable(node, policy_in="REJECT")
        await node.ok(await clone(node.guests, 100, CloneRequest(101), USER))
        assert firewall.read(node.guests, 101) == firewall.read(node.guests, 100) != GuestFirewall()
        await node.ok(await start(node.guests, 101, USER))
        assert "tap101i0" in json.dumps(kernel(node).commands)
        old = node.guests.store.value(firewall_key(100))
        await node.ok(await delete(node.guests, 100, USER))
        assert node.guests.store.value(firewall_key(100)) is None
        await put_guest(node, net0=CARD)
        assert firewall.read(node.guests, 100) == GuestFirewall()
        assert old is not None
        await node.guests.store.create(firewall_key(100), old, "exists")  # as a write that came too late
        assert firewall.read(node.guests, 100) == GuestFirewall()
        await node.ok(await start(node.guests, 100, USER))
        assert not guarded(node)


async def test_a_restarted_daemon_renews_the_rules_of_running_guests(world: World) -> None:
    async with world.boot() as node:
        await put_guest(node, net0=CARD)
        await enable(node)
        await node.ok(await start(node.guests, 100, USER))
    async with world.boot() as node:
        assert node.settled.adopted == (100,)
        assert guarded(node)


async def test_many_changes_at_once_all_count(world: World) -> None:
    """Planted fault: change() writes what it read at first."""
    async with world.boot() as node:
        await put_guest(node, net0=CARD)
        await enable(node)
        await node.ok(await start(node.guests, 100, USER))

        async def add(port: int) -> None:
            rule = {"type": "in", "action": "ACCEPT", "enable": 1, "proto": "tcp", "dport": str(port)}
            await firewall.change(node.guests, 100, lambda fw: edit.add_rule(fw, rule))

        await asyncio.gather(*(add(port) for port in range(7000, 7008)))
        assert {r.dport for r in firewall.read(node.guests, 100).rules} == {str(p) for p in range(7000, 7008)}
        text = json.dumps(kernel(node).commands)
        assert all(str(port) in text for port in range(7000, 7008))
